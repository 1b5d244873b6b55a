"""Qcow2Image: one open image as a node. Reads and writes find their way here, everything else is delegated."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec, iov_length, iov_slice
from e2kdisk.aio.sync import Lock
from e2kdisk.block.node import Node, ReadOnlyError, zero_fill
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.allocation import Allocation, Allocator, InPlace
from e2kdisk.qcow2.cache import Table
from e2kdisk.qcow2.compression import Decompressor
from e2kdisk.qcow2.cow import CopyOnWrite
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.geometry import Geometry, GuestOffset, HostOffset
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_writer import HeaderWriter
from e2kdisk.qcow2.inflight import InFlight
from e2kdisk.qcow2.mapping import DEFAULT_L2_CACHE_BYTES, Allocated, Compressed, Extent, Mapping, Unallocated, Zero
from e2kdisk.qcow2.refcount import MAX_PENDING_FREES, RefcountTable
from e2kdisk.qcow2.relock import take_back
from e2kdisk.qcow2.table import ResidentTable
from e2kdisk.qcow2.write_order import WriteOrder
from e2kdisk.qcow2.zero import ZeroAndDiscard

_PLAIN = layout.COMPRESSED | layout.ZERO
_IN_PLACE = layout.COPIED | _PLAIN


class Qcow2Image(Node):
    """An open qcow2 image (BDRVQcowState).

    Locking: `lock` guards all metadata. Data moves outside it. Readers look at resident L2 slices without
    it, which is safe because coroutines only lose control at an await, and every change of an L2 entry is
    complete before one. A write in flight that has no L2 entry yet is in `allocator.allocations`; every data
    transfer that really waits is in `inflight`.
    """

    def __init__(self, file: Node, header: Header, geometry: Geometry, backing: Node | None) -> None:
        self.scheduler = file.scheduler
        self.name = file.name
        self.read_only = file.read_only
        self.size = header.size
        self.file = file
        self.header = header
        self.geometry = geometry
        self.backing = backing
        self.lock = Lock(self.scheduler)
        self.writer = HeaderWriter(file, header)
        self.order = WriteOrder(file)
        self.inflight = InFlight()
        self.decompressor = Decompressor(file, geometry)
        self.mapping: Mapping
        self.refcounts: RefcountTable
        self.allocator: Allocator
        self._cow: CopyOnWrite
        self._slices: dict[int, Table[Entries64]]
        self._zero: ZeroAndDiscard
        self._cluster_bits = geometry.cluster_bits
        self._cluster_mask = geometry.cluster_mask
        self._cluster_size = geometry.cluster_size
        self._slice_shift = geometry.slice_shift
        self._slice_mask = geometry.slice_mask

    @classmethod
    async def open(
        cls,
        file: Node,
        header: Header,
        backing: Node | None = None,
        *,
        l2_cache_bytes: int = DEFAULT_L2_CACHE_BYTES,
    ) -> Qcow2Image:
        """Open an image whose header has been parsed and checked. Raises OSError or ImageError."""
        geometry = Geometry(header.cluster_bits, header.refcount_order)
        image = cls(file, header, geometry, backing)
        # The order of these two is the order of the stages: counts before pointers.
        image.refcounts = await RefcountTable.open(file, header, image.writer, geometry, image.order)
        l1 = await ResidentTable.read(file, HostOffset(header.l1_table_offset), header.l1_size)
        image.mapping = Mapping(file, header, image.writer, geometry, image.order, image.refcounts, l1, l2_cache_bytes)
        image._slices = image.mapping.slices.tables
        image.refcounts.in_use = image.inflight.overlaps
        image.allocator = Allocator(file, geometry, image.lock, image.mapping, image.refcounts, image.inflight)
        image._cow = CopyOnWrite(image)
        image._zero = ZeroAndDiscard(image)
        if not file.read_only:
            await image._claim_features()
        return image

    async def _claim_features(self) -> None:
        """Clear the autoclear bits: what they promise is not kept up by us (specification, autoclear_features)."""
        if self.header.version >= 3 and self.header.autoclear_features:
            await self.writer.switch(autoclear_features=0)

    # -- read -------------------------------------------------------------------------------------

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        # The common case on its own: one allocated cluster, its L2 slice in memory, its data in the page cache.
        table = self._slices.get(offset >> self._slice_shift)
        inside = offset & self._cluster_mask
        if table is not None and inside + length <= self._cluster_size and offset + length <= self.size:
            table.used = True
            entry = table.entries.values[(offset >> self._cluster_bits) & self._slice_mask]
            host = entry & layout.OFFSET_MASK
            if host and not entry & (_PLAIN | layout.L2_RESERVED) and not host & self._cluster_mask:
                done = self.file.try_read(host + inside, iov)
                if done != length:
                    await self._read_host(HostOffset(host + inside + done), iov_slice(iov, done, length - done))
                return
        await self._read_runs(offset, iov, length)

    async def _read_runs(self, offset: int, iov: IoVec, length: int) -> None:
        if offset < 0:
            raise UsageError(f"{self.name}: read at negative offset {offset}")
        readable = max(0, min(length, self.size - offset))
        if readable < length:
            zero_fill(iov_slice(iov, readable, length - readable))
        done = 0
        while done < readable:
            extent = await self._extent(GuestOffset(offset + done), readable - done)
            part = iov_slice(iov, done, extent.length)
            await self._read_extent(GuestOffset(offset + done), extent, part)
            done += extent.length

    async def _extent(self, offset: GuestOffset, length: int) -> Extent:
        """The extent at offset, valid until the next await."""
        mapping = self.mapping
        while True:
            table = mapping.resident(offset)
            if table is not None or not mapping.has_l2_table(offset):
                return mapping.extent(table, offset, length)
            async with self.lock:
                await mapping.load(offset)
            # Looked up again from the start: the lock may have been waited for, and the map changed meanwhile.

    async def _read_extent(self, offset: GuestOffset, extent: Extent, part: IoVec) -> None:
        match extent:
            case Allocated(host, length):
                done = self.file.try_read(host, part)
                if done != length:
                    await self._read_host(HostOffset(host + done), iov_slice(part, done, length - done))
            case Zero():
                zero_fill(part)
            case Unallocated():
                await self._read_backing(offset, part)
            case Compressed(entry, skip):
                host, stored = self.geometry.compressed_extent(entry)
                with self.inflight.using(host, stored):
                    data = await self.decompressor.cluster(entry)
                scatter(memoryview(data)[skip : skip + extent.length], part)

    async def _read_host(self, host: HostOffset, iov: IoVec) -> None:
        """Read from the file and really wait for it: the space stays ours until it is done."""
        item = self.inflight.enter(host, iov_length(iov))
        try:
            await self.file.read(host, iov)
        finally:
            self.inflight.leave(item)

    async def _read_backing(self, offset: GuestOffset, iov: IoVec) -> None:
        """Read from the backing file, zeros behind its end (reference: qcow2_backing_read1)."""
        if self.backing is None or offset >= self.backing.size:
            zero_fill(iov)
        else:
            await self.backing.read(offset, iov)

    # -- write ------------------------------------------------------------------------------------

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write. Reference: qcow2_co_writev."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        # The common case on its own: overwriting one cluster that only this disk uses.
        table = self._slices.get(offset >> self._slice_shift)
        inside = offset & self._cluster_mask
        if table is not None and inside + length <= self._cluster_size and offset + length <= self.size:
            table.used = True
            entry = table.entries.values[(offset >> self._cluster_bits) & self._slice_mask]
            host = entry & layout.OFFSET_MASK
            if (
                host
                and entry & (_IN_PLACE | layout.L2_RESERVED) == layout.COPIED
                and not host & self._cluster_mask
                and not self.read_only
                and not self.allocator.first_overlap(offset, length)
            ):
                item = self.inflight.enter(host + inside, length)
                try:
                    await self.file.write(host + inside, iov)
                finally:
                    self.inflight.leave(item)
                return
        self._need_writable(offset, length)
        done = 0
        while done < length:
            done += await self._write_run(GuestOffset(offset + done), iov, done, length - done)
        await self._relieve()

    async def _write_run(self, offset: GuestOffset, iov: IoVec, skip: int, length: int) -> int:
        """Write what one claim takes, from byte `skip` of iov; returns its length."""
        async with self.lock:
            claim = await self.allocator.claim(offset, length)
            if isinstance(claim, InPlace):
                item = self.inflight.enter(claim.host, claim.length)
        if isinstance(claim, InPlace):
            try:
                await self.file.write(claim.host, iov_slice(iov, skip, claim.length))
            finally:
                self.inflight.leave(item)
            return claim.length
        try:
            await self._cow.write(claim, iov_slice(iov, skip, claim.length))
            async with self.lock:
                await self.allocator.link(claim)
        finally:
            await self._finish(claim)
        return claim.length

    async def _finish(self, claim: Allocation) -> None:
        try:
            await take_back(self.lock)
        finally:
            # Cancelled or not: others wait for this allocation.
            try:
                await self.allocator.finish(claim)
            finally:
                self.lock.release()

    def _need_writable(self, offset: int, length: int) -> None:
        if self.read_only:
            raise ReadOnlyError(self.name)
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"{self.name}: {length} bytes at {offset} are outside the disk of {self.size} bytes")

    async def _relieve(self) -> None:
        """Flush by ourselves when too many frees wait for it."""
        if len(self.refcounts.pending) > MAX_PENDING_FREES:
            async with self.lock:
                await self._flush_metadata()

    # -- zeros and discards -----------------------------------------------------------------------

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        self._need_writable(offset, length)
        await self._zero.write_zeroes(GuestOffset(offset), length, unmap=unmap)
        await self._relieve()

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: whole clusters only. They read as zeros afterwards, never as older data."""
        self._need_writable(offset, length)
        await self._zero.discard(GuestOffset(offset), length)
        await self._relieve()

    # -- flush, close -----------------------------------------------------------------------------

    async def flush(self) -> None:
        """Node.flush."""
        if not self.read_only:
            async with self.lock:
                await self._flush_metadata()
        await self.file.flush()

    async def _flush_metadata(self) -> None:
        await self.order.flush()
        if self.refcounts.pending and await self.refcounts.apply_frees():
            self.decompressor.forget()

    async def truncate(self, size: int) -> None:
        """Node.truncate: grow the disk. Raises ImageError beyond what the L1 table can map.

        What lies behind the old end in the backing file must not appear: it is hidden by zero clusters first.
        """
        size = (size + layout.SECTOR_BYTES - 1) & -layout.SECTOR_BYTES
        if self.read_only:
            raise ReadOnlyError(self.name)
        if size < self.size:
            raise UsageError(f"{self.name}: shrinking an image is not supported yet")
        old = self.size
        async with self.lock:
            await self.mapping.grow_l1(self.geometry.l1_entries(size), exact=True)
        if self.backing is not None and self.backing.size > old:
            self.size = min(size, self.backing.size)
            try:
                await self._zero.write_zeroes(GuestOffset(old), self.size - old, unmap=True)
                await self.flush()
            finally:
                self.size = old
        async with self.lock:
            await self.order.flush()
            await self.writer.switch(size=size)
        self.size = size

    async def close(self) -> None:
        """Node.close: everything durable, pending frees carried out, backing chain closed."""
        try:
            if not self.read_only:
                await self.flush()
                # The frees that the first flush carried out changed refcounts: written by a second one.
                await self.flush()
        finally:
            try:
                await self.file.close()
            finally:
                if self.backing is not None:
                    await self.backing.close()


def scatter(data: memoryview, iov: IoVec) -> None:
    """Copy data into iov, which is exactly as long."""
    start = 0
    for view in iov:
        view[:] = data[start : start + view.nbytes]
        start += view.nbytes
