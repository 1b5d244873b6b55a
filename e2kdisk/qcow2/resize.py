"""Grow and shrink the disk: what is new reads as zeros, what is cut off is released before it is forgotten."""

from __future__ import annotations

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import GuestOffset, HostOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def resize(image: Qcow2Image, size: int) -> None:
    """Set the disk's size, bytes, rounded up to 512. Raises ImageError or OSError; the size is as before then."""
    size = (size + layout.SECTOR_BYTES - 1) & -layout.SECTOR_BYTES
    if image.header.nb_snapshots and image.header.version < 3:
        raise ImageError(image.name, "size", "a version 2 image with snapshots cannot be resized")
    # The size of a bitmap's disk is nowhere but in the header: one that is not loaded could not follow.
    image.bitmaps.need_consistent()
    if not size and image.bitmaps:
        raise ImageError(image.name, "size", "a disk with bitmaps cannot have 0 bytes")
    if size > image.size:
        await _grow(image, size)
    elif size < image.size:
        await _shrink(image, size)


async def _grow(image: Qcow2Image, size: int) -> None:
    """What lies behind the old end, VM state or the backing file's bytes, must not appear on the disk."""
    old = image.size
    geometry = image.geometry
    start = geometry.round_up(old)
    mapped = len(image.mapping.l1.values) << geometry.l1_shift
    if start < min(size, mapped):
        # VM state of a snapshot is the snapshot's; nobody finds what is not in one behind a disk of another size.
        await image.unmap(GuestOffset(start), min(geometry.round_up(size), mapped) - start)
    async with image.lock:
        await image.mapping.grow_l1(geometry.l1_entries(size), exact=True)
    behind = image.backing.size if image.backing is not None else 0
    covered = min(size, max(geometry.round_up(old), behind))
    if covered > old:
        # The end of the old last cluster too: a longer disk once, or the backing file, may have left bytes there.
        image.size = covered
        try:
            await image.write_zeroes(old, covered - old, unmap=True)
            await image.flush()
        finally:
            image.size = old
    async with image.exclusive():
        await image.order.flush()
        await image.writer.switch(size=size)
        image.size = size
        image.bitmaps.resize(size)


async def _shrink(image: Qcow2Image, size: int) -> None:
    """The header first says the new size; only then the clusters behind it go. A crash between leaves leaks only."""
    geometry = image.geometry
    old_end = geometry.l1_entries(image.size) << geometry.l1_shift
    async with image.exclusive():
        await image.flush_metadata()
        await image.writer.switch(size=size)
        image.size = size
        image.bitmaps.resize(size)
    start = geometry.round_up(size)
    if start < old_end:
        await image.unmap(GuestOffset(start), old_end - start)
    await _release_l2_tables(image, geometry.l1_entries(size), old_end >> geometry.l1_shift)
    await image.flush()


async def _release_l2_tables(image: Qcow2Image, first: int, end: int) -> None:
    """Release the L2 tables of a range of L1 entries, which map nothing any more."""
    async with image.exclusive():
        if image.file.event is not None:
            await image.file.event("l1_shrink_write_table")
            await image.file.event("l1_shrink_free_l2_clusters")
        for index in range(first, min(end, len(image.mapping.l1.values))):
            offset = image.mapping.l1.values[index] & layout.OFFSET_MASK
            if offset:
                image.mapping.forget_slices(index)
                image.mapping.l1.set(index, 0)
                image.guard.remove(offset, image.geometry.cluster_size)
                image.refcounts.free(HostOffset(offset), image.geometry.cluster_size)
        await image.flush_metadata()
