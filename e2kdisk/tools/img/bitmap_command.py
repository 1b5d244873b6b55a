"""bitmap: not there yet; a wrong command line is refused as qemu-img does."""

from __future__ import annotations

from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given

ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")


def run(arguments: list[str]) -> int:
    """Run the command."""
    long: dict[str, bool | str] = {name: name == "merge" for name in ACTIONS}
    given = Given(arguments, "b:f:F:g:", long)
    wanted = [key for key, _ in given.options if key in ACTIONS]
    if given.has("g") and "add" not in wanted:
        raise Failure("granularity only supported with --add")
    if not wanted:
        raise Failure("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
    if len(given.names) != 2:
        raise Failure("Expecting filename and bitmap name")
    raise Failure("persistent bitmaps are not supported yet")
