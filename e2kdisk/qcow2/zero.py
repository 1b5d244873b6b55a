"""Zero clusters and discards: whole clusters change their L2 entry, the rest is written."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.block.node import zero_iov
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.refcount import Freed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_PIECE_BYTES = 2 << 20
"""Zeros that must be written go out in requests of this size."""


class ZeroAndDiscard:
    """Reference: qcow2_zero_clusters, qcow2_discard_clusters."""

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image

    async def write_zeroes(self, offset: GuestOffset, length: int, *, unmap: bool) -> None:
        """Make bytes read as zeros; the parts of clusters at both ends are written. Raises OSError, ImageError."""
        image = self._image
        start, end = self._whole_clusters(offset, length)
        if not self._can_zero_by_entry():
            start, end = offset, offset
        if start >= end:
            await self._write_zero_bytes(offset, length)
            return
        await self._write_zero_bytes(offset, start - offset)

        # Where a guest's discards stay in the image, its zeros keep their space for the next write.
        unmap = unmap and Freed.REQUEST in image.refcounts.passed_on

        def zeroed(entry: int) -> int:
            if entry & layout.COMPRESSED or unmap or image.header.version < 3:
                return self._empty_entry(entry)
            return entry | layout.ZERO

        done = await self._change_entries(start, end, zeroed, while_=self._can_zero_by_entry)
        await self._write_zero_bytes(done, offset + length - done)

    async def discard(self, offset: GuestOffset, length: int) -> None:
        """Unmap the whole clusters within; they read as zeros and never show what the backing file has."""
        if not self._can_zero_by_entry():
            return  # version 2 over a backing file has no way to say "zeros": the hint is not taken
        start, end = self._whole_clusters(offset, length)
        if start < end:
            await self._change_entries(start, end, self._empty_entry, while_=self._can_zero_by_entry)

    async def unmap(self, offset: GuestOffset, length: int) -> None:
        """Make whole clusters unallocated, whatever shows through then: for what is behind the end of the disk."""
        await self._change_entries(offset, offset + length, lambda _entry: 0)

    def _can_zero_by_entry(self) -> bool:
        """Version 2 has no zero clusters: unallocated means zeros only where there is no backing file."""
        return self._image.header.version >= 3 or self._image.backing is None

    def _empty_entry(self, entry: int) -> int:
        """The entry of a cluster without space that reads as zeros."""
        if self._image.header.version < 3 or (entry == 0 and self._image.backing is None):
            return 0
        return layout.ZERO

    def _whole_clusters(self, offset: int, length: int) -> tuple[GuestOffset, GuestOffset]:
        """The clusters that lie in the range; the last one of the disk counts as whole."""
        image = self._image
        geometry = image.geometry
        end = offset + length
        end = geometry.round_up(end) if end == image.size else geometry.round_down(end)
        return GuestOffset(geometry.round_up(offset)), GuestOffset(end)

    async def _change_entries(
        self, start: int, end: int, change: Callable[[int], int], *, while_: Callable[[], bool] = lambda: True
    ) -> int:
        """Map each L2 entry of a cluster range to a new one; what an entry no longer names is released.

        Returns how far it came: an amend between two slices may have made the image one where `while_` is false.
        """
        image = self._image
        geometry = image.geometry
        offset = start
        while offset < end:
            slice_end = ((offset >> geometry.slice_shift) + 1) << geometry.slice_shift
            part_end = min(end, slice_end)
            # The lock is taken anew for each slice: a discard of a large disk must not stop everybody else.
            async with image.lock:
                if not while_():
                    break
                await self._change_slice(GuestOffset(offset), part_end - offset, change)
            offset = part_end
            await image._relieve()
        return offset

    async def _change_slice(self, offset: GuestOffset, length: int, change: Callable[[int], int]) -> None:
        image = self._image
        geometry = image.geometry
        # A write in flight copies old bytes around its data: it must be linked before they may become zeros.
        await image.allocator.settle(offset, length)
        if not image.mapping.has_l2_table(offset) and change(0) == 0:
            return
        table = await image.mapping.writable(offset)
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        old = list(table.entries.values[index : index + geometry.clusters(length)])
        new = [change(entry) for entry in old]
        if new == old:
            return
        image.mapping.set_entries(table, index, new)
        for before, after in zip(old, new, strict=True):
            if before & layout.COMPRESSED or (before & layout.OFFSET_MASK and not after & layout.OFFSET_MASK):
                image.allocator.free_entry(before, Freed.REQUEST)

    async def _write_zero_bytes(self, offset: int, length: int) -> None:
        image = self._image
        while length > 0:
            size = min(length, _PIECE_BYTES)
            await image.write(offset, zero_iov(size))
            offset += size
            length -= size
