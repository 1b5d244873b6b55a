"""Copy on write: fill the rest of newly allocated clusters, in one write together with the guest's data."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.block.node import zero_iov
from e2kdisk.qcow2.allocation import Allocation
from e2kdisk.qcow2.encryption import encrypted
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.mapping import Unallocated, Zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


class CopyOnWrite:
    """Writes an allocation: region before the data, data, region after it.

    The regions are read through the image itself: until link() the L2 tables still show the old contents,
    whatever they are (backing file, snapshot's cluster, compressed, zeros).
    """

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image

    async def write(self, allocation: Allocation, data: IoVec) -> None:
        """Write data and both regions to the allocation's clusters, outside the lock. Raises OSError, ImageError."""
        image = self._image
        bits = image.geometry.cluster_bits
        allocation_end = allocation.guest + (allocation.clusters << bits)
        before = await self._region(allocation, allocation.guest, allocation.start)
        after = await self._region(allocation, allocation.end, allocation_end)
        first = allocation.guest if before is not None else allocation.start
        iov = data
        if before:
            iov = before + iov
        if after:
            iov = iov + after
        host = allocation.host + (first - allocation.guest)
        length = (allocation_end if after else allocation.end) - first
        item = image.inflight.enter_write(host, length)
        if image.file.note is not None:
            copied = sum(view.nbytes for region in (before, after) for view in region or ())
            image.file.note("cow", guest=int(allocation.guest), host=int(allocation.host), copied=copied, length=length)
        try:
            if image.file.event is not None:
                # Data of new clusters is a write like any other; the copy is one more thing that happens with it.
                await image.file.event("write_aio")
                if before or after:
                    await image.file.event("cow_write")
            await image.file.write(host, encrypted(image.cipher, first, iov))
        finally:
            image.inflight.leave_write(item)
            # Before any L2 entry can show these clusters: a barrier of the write order covers them.
            image.order.note_unsynced()

    async def _region(self, allocation: Allocation, start: int, end: int) -> IoVec | None:
        """What to write in a region: buffers, or None if the bytes there are right as they are."""
        if start == end:
            return None
        image = self._image
        if await self._reads_as_zeros(GuestOffset(start), end - start):
            return None if allocation.fresh and image.cipher is None else zero_iov(end - start)
        buffer = memoryview(bytearray(end - start))
        if image.file.event is not None:
            await image.file.event("cow_read")
        if start < image.size:
            await image.read(start, [buffer])
        else:
            await image.read_beyond(GuestOffset(start), [buffer], end - start)
        return [buffer]

    async def _reads_as_zeros(self, offset: GuestOffset, length: int) -> bool:
        image = self._image
        table = image.mapping.resident(offset)
        if table is None and image.mapping.has_l2_table(offset):
            return False
        extent = image.mapping.extent(table, offset, length)
        if extent.length < length:
            return False
        if isinstance(extent, Unallocated):
            return image.backing is None or offset >= min(image.size, image.backing.size)
        return isinstance(extent, Zero)
