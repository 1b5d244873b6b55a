"""compare: do two images read the same?"""

from __future__ import annotations

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure, usage
from e2kdisk.tools.img.given import Given

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from e2kdisk.block.node import Node
    from e2kdisk.tools.img.opening import Image
    from e2kdisk.tools.img.progress import Progress
    from e2kdisk.tools.img.status import Run

    Look = Callable[[Node, int, int], Awaitable[Run]]

CHUNK = 1 << 20
"""Bytes; two buffers of this size still share the processor's cache."""
SECTOR = 512
DIFFERENT = 1
TROUBLE = 2


class Difference(Exception):
    """The images differ; the text says where."""


def run(arguments: list[str]) -> int:
    """Run the command; status 0 for the same, 1 for different, more for trouble."""
    try:
        return _run(arguments)
    except Failure as error:
        error.status = max(error.status, TROUBLE) if not error.tail else error.status
        raise


def _run(arguments: list[str]) -> int:
    given = Given(arguments, "f:F:T:pqsU")
    if len(given.names) != 2:
        raise usage("Expecting two image file names")
    if given.image_opts and (given.has("f") or given.has("F")):
        raise Failure("--image-opts and --format are mutually exclusive")
    cache = given.cache("T", "writeback", "source cache", TROUBLE)

    from e2kdisk.tools.img.opening import Session
    from e2kdisk.tools.img.progress import Progress

    session = Session(given)
    first = session.open_given(given.names[0], given, cache=cache)
    second = session.open_given(given.names[1], given, format=given.value("F"), cache=cache)
    progress = Progress(given.has("p") and not given.quiet)
    strict = given.has("s")
    status = 0
    try:
        if strict and first.size != second.size:
            raise Difference("Strict mode: Image size mismatch!")
        common = min(first.size, second.size)
        session.run(_compare(first, second, common, strict, progress, max(first.size, second.size)))
        longer = first if first.size > second.size else second
        if longer.size > common:
            if not given.quiet:
                print("Warning: Image size mismatch!")
            session.run(_need_zeros(longer, common, longer.size, progress))
        text = "Images are identical."
    except Difference as difference:
        text, status = str(difference), DIFFERENT
    except (OSError, E2kDiskError) as error:
        raise Failure(str(error), 4) from None
    progress(1, 1) if status == 0 else None
    if not given.quiet:
        print(text)
    progress.end(ok=False)
    session.close(first, second)
    return status


async def _compare(first: Image, second: Image, end: int, strict: bool, progress: Progress, whole: int) -> None:
    from e2kdisk.tools.img.status import kind_at, run_at

    look = run_at if strict else kind_at
    buffer = bytearray(CHUNK)
    here, there, zeros = memoryview(buffer), memoryview(bytearray(CHUNK)), memoryview(bytes(CHUNK))
    offset = one_end = other_end = 0
    while offset < end:
        # A run is asked for once, not for each chunk: a host may take long to find the next hole.
        if offset == one_end:
            one = await _look(look, first, offset, end - offset)
            one_end += one.length
        if offset == other_end:
            other = await _look(look, second, offset, end - offset)
            other_end += other.length
        length = min(one_end, other_end) - offset
        if strict and _kind(one) != _kind(other):
            raise Difference(f"Strict mode: Offset {offset} block status mismatch!")
        if not (one.zero and other.zero):
            length = min(length, CHUNK)
            await _read(second if one.zero else first, offset, here[:length])
            expected = zeros if one.zero or other.zero else there
            if expected is there:
                await _read(second, offset, there[:length])
            # In place: a slice would be copied first, and two views are compared byte by byte.
            if not buffer.startswith(expected[:length]):
                where = _first_difference(here[:length], expected[:length])
                raise Difference(f"Content mismatch at offset {offset + where}!")
        offset += length
        progress(offset, whole)


async def _look(look: Look, image: Image, offset: int, length: int) -> Run:
    try:
        return await look(image.node, offset, length)
    except OSError:
        raise Failure(f"Sector allocation test failed for {image.given}", 3) from None


async def _read(image: Image, offset: int, view: memoryview) -> None:
    try:
        await image.node.read(offset, [view])
    except OSError as error:
        text = f"Error while reading offset {offset} of {image.given}: {error.strerror}"
        raise Failure(text, 4) from None


def _kind(run: Run) -> tuple[bool, bool, bool, bool]:
    """What must be equal with -s: compressed data, which lies nowhere as it is read, differs from other data."""
    return run.data, run.zero, run.present, run.data and run.host is None


def _first_difference(one: memoryview, other: memoryview) -> int:
    """The offset of the sector in which they differ first."""
    low, high = 0, -(-one.nbytes // SECTOR)
    while high - low > 1:
        middle = (low + high) // 2
        if bytes(one[low * SECTOR : middle * SECTOR]) == bytes(other[low * SECTOR : middle * SECTOR]):
            low = middle
        else:
            high = middle
    return low * SECTOR


async def _need_zeros(image: Image, start: int, end: int, progress: Progress) -> None:
    from e2kdisk.tools.img.status import run_at

    buffer, zeros = bytearray(CHUNK), memoryview(bytes(CHUNK))
    view = memoryview(buffer)
    offset = start
    while offset < end:
        run = await _look(run_at, image, offset, end - offset)
        length = run.length
        if run.data and not run.zero:
            length = min(length, CHUNK)
            await _read(image, offset, view[:length])
            if not buffer.startswith(zeros[:length]):
                where = _first_difference(view[:length], zeros[:length])
                raise Difference(f"Content mismatch at offset {offset + where}!")
        offset += length
        progress(offset, end)
