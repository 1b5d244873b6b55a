"""resize: make a disk larger or smaller."""

from __future__ import annotations

import errno
import os

from e2kdisk.tools.img.create_options import SIZE_HELP
from e2kdisk.tools.img.errors import Failure, report, usage
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import read_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.tools.img.opening import Image, Session

MODES = ("off", "metadata", "falloc", "full")


def run(arguments: list[str]) -> int:
    """Run the command."""
    if len(arguments) < 2 and not any(argument in ("-h", "--help") for argument in arguments):
        raise usage("Not enough arguments")
    # The size is the last argument and may begin with a minus.
    *others, text = arguments
    given = Given(others, "f:qU", {"preallocation": True, "shrink": False})
    name = given.one_name("Expecting image file name and size")
    sign = text[0] if text[:1] in ("+", "-") else ""
    number = read_size(text.removeprefix(sign) if sign else text)
    if number is None:
        raise Failure(f"Parameter 'size' {SIZE_HELP}")
    mode = given.value("preallocation") or "off"
    if mode not in MODES:
        raise Failure(f"Invalid preallocation mode '{mode}'")

    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    image = session.open_given(name, given, writable=True)
    try:
        old = image.size
        size = {"+": old + number, "-": old - number, "": number}[sign]
        if size <= 0:
            raise Failure("New image size must be positive")
        if size <= old and mode != "off":
            raise Failure("Preallocation can only be used for growing images")
        if size < old and not given.has("shrink"):
            report("Use the --shrink option to perform a shrink operation.")
            raise Failure(
                "warning: Shrinking an image will delete all data beyond the shrunken image's end. "
                "Before performing such an operation, make sure there is no important data there."
            )
        _resize(session, image, size, mode)
    finally:
        session.close(image)
    if not given.quiet:
        print("Image resized.")
    return 0


def _resize(session: Session, image: Image, size: int, mode: str) -> None:
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.qcow2.preallocate import preallocate
    from e2kdisk.tools.img.bitmap_command import need_consistent

    node, old = image.node, image.node.size
    if isinstance(node, Qcow2Image):
        if size % 512:
            raise Failure("The new size must be a multiple of 512")
        need_consistent(node.bitmaps)
        session.run(node.truncate(size))
        session.run(preallocate(node, old, size - old, mode))
        return
    if mode == "metadata":
        raise Failure("Unsupported preallocation mode: metadata")
    size = (size + 511) & -512
    try:
        session.run(node.truncate(size))
        if mode == "falloc":
            session.run(image.file.reserve(old, size - old))
        elif mode == "full":
            session.run(image.file.write_zeroes(old, size - old))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and image.format == "raw":
            raise Failure("Cannot resize fixed-size raw disks") from None
        raise Failure(f"Failed to resize the image: {os.strerror(error.errno or 5)}") from None
