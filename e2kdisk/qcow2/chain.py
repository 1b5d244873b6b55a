"""Operations on a backing chain: commit, rebase, stream, make empty; each is safe to interrupt."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.block.node import Node
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import GuestOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_CHUNK_BYTES = 2 << 20

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


async def commit(image: Qcow2Image, target: Node, progress: Progress | None = None) -> None:
    """Write what this image holds into its backing file, opened for writing as `target` (qemu-img commit).

    The target grows if this image is longer. The image itself is not changed; make_empty() does that, and only
    after this has returned: then the data is durable in the target. Raises OSError or ImageError.
    """
    if target.size < image.size:
        await target.truncate(image.size)
    offset = 0
    while offset < image.size:
        status = await image.status(offset, min(_CHUNK_BYTES, image.size - offset))
        if status.allocated and status.zero:
            await target.write_zeroes(offset, status.length, unmap=True)
        elif status.allocated:
            await _copy(image, target, offset, status.length)
        offset += status.length
        if progress is not None:
            progress(offset, image.size)
    await target.flush()


async def make_empty(image: Qcow2Image) -> None:
    """Forget everything the image holds: it shows its backing file again. Snapshots keep what is theirs.

    Nothing is lost at a crash in between if the backing file has the same contents, as after a commit.
    """
    image.need_write_access()
    if image.file.event is not None:
        await image.file.event("empty_image_prepare")
    await image.unmap(GuestOffset(0), image.geometry.round_up(image.size))
    await image.flush()


async def rebase(
    image: Qcow2Image,
    backing: Node | None,
    name: str | None,
    backing_format: str | None,
    progress: Progress | None = None,
) -> None:
    """Give the image another backing file and keep what it reads as (qemu-img rebase without -u).

    Where old and new backing files differ, the old contents are copied into the image; only then, durable, the
    header names the new one. `backing` is that file opened, None for none. Raises OSError or ImageError.
    """
    image.need_write_access()
    old = image.backing
    offset = 0
    while offset < image.size:
        length = min(_CHUNK_BYTES, image.size - offset)
        status = await image.status(offset, length)
        if not status.allocated:
            await _keep_difference(image, old, backing, offset, status.length)
        offset += status.length
        if progress is not None:
            progress(offset, image.size)
    await change_backing(image, name, backing_format)
    image.backing = backing


async def _keep_difference(image: Qcow2Image, old: Node | None, new: Node | None, offset: int, length: int) -> None:
    cluster = image.geometry.cluster_size
    before, after = bytearray(length), bytearray(length)
    if old is not None and offset < old.size:
        await old.read(offset, [memoryview(before)])
    if new is not None and offset < new.size:
        await new.read(offset, [memoryview(after)])
    if before == after:
        return
    zeros = bytes(cluster)
    for start in range(0, length, cluster):
        part = before[start : start + cluster]
        if part == after[start : start + cluster]:
            continue
        if part == zeros:
            await image.write_zeroes(offset + start, len(part), unmap=True)
        else:
            await image.write(offset + start, [memoryview(part)])


async def change_backing(image: Qcow2Image, name: str | None, backing_format: str | None) -> None:
    """Name another backing file in the header, whatever it holds (qemu-img rebase -u). Raises ImageError, OSError."""
    image.need_write_access()
    if name is None and backing_format is not None:
        raise UsageError(f"{image.name}: a backing format without a backing file")
    header = image.header
    async with image.exclusive():
        await image.flush_metadata()
        data = None if backing_format is None else backing_format.encode()
        extensions = list(header.extensions)
        header.set_extension(layout.EXT_BACKING_FORMAT, data)
        try:
            await image.writer.switch(backing_file=name)
        except BaseException:
            header.extensions = extensions
            raise


async def stream(image: Qcow2Image, progress: Progress | None = None) -> None:
    """Copy everything that comes from the backing chain into the image, then drop the backing file.

    Raises OSError or ImageError; what has been copied by then stays, and the image reads as before.
    """
    image.need_write_access()
    offset = 0
    backing = image.backing
    end = min(image.size, backing.size) if backing is not None else 0
    while offset < end:
        status = await image.status(offset, min(_CHUNK_BYTES, end - offset))
        if not status.allocated:
            await _copy(image, image, offset, status.length)
        offset += status.length
        if progress is not None:
            progress(offset, end)
    await change_backing(image, None, None)
    image.backing = None
    if backing is not None:
        await backing.close()


async def _copy(source: Node, target: Node, offset: int, length: int) -> None:
    data = memoryview(bytearray(length))
    await source.read(offset, [data])
    await target.write(offset, [data])
