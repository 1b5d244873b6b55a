"""dd: copy blocks of one image into a new one."""

from __future__ import annotations

import re

from e2kdisk.tools.img.create_options import FORMATS
from e2kdisk.tools.img.errors import Failure, report
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import MAX_SIZE, size_argument

MAX_BLOCK = (1 << 31) - 1


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:O:U")
    names: dict[str, str] = {}
    numbers = {"bs": 512, "count": -1, "skip": 0}
    for operand in given.names:
        key, equals, value = operand.partition("=")
        if not equals:
            raise Failure(f"unrecognized operand {operand}")
        if key in ("if", "of"):
            names[key] = value
        elif key == "bs":
            numbers[key] = size_argument("bs", value, 1, MAX_BLOCK)
        elif key in ("count", "skip"):
            numbers[key] = size_argument(key, value, 0, MAX_SIZE)
        else:
            raise Failure(f"unrecognized operand {key}")
    if "if" not in names or "of" not in names:
        raise Failure("Must specify both input and output files")
    if given.image_opts and given.has("f"):
        raise Failure("--image-opts and --format are mutually exclusive")
    _copy(given, names["if"], names["of"], numbers)
    return 0


def _copy(given: Given, source_name: str, target_name: str, numbers: dict[str, int]) -> None:
    from e2kdisk.tools.img.copying import Copier, Source
    from e2kdisk.tools.img.creation import make_image
    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    source = session.open_given(source_name, given)
    format = given.value("O") or "raw"
    if format not in FORMATS:
        raise Failure("Unknown file format")
    size = source.size
    if numbers["count"] >= 0:
        size = min(size, numbers["count"] * numbers["bs"])
    start = numbers["skip"] * numbers["bs"]
    length = max(0, size - start)
    try:
        make_image(session, target_name, format, {"size": length})
    except Failure as error:
        if "does not support image creation" in error.text:
            raise
        raise Failure(f"{target_name}: error while creating output image: {error.text}") from None
    target = session.open(target_name, format=format, writable=True)
    if start > size:
        report(f"{source_name}: cannot skip to specified offset")
    copier = Copier(target.node, sparse=512, compressed=False, is_zero=True, backing_size=None)
    with session.closing(target, source):
        try:
            session.run(copier.copy([Source(source.node, start, length, 0)]))
        except Failure as error:
            text = re.sub(r"reading at byte \d+", "reading from input image file", error.text)
            raise Failure(re.sub(r"writing at byte \d+", "writing to output image file", text)) from None
