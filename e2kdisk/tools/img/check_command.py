"""check: is an image consistent, and shall it be repaired?"""

from __future__ import annotations

import os

from e2kdisk.tools.img.errors import Failure, usage, write_error
from e2kdisk.tools.img.given import Given, warn_guessed
from e2kdisk.tools.img.output import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.img.sound import Sound

CORRUPT, LEAKS, NO_CHECKS = 2, 3, 63
_COUNT = r"cluster 0x([0-9a-f]+): refcount (\d+) but (\d+) references"
_FLAG = r"L(?:1 entry (\d+)|2 entry at 0x[0-9a-f]+): 0x([0-9a-f]+): COPIED .* the refcount is (\d+)"
_CACHED = ("writeback", "writethrough", "unsafe")


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:r:T:qU", {"format": "f", "output": True, "repair": "r"})
    fix = given.value("r")
    if fix not in (None, "leaks", "all"):
        raise usage(f"Unknown option value for -r (expecting 'leaks' or 'all'): {fix}")
    given.need_output()
    name = given.one_name()
    cache = given.cache("T", "writeback", "source cache")

    result = _sound(name, given, fix, cache) or _check(name, given, fix, cache)
    for line in _problem_lines(result, fix):
        write_error(f"{line}\n")
    if given.json:
        print(json_text(_facts(result, name)))
    elif not given.quiet:
        print(_text(result))
    return CORRUPT if result.corruptions else LEAKS if result.leaks else 0


def _sound(name: str, given: Given, fix: str | None, cache: str) -> Sound | None:
    """The result for a plain file in which nothing is wrong, without the engine; None if the engine must judge."""
    path = name.removeprefix("file:")
    plain = not given.image_opts and not given.values("object") and ":" not in path.partition("/")[0]
    if fix is None and plain and given.value("f") in (None, "qcow2") and cache in _CACHED and os.path.isfile(path):
        from e2kdisk.tools.img.sound import look

        return look(path, force_share=given.force_share)
    return None


def _check(name: str, given: Given, fix: str | None, cache: str) -> CheckResult:
    from e2kdisk.errors import E2kDiskError
    from e2kdisk.qcow2.check import check_file
    from e2kdisk.tools.img.opening import Reason, Session, reason

    session = Session(given)
    # First as everybody opens it, which finds what is wrong with its name, its header and its backing file.
    image = None
    try:
        image = session.open_given(name, given, no_backing=True)
    except Failure as error:
        if given.value("f") not in (None, "qcow2") or "key-secret" in error.text:
            raise  # everything else may be what a check is for
    if image is not None:
        format = image.format
        session.close(image)
        if format != "qcow2":
            if fix is not None and not given.image_opts and given.value("f") is None:
                warn_guessed(name)
            raise Failure("This image format does not support checks", NO_CHECKS)

    async def check() -> CheckResult:
        file = await session.opener.open_bare(name, given, writable=fix is not None, cache=cache)
        try:
            return await check_file(file, fix)
        finally:
            await file.close()

    try:
        return session.run(check())
    except Reason as error:
        raise Failure(f"Could not open '{name}': {error}") from None
    except (E2kDiskError, OSError) as error:
        raise Failure(f"Could not open '{name}': {reason(error)}") from None


def _problem_lines(result: CheckResult | Sound, fix: str | None) -> list[str]:
    """What qemu-img says of the problems: as it finds them, as it repairs them, and when it looks once more."""
    if not result.problems:
        return []
    import re

    found, repairs, left = [], [], []
    for problem in result.problems:
        if (counted := re.fullmatch(_COUNT, problem)) is not None:
            cluster, refcount, references = int(counted[1], 16), int(counted[2]), int(counted[3])
            what = f"cluster {cluster} refcount={refcount} reference={references}"
            is_leak = refcount > references
            found.append(f"Leaked {what}" if is_leak else f"ERROR {what}")
            if fix == "all" or (fix == "leaks" and is_leak):
                repairs.append(f"Repairing {what}")
            elif fix is not None:
                repairs.append(f"ERROR {what}")
                left.append(f"ERROR {what}")
        elif (flag := re.fullmatch(_FLAG, problem)) is not None:
            index, entry, counted_as = flag[1], flag[2], flag[3]
            place = "data cluster: l2_entry=" if index is None else f"L2 cluster: l1_index={index} l1_entry="
            # Flags are judged, and repaired, when the refcounts have been.
            repaired = fix is not None and not result.corruptions
            repairs.append(f"{'Repairing' if repaired else 'ERROR'} OFLAG_COPIED {place}{entry} refcount={counted_as}")
        else:
            mended = fix == "all" and problem.startswith("snapshot table entry ")
            found.append(f"{'Repairing' if mended else 'ERROR'} {problem}")
    return found + repairs + (left if result.leaks_fixed or result.corruptions_fixed else [])


def _facts(result: CheckResult | Sound, name: str) -> dict[str, Any]:
    facts = {
        "image-end-offset": result.image_end,
        "compressed-clusters": result.compressed_clusters or None,
        "total-clusters": result.total_clusters,
        "corruptions": result.corruptions or None,
        "corruptions-fixed": result.corruptions_fixed or None,
        "check-errors": 0,
        "leaks": result.leaks or None,
        "leaks-fixed": result.leaks_fixed or None,
        "allocated-clusters": result.allocated_clusters or None,
        "filename": name,
        "format": "qcow2",
        "fragmented-clusters": result.fragmented_clusters or None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _text(result: CheckResult | Sound) -> str:
    text = ""
    if result.leaks_fixed or result.corruptions_fixed:
        text += (
            "The following inconsistencies were found and repaired:\n\n"
            f"    {result.leaks_fixed} leaked clusters\n    {result.corruptions_fixed} corruptions\n\n"
            "Double checking the fixed image now...\n"
        )
    if result.clean:
        text += "No errors were found on the image.\n"
    if result.corruptions:
        text += (
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        text += (
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    allocated, total = result.allocated_clusters, result.total_clusters
    if allocated and total:
        text += (
            f"{allocated}/{total} = {allocated * 100 / total:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / allocated:.2f}% compressed clusters\n"
        )
    return text + f"Image end offset: {result.image_end}"
