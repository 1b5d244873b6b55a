"""e2kdisk check: is a qcow2 image consistent?"""

from __future__ import annotations

from e2kdisk.tools.arguments import Parser, human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.img.sound import Sound

HELP = """\
Look for damage in a qcow2 image: count every reference, compare with the stored
counts. Nothing is changed.

exit status:
  0  the image is consistent
  1  it could not be checked
  2  it is corrupt: data is lost, or will be when it is written to
  3  it has leaks: space is wasted, data is safe
"""

CORRUPT = 2
LEAKS = 3
SHOWN = 20
"""Problems that are printed for people; --json has more."""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("check", HELP)
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("--json", action="store_true", help="print JSON, with the names that qemu-img uses")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)

    result = _check(given.file)
    if given.json:
        import json

        print(json.dumps(facts(result, given.file), indent=4))
    else:
        for problem in result.problems[:SHOWN]:
            print(problem)
        if len(result.problems) > SHOWN:
            print(f"... and {result.corruptions + result.leaks - SHOWN} more")
        print(summary(result, given.file))
    return CORRUPT if result.corruptions else LEAKS if result.leaks else 0


def _check(filename: str) -> CheckResult | Sound:
    import os

    if os.path.isfile(filename):
        from e2kdisk.tools.img.sound import look

        sound = look(filename, force_share=False)
        if sound is not None:
            return sound
    from e2kdisk.qcow2.check import check

    return check(filename)


def summary(result: CheckResult | Sound, filename: str) -> str:
    """One line for people."""
    if result.clean:
        verdict = "consistent"
    else:
        found = []
        if result.corruptions:
            found.append(_many(result.corruptions, "corruption"))
        if result.leaks:
            found.append(_many(result.leaks, "leaked cluster"))
        verdict = ", ".join(found)
    return (
        f"{filename}: {verdict}; {result.allocated_clusters} of {result.total_clusters} clusters in use, "
        f"the image ends at {human(result.image_end)}"
    )


def facts(result: CheckResult | Sound, filename: str) -> dict[str, Any]:
    """The result for programs."""
    return {
        "filename": filename,
        "format": "qcow2",
        "check-errors": 0,
        "corruptions": result.corruptions,
        "leaks": result.leaks,
        "total-clusters": result.total_clusters,
        "allocated-clusters": result.allocated_clusters,
        "fragmented-clusters": result.fragmented_clusters,
        "compressed-clusters": result.compressed_clusters,
        "image-end-offset": result.image_end,
        "problems": result.problems,
    }


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
