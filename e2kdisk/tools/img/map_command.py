"""map: which part of which file holds what a guest sees."""

from __future__ import annotations

from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.output import scalar
from e2kdisk.tools.img.sizes import size_argument


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:s:l:U", {"format": "f", "output": True, "start-offset": "s", "max-length": "l"})
    start_text, length_text = given.value("s"), given.value("l")
    start = 0 if start_text is None else size_argument("start offset", start_text)
    length = None if length_text is None else size_argument("max length", length_text)
    name = given.one_name()
    given.need_output()

    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    image = session.open_given(name, given)
    end = image.size if length is None else min(image.size, start + length)
    if not given.json:
        print(f"{'Offset':16}{'Length':16}{'Mapped to':16}File")
    try:
        session.run(_print(image.node, start, end, given.json))
    finally:
        session.close(image)
    return 0


async def _print(node: object, start: int, end: int, as_json: bool) -> None:
    from e2kdisk.block.node import Node
    from e2kdisk.tools.img.status import Run, runs

    assert isinstance(node, Node)
    before = "["
    async for offset, run in runs(node, start, end):
        if as_json:
            print(f"{before}{_json(offset, run)}", end="")
            before = ",\n"
        elif run.data and not run.zero:
            if run.host is None:
                raise Failure("File contains external, encrypted or compressed clusters.")
            print(f"{_hex(offset):16}{_hex(run.length):16}{_hex(run.host):16}{run.name}")
    if as_json:
        if before == "[":
            nothing = Run(0, data=False, zero=False, present=False, depth=0, host=None, name="")
            print(f"[{_json(start, nothing)}", end="")
        print("]")


def _json(offset: int, run: object) -> str:
    from e2kdisk.tools.img.status import Run

    assert isinstance(run, Run)
    flags = ", ".join(f'"{name}": {scalar(getattr(run, name))}' for name in ("present", "zero", "data"))
    host = "" if run.host is None else f', "offset": {run.host}'
    return f'{{ "start": {offset}, "length": {run.length}, "depth": {run.depth}, {flags}{host}}}'


def _hex(number: int) -> str:
    return hex(number) if number else "0"
