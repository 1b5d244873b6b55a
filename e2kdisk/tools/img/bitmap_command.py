"""bitmap: add, remove, clear, enable, disable and merge persistent dirty bitmaps, in the order of the command line."""

from __future__ import annotations

import os

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import size_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.bitmaps import Bitmaps
    from e2kdisk.tools.img.opening import Image, Session

ACTIONS = ("add", "remove", "clear", "enable", "disable", "merge")
INCONSISTENT = "is inconsistent and cannot be used"
REMOVAL_HINT = "Try block-dirty-bitmap-remove to delete this bitmap from disk\n"


def run(arguments: list[str]) -> int:
    """Run the command."""
    long: dict[str, bool | str] = {name: name == "merge" for name in ACTIONS}
    given = Given(arguments, "b:f:F:g:", long | {"granularity": "g", "source-file": "b", "source-format": "F"})
    actions = [(key, value) for key, value in given.options if key in ACTIONS]
    granularity = None
    for text in given.values("g"):
        granularity = size_argument("granularity", text)
    _need_sense(given, [key for key, _ in actions], granularity)
    filename, name = given.names

    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    image = session.open_given(filename, given, writable=True, no_backing=True)
    source: Image | None = None
    try:
        if given.has("b"):
            source = session.open(given.value("b") or "", format=given.value("F"), no_backing=True)
        for action, merged in actions:
            try:
                _obey(session, image, source or image, action, name, merged, granularity or None)
            except (OSError, E2kDiskError) as error:
                what = why(error)
                hint = REMOVAL_HINT if what.endswith(INCONSISTENT) else ""
                raise Failure(f"Operation {action} on bitmap {name} failed: {what}", tail=hint) from None
    finally:
        # What was done before something failed has been done.
        session.close(image, source)
    return 0


def _need_sense(given: Given, actions: list[str], granularity: int | None) -> None:
    if given.image_opts and given.has("f"):
        raise Failure("--image-opts and --format are mutually exclusive")
    rules = (
        (not actions, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"),
        (bool(granularity) and "add" not in actions, "granularity only supported with --add"),
        (given.has("F") and not given.has("b"), "-F only supported with -b"),
        (given.has("b") and "merge" not in actions, "Merge bitmap source file only supported with --merge"),
        (len(given.names) != 2, "Expecting filename and bitmap name"),
    )
    for wrong, text in rules:
        if wrong:
            raise Failure(text)


def _obey(
    session: Session, image: Image, source: Image, action: str, name: str, merged: str, granularity: int | None
) -> None:
    bitmaps = bitmaps_of(image)
    if bitmaps is None:
        what = f"Can't store persistent bitmaps to {image.filename}: Operation not supported"
        raise Failure(f"Operation {action} on bitmap {name} failed: {_missing(name) if action != 'add' else what}")
    if action == "add":
        bitmaps.add(name, granularity)
    elif action == "remove":
        session.run(bitmaps.remove(name))
    elif action == "clear":
        bitmaps.clear(name)
    elif action == "merge":
        bitmaps.find(name)  # a target that is not there is said before the source is looked for
        others = bitmaps_of(source)
        if others is None:
            raise Failure(f"Operation merge on bitmap {name} failed: {_missing(merged)}")
        bitmaps.merge(name, others.find(merged))
    else:
        bitmaps.enable(name, enabled=action == "enable")


def _missing(name: str) -> str:
    return f"Dirty bitmap '{name}' not found"


def bitmaps_of(image: Image) -> Bitmaps | None:
    """The bitmaps of an image, None if its format has none."""
    from e2kdisk.qcow2.image import Qcow2Image

    return image.node.bitmaps if isinstance(image.node, Qcow2Image) else None


def need_consistent(bitmaps: Bitmaps) -> None:
    """Refuse to change a disk with a bitmap that could not follow. Raises Failure."""
    try:
        bitmaps.need_consistent()
    except E2kDiskError as error:
        raise Failure(why(error), tail=REMOVAL_HINT) from None


def why(error: BaseException) -> str:
    """Why something with a bitmap failed."""
    from e2kdisk.tools.img.opening import reason

    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else reason(error)
