"""commit: write what an image holds into one of the files below it."""

from __future__ import annotations

import os

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import size_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.block.node import Node
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.img.opening import Image, Session
    from e2kdisk.tools.img.progress import Progress
    from e2kdisk.tools.img.rate import RateLimit


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:t:b:dpqr:")
    cache_text = given.value("t")
    name = given.one_name()
    cache = given.cache("t", "writeback", "cache") if cache_text else "writeback"
    rate = size_argument("rate limit", given.value("r") or "0")

    from e2kdisk.qcow2.chain import make_empty
    from e2kdisk.tools.img.opening import Session
    from e2kdisk.tools.img.progress import Progress
    from e2kdisk.tools.img.rate import RateLimit

    session = Session(given)
    layers = _open_chain(session, given, name, cache)
    top, base = layers[0], layers[-1]
    progress = Progress(given.has("p") and not given.quiet)
    try:
        session.run(_commit(top, base.node, len(layers) - 1, RateLimit(session.scheduler, rate), progress))
        if not given.has("d") and len(layers) == 2:
            session.run(make_empty(_qcow2(top)))
        progress.end()
    except (OSError, E2kDiskError) as error:
        progress.end(ok=False)
        what = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise Failure(f"Commit failed: {what}" if not isinstance(error, Failure) else error.text) from None
    finally:
        session.close(top)
    if not given.quiet:
        print("Image committed.")
    return 0


def _open_chain(session: Session, given: Given, name: str, cache: str) -> list[Image]:
    """The images from the top to the base, these two open for writing, each with its backing file below it."""
    whole = session.open_given(name, given)  # as everybody opens it, to find out what is wrong
    names = []
    node: Node | None = getattr(whole.node, "backing", None)
    while node is not None:
        names.append((node.name, "qcow2" if hasattr(node, "mapping") else "raw"))
        node = getattr(node, "backing", None)
    session.close(whole)
    top = session.open_given(name, given, writable=True, cache=cache, no_backing=True)
    if not names:
        session.close(top)
        raise Failure("Image does not have a backing file")
    depth = 1
    wanted = given.value("b")
    if wanted is not None:
        places = [number for number, (path, _) in enumerate(names, 1) if _same(path, wanted)]
        if not places:
            session.close(top)
            raise Failure(f"Did not find '{wanted}' in the backing chain of '{name}'")
        depth = places[0]
    layers = [top]
    for number, (path, format) in enumerate(names[:depth], 1):
        is_base = number == depth
        plain = path if os.path.isabs(path) else f"./{path}"
        try:
            image = session.open(plain, format=format, writable=is_base, cache=cache, no_backing=not is_base)
        except Failure as error:
            text = error.text.removeprefix(f"Could not open '{plain}': ")
            raise Failure(text.replace(f"'{plain}'", f"'{path}'")) from None
        _qcow2(layers[-1]).backing = image.node
        layers.append(image)
    return layers


def _same(path: str, wanted: str) -> bool:
    return path == wanted or os.path.realpath(path) == os.path.realpath(wanted)


def _qcow2(image: Image) -> Qcow2Image:
    from e2kdisk.qcow2.image import Qcow2Image

    assert isinstance(image.node, Qcow2Image)
    return image.node


async def _commit(top: Image, base: Node, depth: int, rate: RateLimit, progress: Progress) -> None:
    """Bring everything above the base into it."""
    from e2kdisk.tools.img.status import run_at

    chunk = memoryview(bytearray(2 << 20))
    if base.size < top.node.size:
        await base.truncate(top.node.size)
    offset, end = 0, top.node.size
    while offset < end:
        run = await run_at(top.node, offset, end - offset)
        length = run.length
        if run.depth < depth and run.zero and (run.present or depth > 1):
            await rate.passing(length)
            await base.write_zeroes(offset, length, unmap=True)
        elif run.depth < depth and run.data:
            length = min(length, len(chunk))
            await rate.passing(length)
            await top.node.read(offset, [chunk[:length]])
            await base.write(offset, [chunk[:length]])
        offset += length
        progress(offset, end)
    await base.flush()
