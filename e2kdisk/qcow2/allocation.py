"""Where a write goes: into clusters that are ours, or into new ones that are linked when the data is there.

Three ways to get a host offset for a guest write, tried in this order (the reference commit's message):

    1. the request overlaps an allocation in flight    wait for it, then look again: the L2 table is out of
                                                       date there (or stop short of it, if it comes later)
    2. clusters that may be written as they are        InPlace: data goes straight to them
    3. everything else                                 Allocation: new clusters, data and copied bytes go
                                                       there, then link() makes them visible at once

    guest:   |  cluster 0  |  cluster 1  |  cluster 2  |       one Allocation of 3 clusters
             |ccccDDDDDDDDD|DDDDDDDDDDDDD|DDDDcccccccccc|       D the request's data, c copy on write
                  ^ start                     ^ end

Reference: QCowL2Meta, Qcow2COWRegion, qcow2_alloc_cluster_offset, qcow2_alloc_cluster_link_l2.
"""

from __future__ import annotations

from e2kdisk.aio.sync import Lock, WaitQueue
from e2kdisk.block.node import Node
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.cache import Table
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.geometry import Geometry, GuestOffset, HostOffset
from e2kdisk.qcow2.inflight import InFlight
from e2kdisk.qcow2.mapping import Mapping
from e2kdisk.qcow2.refcount import Freed, RefcountTable
from e2kdisk.qcow2.relock import take_back


class InPlace:
    """Clusters that only this disk uses: write at `host`, nothing to link."""

    __slots__ = ("host", "length")

    def __init__(self, host: HostOffset, length: int) -> None:
        self.host = host
        self.length = length


class Allocation:
    """A part of a write that goes to clusters which no L2 entry names yet (QCowL2Meta)."""

    __slots__ = ("clusters", "end", "fresh", "guest", "host", "linked", "owned", "start", "waiters")

    def __init__(
        self,
        guest: GuestOffset,
        host: HostOffset,
        clusters: int,
        start: GuestOffset,
        end: GuestOffset,
        fresh: bool,
        owned: bool,
        waiters: WaitQueue,
    ) -> None:
        self.guest = guest
        """Guest offset of the first cluster."""
        self.host = host
        """Host offset of the first cluster."""
        self.clusters = clusters
        self.start = start
        """First byte of the request's data; before it comes a region to copy (cow_start)."""
        self.end = end
        """First byte after the request's data; after it comes a region to copy (cow_end)."""
        self.fresh = fresh
        """The clusters have never been written: what is not written reads as zeros."""
        self.owned = owned
        """The clusters were taken for this allocation; False if they lay behind a zero cluster already."""
        self.waiters = waiters
        """Requests that overlap and look again when this one is linked or has failed (dependent_requests)."""
        self.linked = False

    @property
    def length(self) -> int:
        """Bytes of the request that this allocation takes."""
        return self.end - self.start


class Allocator:
    """Claims space for writes; the allocations in flight of one image live here."""

    def __init__(
        self,
        file: Node,
        geometry: Geometry,
        lock: Lock,
        mapping: Mapping,
        refcounts: RefcountTable,
        inflight: InFlight,
    ) -> None:
        self._file = file
        self._geometry = geometry
        self._lock = lock
        self._mapping = mapping
        self._refcounts = refcounts
        self._inflight = inflight
        self.allocations: list[Allocation] = []
        """In flight (cluster_allocs)."""

    def first_overlap(self, offset: int, length: int) -> Allocation | None:
        """The allocation in flight with the lowest offset that shares a cluster with these guest bytes."""
        if not self.allocations:
            return None
        start = self._geometry.round_down(offset)
        end = self._geometry.round_up(offset + length)
        bits = self._geometry.cluster_bits
        found = None
        for item in self.allocations:
            # Half-open ranges: neighbours do not depend on each other.
            overlaps = item.guest < end and start < item.guest + (item.clusters << bits)
            if overlaps and (found is None or item.guest < found.guest):
                found = item
        return found

    async def settle(self, offset: int, length: int) -> None:
        """Wait until no allocation in flight shares a cluster with these guest bytes.

        Needs the metadata lock and gives it up while it waits: what the caller looked up before is void.
        """
        while (other := self.first_overlap(offset, length)) is not None:
            await self._wait_for(other)

    async def _wait_for(self, other: Allocation) -> None:
        self._lock.release()
        try:
            await other.waiters.wait()
        finally:
            await take_back(self._lock)

    async def claim(self, offset: GuestOffset, length: int) -> InPlace | Allocation:
        """Space for the first bytes of a write, as many as one run can take. Needs the metadata lock.

        Raises OSError or ImageError; then nothing has been claimed.
        """
        geometry = self._geometry
        while True:
            other = self.first_overlap(offset, length)
            if other is not None:
                if other.guest > offset:
                    length = other.guest - offset
                else:
                    await self._wait_for(other)
                    continue
            table = await self._mapping.writable(offset)
            if self.first_overlap(offset, length) is None:
                break
        slice_end = ((offset >> geometry.slice_shift) + 1) << geometry.slice_shift
        length = min(length, slice_end - offset)
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        in_place = self._in_place_run(table, index, offset, length)
        if in_place is not None:
            return in_place
        return await self._allocate(table, index, offset, length)

    def _in_place_run(self, table: Table[Entries64], index: int, offset: GuestOffset, length: int) -> InPlace | None:
        """The run of clusters from index that may be written as they are, contiguous in the file."""
        geometry = self._geometry
        values = table.entries.values
        if not _writable_in_place(values[index]):
            return None
        host = self._mapping.check_entry(table, index)
        inside = offset & geometry.cluster_mask
        run = geometry.cluster_size - inside
        step = values[index]
        file_end = geometry.round_up(self._file.size)
        while run < length:
            index += 1
            step += geometry.cluster_size
            if values[index] != step or step & layout.OFFSET_MASK >= file_end:
                break
            run += geometry.cluster_size
        return InPlace(HostOffset(host + inside), min(run, length))

    async def _allocate(self, table: Table[Entries64], index: int, offset: GuestOffset, length: int) -> Allocation:
        geometry = self._geometry
        values = table.entries.values
        inside = offset & geometry.cluster_mask
        wanted = geometry.clusters(inside + length)
        reused = self._reusable(table, index)
        if reused is not None:
            clusters, host, fresh = 1, reused, False
        else:
            clusters = 1
            while clusters < wanted and not _writable_in_place(values[index + clusters]):
                clusters += 1
            # The slice may be evicted from here on: link() finds it again.
            host, fresh = await self._refcounts.allocate(clusters)
        guest = GuestOffset(offset - inside)
        end = GuestOffset(min(offset + length, guest + (clusters << geometry.cluster_bits)))
        allocation = Allocation(
            guest, host, clusters, offset, end, fresh, reused is None, WaitQueue(self._file.scheduler)
        )
        self.allocations.append(allocation)
        return allocation

    def _reusable(self, table: Table[Entries64], index: int) -> HostOffset | None:
        """The space kept behind a zero cluster, if only we use it and no earlier write is still going there."""
        entry = table.entries.values[index]
        if entry & (layout.COPIED | layout.COMPRESSED | layout.ZERO) != layout.COPIED | layout.ZERO:
            return None
        if not entry & layout.OFFSET_MASK:
            return None
        host = self._mapping.check_entry(table, index)
        return None if self._inflight.overlaps(host, self._geometry.cluster_size) else host

    async def link(self, allocation: Allocation) -> None:
        """Make an allocation visible to the guest; its data and copied bytes have been written.

        Needs the metadata lock. Raises OSError or ImageError; then nothing has changed.
        """
        geometry = self._geometry
        table = await self._mapping.writable(allocation.guest)
        index = (allocation.guest >> geometry.cluster_bits) & geometry.slice_mask
        old = list(table.entries.values[index : index + allocation.clusters])
        step = geometry.cluster_size
        first = allocation.host | layout.COPIED
        self._mapping.set_entries(table, index, [first + step * number for number in range(allocation.clusters)])
        allocation.linked = True
        for number, entry in enumerate(old):
            if allocation.owned or number:
                self.free_entry(entry)

    def free_entry(self, entry: int, why: Freed = Freed.OTHER) -> None:
        """Release what an L2 entry named, of any kind (reference: qcow2_free_any_clusters)."""
        if entry & layout.COMPRESSED:
            host, length = self._geometry.compressed_extent(entry)
            self._refcounts.free(host, length, why)
        # An offset inside a cluster names none: whose count it would be is unknown, so nothing is released.
        elif entry & layout.OFFSET_MASK and not entry & layout.OFFSET_MASK & self._geometry.cluster_mask:
            self._refcounts.free(HostOffset(entry & layout.OFFSET_MASK), self._geometry.cluster_size, why)

    async def finish(self, allocation: Allocation) -> None:
        """Take an allocation out of flight and wake who waits for it; if it was not linked, give it back.

        Needs the metadata lock. After a failure the old mapping has stayed as it was.
        """
        self.allocations.remove(allocation)
        try:
            if allocation.owned and not allocation.linked:
                await self._refcounts.abandon(allocation.host, allocation.clusters)
        finally:
            allocation.waiters.wake_all()


def _writable_in_place(entry: int) -> bool:
    if entry & (layout.COPIED | layout.COMPRESSED | layout.ZERO) != layout.COPIED:
        return False
    return bool(entry & layout.OFFSET_MASK)
