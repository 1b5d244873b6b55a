"""convert: copy images, one behind the other, into a new one or into one that is there."""

from __future__ import annotations

import os

from e2kdisk.tools.img.create_options import FORMATS, PROTOCOL, format_help, join, parse, wants_help
from e2kdisk.tools.img.errors import Failure, report
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.keyval import pairs
from e2kdisk.tools.img.sizes import read_size, size_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.tools.img.copying import Copier
    from e2kdisk.tools.img.opening import Image, Session
    from e2kdisk.tools.img.progress import Progress

LONG: dict[str, bool | str] = {
    "target-image-opts": False,
    "target-is-zero": False,
    "bitmaps": False,
    "skip-broken-bitmaps": False,
    "salvage": False,
}
MAX_SPARSE = 16 << 20
DEFAULT_SPARSE = 4096
DEFAULT_WORKERS = 8


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:F:O:B:cCo:l:S:pqnm:WUr:T:t:", LONG)
    text = join(given.values("o"))
    snapshot = _snapshot_name(given.value("l"))
    sparse = _sparse(given.value("S"))
    coroutines = given.value("m")
    if coroutines is not None and not (coroutines.isascii() and coroutines.isdigit() and 1 <= int(coroutines) <= 16):
        raise Failure("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16")
    rate = size_argument("rate limit", given.value("r") or "0")
    format = given.value("O") or "raw"
    if wants_help(given.values("o")):
        if format not in FORMATS:
            raise Failure(f"Unknown file format '{format}'")
        print(format_help(format, bool(given.names)), end="")
        return 0
    _need_sense(given, text)
    source_cache = given.cache("T", "writeback", "source cache")
    target_cache = given.cache("t", "unsafe", "cache")

    from e2kdisk.tools.img.bitmap_copying import copy_bitmaps, has_bitmap_support, need_copyable
    from e2kdisk.tools.img.opening import Session
    from e2kdisk.tools.img.progress import Progress

    session = Session(given)
    progress = Progress(given.has("p") and not given.quiet)
    try:
        extras = {} if snapshot is None else {"snapshot": snapshot}
        sources = [_open_source(session, given, name, source_cache, extras) for name in given.names[:-1]]
        if format not in FORMATS:
            raise Failure(f"Unknown file format '{format}'")
        if given.has("bitmaps"):
            if not given.has("n") and format == "raw":
                raise Failure("Format driver 'raw' does not support bitmaps")
            need_copyable(sources, skip_broken=given.has("skip-broken-bitmaps"))
        values = _target_values(given, format, text, sum(source.size for source in sources))
        target = _target(session, given, format, given.names[-1], values, target_cache)
        with session.closing(target, *sources):
            if given.has("bitmaps") and not has_bitmap_support(target):
                raise Failure(f"Format driver '{target.format}' does not support bitmaps")
            _copy(session, given, sources, target, sparse, rate, progress)
            if given.has("bitmaps"):
                # Last: the copying is no change that they should tell of.
                copy_bitmaps(sources[0], target)
    except BaseException:
        progress.end(ok=False)
        raise
    progress.end()
    return 0


def _open_source(session: Session, given: Given, name: str, cache: str, extras: dict[str, Any]) -> Image:
    if extras:
        # Once without: a snapshot that is not there has a message of its own.
        image = session.open_given(name, given, cache=cache, no_backing=True)
        session.close(image)
        find_snapshot(image, str(extras["snapshot"]))
    return session.open_given(name, given, cache=cache, extras=extras)


def find_snapshot(image: Image, name: str) -> None:
    """Raises Failure if an image has no such snapshot."""
    from e2kdisk.errors import E2kDiskError
    from e2kdisk.qcow2.image import Qcow2Image

    try:
        if isinstance(image.node, Qcow2Image):
            image.node.snapshots.find(name)
            return
    except E2kDiskError:
        pass
    raise Failure("Failed to load snapshot: Can't find snapshot")


def _snapshot_name(text: str | None) -> str | None:
    """The id or name in the value of -l. Raises Failure."""
    if text is None or not text.startswith("snapshot."):
        return text
    name = None
    for key, value in pairs(text):
        if key not in ("snapshot.id", "snapshot.name"):
            report(f"Invalid parameter '{key}'")
            raise Failure(f"Failed in parsing snapshot param '{text}'")
        name = value
    return name


def _sparse(text: str | None) -> int:
    if text is None:
        return DEFAULT_SPARSE
    number = read_size(text)
    if number is None:
        size_argument("buffer size for sparse output", text)
    if number is None or number % 512 or number > MAX_SPARSE:
        raise Failure(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to "
            f"{MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
        )
    return number


def _need_sense(given: Given, options: str) -> None:
    """Refuse options that contradict each other."""
    offload = given.has("C")
    rules = (
        (
            given.has("skip-broken-bitmaps") and not given.has("bitmaps"),
            "Use of --skip-broken-bitmaps requires --bitmaps",
        ),
        (offload and given.has("S"), "Cannot enable copy offloading when -S is used"),
        (offload and given.has("c"), "Cannot enable copy offloading when -c is used"),
        (offload and given.has("salvage"), "Cannot use copy offloading in salvaging mode"),
        (given.has("target-image-opts") and not given.has("n"), "--target-image-opts requires use of -n flag"),
        (given.has("target-is-zero") and not given.has("n"), "--target-is-zero requires use of -n flag"),
        (len(given.names) < 2, "Must specify image file name"),
        (given.has("n") and bool(options), "-o has no effect when skipping image creation"),
        (given.has("l") and len(given.names) > 2, "No support for concatenating multiple snapshot"),
    )
    if given.image_opts and given.has("f"):
        raise Failure("--image-opts and --format are mutually exclusive")
    for wrong, text in rules:
        if wrong:
            raise Failure(text)


def _target_values(given: Given, format: str, text: str, size: int) -> dict[str, Any]:
    values = parse(text, PROTOCOL | FORMATS[format])
    backing = given.value("B")
    if backing is not None:
        if "backing_file" not in FORMATS[format]:
            raise Failure(f"Backing file not supported for file format '{format}'")
        values["backing_file"] = backing
    if given.value("F") is not None:
        if "backing_fmt" not in FORMATS[format]:
            raise Failure(f"Backing file format not supported for file format '{format}'")
        values["backing_fmt"] = given.value("F")
    if values.get("backing_file") and not values.get("backing_fmt"):
        raise Failure("Use of backing file requires explicit backing format")
    if given.has("c") and format == "raw":
        raise Failure("Compression not supported for this file format")
    values["size"] = size  # whatever -o says: the target is as large as the sources are together
    return values


def _target(session: Session, given: Given, format: str, name: str, values: dict[str, Any], cache: str) -> Image:
    """The target, made if need be, open for writing."""
    from e2kdisk.tools.img.creation import key_extras, make_image

    if given.has("n"):
        image_opts = given.has("target-image-opts")
        format_given = None if image_opts else format
        return session.open(name, format=format_given, image_opts=image_opts, writable=True, cache=cache)
    try:
        make_image(session, name, format, values)
    except Failure as error:
        if "does not support image creation" in error.text:
            raise
        raise Failure(f"{name}: error while converting {format}: {error.text}") from None
    extras = key_extras(session, values)
    return session.open(name, format=format, writable=True, cache=cache, extras=extras)


def _copy(
    session: Session,
    given: Given,
    sources: list[Image],
    target: Image,
    sparse: int,
    rate: int,
    progress: Progress,
) -> None:
    from e2kdisk.block.file import FileNode
    from e2kdisk.tools.img.copying import Copier
    from e2kdisk.tools.img.rate import RateLimit

    whole = sum(source.size for source in sources)
    if target.size < whole:
        raise Failure("output file is smaller than input file")
    if given.has("c") and target.format == "raw":
        raise Failure("Compression not supported for this file format")
    backing = getattr(target.node, "backing", None)
    new = not given.has("n")
    if new and isinstance(target.file, FileNode):
        target.file.reserve_before_writes()
    copier = Copier(
        target.node,
        sparse=sparse,
        compressed=given.has("c"),
        is_zero=new or given.has("target-is-zero"),
        backing_size=None if backing is None else backing.size,
    )
    copier.salvage = given.has("salvage")
    copier.workers = int(given.value("m") or DEFAULT_WORKERS)
    copier.in_order = not given.has("W")
    copier.offload = given.has("C")
    copier.rate = RateLimit(session.scheduler, rate)
    copier.progress = progress
    session.run(_copy_all(copier, sources))


async def _copy_all(copier: Copier, sources: list[Image]) -> None:
    from e2kdisk.tools.img.copying import Source

    at = 0
    parts = []
    for source in sources:
        parts.append(Source(source.node, 0, source.size, at))
        at += source.size
    await copier.copy(parts)
    try:
        await copier.target.flush()
    except OSError as error:
        raise Failure(f"error while writing at byte {at}: {os.strerror(error.errno or 5)}") from None
