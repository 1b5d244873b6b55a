"""create: make a new image."""

from __future__ import annotations

import os

from e2kdisk.tools.img.create_options import FORMATS, PROTOCOL, format_help, formatting, join, parse, wants_help
from e2kdisk.tools.img.errors import Failure, usage
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import size_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.tools.img.opening import Session


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "F:b:f:o:qu", without="image-opts")
    format = given.value("f") or "raw"
    text = join(given.values("o"))
    if wants_help(given.values("o")):
        if format not in FORMATS:
            raise Failure(f"Unknown file format '{format}'")
        print(format_help(format, bool(given.names)), end="")
        return 0
    if not given.names:
        raise usage("Expecting image file name")
    filename = given.names[0]
    size = size_argument("image size", given.names[1]) if len(given.names) > 1 else None
    if len(given.names) > 2:
        raise usage(f"Unexpected argument: {given.names[2]}")
    if format not in FORMATS:
        raise Failure(f"{filename}: Unknown file format '{format}'")

    from e2kdisk.tools.img.creation import TooLarge, make_image, target_path
    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    try:
        target_path(filename)
        values = parse(text, FORMATS[format] | PROTOCOL | FORMATS[format])
        _add_backing(given, format, values, filename)
        _settle_size(session, given, filename, values, size)
    except Failure as error:
        raise Failure(f"{filename}: {error.text}", tail=error.tail) from None
    if not given.quiet:
        print(formatting(filename, format, values), flush=True)
    try:
        make_image(session, filename, format, values)
    except TooLarge:
        raise Failure(f"{filename}: The image size is too large for file format '{format}'") from None
    except Failure as error:
        raise Failure(f"{filename}: {error.text}") from None
    return 0


def _add_backing(given: Given, format: str, values: dict[str, Any], filename: str) -> None:
    for letter, key, what in (("b", "backing_file", "file"), ("F", "backing_fmt", "file format")):
        value = given.value(letter)
        if value is None:
            continue
        if key not in FORMATS[format]:
            raise Failure(f"Backing {what} not supported for file format '{format}'")
        values[key] = value
    if values.get("backing_file") == filename:
        raise Failure("Error: Trying to create an image with the same filename as the backing file")


def _settle_size(session: Session, given: Given, filename: str, values: dict[str, Any], size: int | None) -> None:
    """The size that was given, else the backing file's, which must be there unless -u says otherwise."""
    if size is not None and "size" in values:
        raise Failure("The image size must be specified only once")
    if size is not None:
        values["size"] = size
    backing, format = values.get("backing_file"), values.get("backing_fmt")
    if backing and not given.has("u"):
        found = _look_at_backing(session, filename, backing, format, values)
        if format is None:
            tail = f"Detected format of {found}."
            raise Failure("Backing file specified without backing format", tail=tail)
    elif backing and format is None:
        raise Failure("Backing file specified without backing format")
    if "size" not in values:
        raise Failure("Image creation needs a size parameter")


def _look_at_backing(session: Session, filename: str, backing: str, format: str | None, values: dict[str, Any]) -> str:
    name = backing
    if ":" not in backing.partition("/")[0]:
        name = os.path.join(os.path.dirname(filename.removeprefix("file:")), backing)
    try:
        image = session.open(name, format=format, no_backing=True)
    except Failure as error:
        text = error.text.removeprefix(f"Could not open '{name}': ")
        raise Failure(text, tail="Could not open backing image.\n") from None
    values.setdefault("size", image.size)
    session.close(image)
    return image.format
