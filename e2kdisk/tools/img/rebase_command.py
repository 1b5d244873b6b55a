"""rebase: give an image another backing file."""

from __future__ import annotations

import os

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure, usage
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.names import parse_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.tools.img.opening import Image, Session

FORMATS = ("qcow2", "raw")


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:F:b:upt:T:qU")
    name = given.one_name()
    backing, backing_format = given.value("b"), given.value("F")
    if backing is None and not given.has("u"):
        raise usage("Must specify backing file (-b) or use unsafe mode (-u)")
    cache = given.cache("t", "writeback", "cache")
    source_cache = given.cache("T", "writeback", "source cache")

    from e2kdisk.qcow2.chain import change_backing, rebase
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.img.opening import Session
    from e2kdisk.tools.img.progress import Progress

    session = Session(given)
    unsafe = given.has("u")
    # Without -U, which qemu-img takes here and does not obey: nobody may share what is changed.
    image = session.open(
        name,
        format=given.value("f"),
        image_opts=given.image_opts,
        writable=True,
        cache=cache,
        no_backing=unsafe,
    )
    new = old = None
    try:
        if backing_format is not None and backing_format not in FORMATS:
            raise Failure(f"Invalid format name: '{backing_format}'")
        node = image.node
        cannot = f"Could not change the backing file to '{backing}': "
        if not isinstance(node, Qcow2Image):
            raise Failure(cannot + "Operation not supported" if backing else "Operation not supported")
        if not unsafe and backing:
            new = _open_new(session, backing, backing_format, node.name, source_cache)
        if backing and backing_format is None:
            raise Failure(cannot + "backing format must be specified")
        stored_format = backing_format if backing else None
        progress = Progress(given.has("p") and not given.quiet)
        if unsafe:
            session.run(change_backing(node, backing or None, stored_format))
        else:
            old = node.backing
            new_node = None if new is None else new.node
            session.run(rebase(node, new_node, backing or None, stored_format, progress))
        progress.end()
    except (OSError, E2kDiskError) as error:
        what = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise Failure(f"Could not change the backing file to '{backing}': {what}") from None
    finally:
        session.close(image)
        if old is not None:
            session.run(old.close())
    return 0


def _open_new(session: Session, backing: str, format: str | None, top: str, cache: str) -> Image:

    name = backing
    if "filename" in parse_name(backing).get("file", {}) and not backing.startswith(("json:", "file:")):
        name = os.path.join(os.path.dirname(top), backing)
    try:
        return session.open(name, format=format, cache=cache)
    except Failure as error:
        text = error.text.removeprefix(f"Could not open '{name}': ")
        raise Failure(f"Could not open new backing file '{backing}': {text}") from None
