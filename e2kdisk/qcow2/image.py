"""Qcow2Image: one open image as a node. Reads and writes find their way here, everything else is delegated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from e2kdisk.aio.engine import IoVec, iov_length, iov_slice
from e2kdisk.aio.sync import Lock
from e2kdisk.block.node import Node, ReadOnlyError, zero_fill
from e2kdisk.block.status import BlockStatus
from e2kdisk.errors import CorruptImage, ImageError, UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.allocation import Allocation, Allocator, InPlace
from e2kdisk.qcow2.cache import Table
from e2kdisk.qcow2.compression import Decompressor, read_compressed_run
from e2kdisk.qcow2.cow import CopyOnWrite
from e2kdisk.qcow2.encryption import decrypt, encrypted, read_unaligned, write_unaligned
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.extent_status import status_of
from e2kdisk.qcow2.feature_bits import claim_features, mark_corrupt
from e2kdisk.qcow2.geometry import Geometry, GuestOffset, HostOffset
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import HeaderWriter
from e2kdisk.qcow2.inflight import InFlight
from e2kdisk.qcow2.mapping import DEFAULT_L2_CACHE_BYTES, Allocated, Compressed, Extent, Mapping, Unallocated, Zero
from e2kdisk.qcow2.metadata import Metadata
from e2kdisk.qcow2.on_demand import OnDemand
from e2kdisk.qcow2.overlap import OverlapGuard
from e2kdisk.qcow2.packing import Packing
from e2kdisk.qcow2.refcount import MAX_PENDING_FREES, PASSED_ON, Freed, RefcountTable
from e2kdisk.qcow2.relock import take_back
from e2kdisk.qcow2.scattered_read import read_allocated
from e2kdisk.qcow2.write_gate import WriteGate
from e2kdisk.qcow2.write_order import WriteOrder
from e2kdisk.qcow2.zero import ZeroAndDiscard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.crypto.sector import SectorCipher
    from e2kdisk.qcow2.dirty_bits import DirtyBits

_PLAIN = layout.COMPRESSED | layout.ZERO
_IN_PLACE = layout.COPIED | _PLAIN

DEPTH_PER_STACK = 32
"""A read goes down a chain by recursion; after this many images it continues on a stack of its own."""


class Qcow2Image(OnDemand, Node):
    """An open qcow2 image (BDRVQcowState).

    Locking: `lock` guards all metadata. Data moves outside it. Readers look at resident L2 slices without
    it, which is safe because coroutines only lose control at an await, and every change of an L2 entry is
    complete before one. A write in flight that has no L2 entry yet is in `allocator.allocations`; every data
    transfer that really waits is in `inflight`.
    """

    def __init__(
        self,
        file: Node,
        header: Header,
        geometry: Geometry,
        backing: Node | None,
        guard: OverlapGuard,
        cipher: SectorCipher | None,
    ) -> None:
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
        self.inflight = InFlight(self.scheduler)
        self.decompressor = Decompressor(file, geometry)
        self.guard = guard
        self.tracked: tuple[DirtyBits, ...] = ()
        """Bitmaps in which every write is marked."""
        self._cow = CopyOnWrite(self)
        self._zero = ZeroAndDiscard(self)
        self.cipher = cipher
        """Encrypts and decrypts guest data; None for an image in the clear."""
        self.unaligned = Lock(self.scheduler)
        """Held while a part of an encrypted sector is read, changed and written."""
        self._depth: int = backing._depth + 1 if isinstance(backing, Qcow2Image) else 1
        """Images in the chain from here down."""
        self._corruption: CorruptImage | None = None
        self._guarded = guard.clusters
        self.mapping: Mapping
        self.refcounts: RefcountTable
        self.packing: Packing
        self.allocator: Allocator
        self.gate: WriteGate
        self._slices: dict[int, Table[Entries64]] = {}
        """Resident L2 slices for the short way of reads; empty where reads need more than the file's bytes."""
        self._overwritable: dict[int, Table[Entries64]] = {}
        """The same for overwrites; empty while the image is read-only or an exclusive operation wants it."""
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
        overlap_check: str | frozenset[str] = "cached",
        lazy_refcounts: bool | None = None,
        pass_discard: frozenset[Freed] = PASSED_ON,
        cipher: SectorCipher | None = None,
        disk_header: Header | None = None,
    ) -> Qcow2Image:
        """Open an image whose header has been parsed and checked. Raises OSError or ImageError.

        disk_header: the image's own, where `header` has been changed to show a snapshot.
        """
        geometry = Geometry(header.cluster_bits, header.refcount_order)
        image = cls(file, header, geometry, backing, OverlapGuard(geometry, overlap_check), cipher)
        order, guard = image.order, image.guard
        order.add(image.writer)
        # The order of these two is the order of the stages: counts before pointers.
        metadata = Metadata(file, header, image.writer, geometry, order, guard)
        refcounts = await RefcountTable.open(metadata)
        mapping = await Mapping.open(metadata, refcounts, l2_cache_bytes)
        refcounts.in_use = image.inflight.overlaps
        refcounts.passed_on = pass_discard
        refcounts.on_release = image._forget_contents
        image.refcounts, image.mapping, image.packing = refcounts, mapping, Packing(geometry, refcounts, file.event)
        image.allocator = Allocator(file, geometry, image.lock, mapping, refcounts, image.inflight)
        if cipher is None and file.event is None:
            image._slices = mapping.slices.tables
        image.gate = WriteGate(image.lock, image.allocator, image.inflight, image._admit_writes)
        image._admit_writes()
        if lazy_refcounts is None:
            lazy_refcounts = bool(header.compatible_features & layout.COMPAT_LAZY_REFCOUNTS)
        order.lazy = lazy_refcounts and header.version >= 3
        if header.nb_snapshots:
            await image.snapshots.load()
        if header.extension(layout.EXT_BITMAPS) is not None:
            await image.bitmaps.load(disk_header or header)
        if not file.read_only:
            await image.guard_structures()
            guard.need_no_conflict(image.name)
            await claim_features(image)
            await image.bitmaps.claim()
        return image

    async def guard_structures(self) -> None:
        """Tell the overlap guard anew where all metadata lies; after anything that moved whole tables."""
        guard = self.guard
        guard.clear()
        guard.add("header", 0, 1)
        self.refcounts.guard_structures()
        self.mapping.guard_structures()
        await self.snapshots.guard_structures(guard)
        self.bitmaps.guard_structures(guard)

    def _forget_contents(self) -> None:
        self.decompressor.forget()
        self.packing.forget()

    async def reload_refcounts(self) -> None:
        """Other refcount structures are named by the header now, perhaps of another width; under exclusive()."""
        geometry = Geometry(self.header.cluster_bits, self.header.refcount_order)
        self.geometry = geometry
        await self.refcounts.reload(geometry)
        self.packing = Packing(geometry, self.refcounts, self.file.event)
        await self.guard_structures()

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
                    if host >= self.file.size:
                        self.mapping.check_entry(table, (offset >> self._cluster_bits) & self._slice_mask)
                    await self.read_host(HostOffset(host + inside + done), iov_slice(iov, done, length - done))
                return
        await self._read_runs(offset, iov, length)

    async def _read_runs(self, offset: int, iov: IoVec, length: int) -> None:
        if offset < 0:
            raise UsageError(f"{self.name}: read at negative offset {offset}")
        readable = max(0, min(length, self.size - offset))
        if readable < length:
            zero_fill(iov_slice(iov, readable, length - readable))
        await self.read_beyond(GuestOffset(offset), iov, readable)

    async def read_beyond(self, offset: GuestOffset, iov: IoVec, length: int) -> None:
        """Read length bytes, be it behind the end of the disk (VM state)."""
        if self.cipher is not None and (offset | length) % layout.SECTOR_BYTES:
            await read_unaligned(self, offset, iov, length)
            return
        done = 0
        while done < length:
            table = self._slices.get((offset + done) >> self._slice_shift)
            if table is not None and len(iov) == 1:
                read = await read_allocated(self, table, GuestOffset(offset + done), iov[0][done:length])
                if read:
                    done += read
                    continue
            extent = await self._extent(GuestOffset(offset + done), length - done)
            if isinstance(extent, Compressed):
                done += await read_compressed_run(self, GuestOffset(offset + done), iov, done, length - done)
                continue
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

    async def _read_extent(self, offset: GuestOffset, extent: Unallocated | Zero | Allocated, part: IoVec) -> None:
        match extent:
            case Allocated(host, length):
                done = self.file.try_read(host, part)
                if done != length:
                    await self.read_host(HostOffset(host + done), iov_slice(part, done, length - done))
                if self.cipher is not None:
                    decrypt(self.cipher, offset, part)
            case Zero():
                zero_fill(part)
            case Unallocated() if offset >= self.size:
                zero_fill(part)  # VM state has no backing file, however long the disk's is
            case Unallocated():
                await self._read_backing(offset, part)

    async def read_host(self, host: HostOffset, iov: IoVec) -> None:
        """Read from the file and really wait for it: the space stays ours until it is done."""
        item = self.inflight.enter(host, iov_length(iov))
        try:
            if self.file.event is not None:
                await self.file.event("read_aio")
            await self.file.read(host, iov)
        finally:
            self.inflight.leave(item)

    async def _read_backing(self, offset: GuestOffset, iov: IoVec) -> None:
        """Read from the backing file, zeros behind its end (reference: qcow2_backing_read1)."""
        if self.backing is None or offset >= self.backing.size:
            zero_fill(iov)
            return
        if self.file.event is not None:
            await self.file.event("read_backing_aio")
        if self._depth % DEPTH_PER_STACK:
            await self.backing.read(offset, iov)
        else:
            await self.scheduler.apart(self.backing.read(offset, iov))

    # -- write ------------------------------------------------------------------------------------

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write. Reference: qcow2_co_writev."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        # The common case on its own: overwriting one cluster that only this disk uses.
        table = self._overwritable.get(offset >> self._slice_shift)
        inside = offset & self._cluster_mask
        if table is not None and inside + length <= self._cluster_size and offset + length <= self.size:
            table.used = True
            entry = table.entries.values[(offset >> self._cluster_bits) & self._slice_mask]
            host = entry & layout.OFFSET_MASK
            if (
                host
                and entry & (_IN_PLACE | layout.L2_RESERVED) == layout.COPIED
                and not host & self._cluster_mask
                and host < self.file.size
                and host >> self._cluster_bits not in self._guarded
                and not self.allocator.first_overlap(offset, length)
            ):
                item = self.inflight.enter_write(host + inside, length)
                try:
                    await self.file.write(host + inside, iov)
                finally:
                    self.inflight.leave_write(item)
                    for bits in self.tracked:
                        bits.mark(offset, length)
                return
        self._need_writable(offset, length)
        try:
            await self.write_beyond(GuestOffset(offset), iov, length)
        finally:
            self.mark(offset, length)

    def mark(self, offset: int, length: int) -> None:
        """Note in the bitmaps that bytes of the disk have changed, or may have when a write has failed.

        Afterwards, not before: whoever clears a bitmap while a write is on its way has not seen its data.
        """
        for bits in self.tracked:
            bits.mark(offset, length)

    async def write_beyond(self, offset: GuestOffset, iov: IoVec, length: int) -> None:
        """Write where the L1 table reaches, be it behind the end of the disk (VM state)."""
        if self.cipher is not None and (offset | length) % layout.SECTOR_BYTES:
            await write_unaligned(self, offset, iov, length)
            return
        done = 0
        try:
            while done < length:
                done += await self._write_run(GuestOffset(offset + done), iov, done, length - done)
        except CorruptImage as error:
            await self._stop_writing(error)
            raise
        await self._relieve()

    async def _stop_writing(self, error: CorruptImage) -> None:
        """Mark the image corrupt and let no further write through: it could only make things worse."""
        if self._corruption is not None:
            return
        self._corruption = error
        self._admit_writes()
        await mark_corrupt(self, error)

    async def _write_run(self, offset: GuestOffset, iov: IoVec, skip: int, length: int) -> int:
        """Write what one claim takes, from byte `skip` of iov; returns its length."""
        await self.gate.passing()
        async with self.lock:
            claim = await self.allocator.claim(offset, length)
            if isinstance(claim, InPlace):
                self.guard.need_data(self.name, claim.host, claim.length)
                item = self.inflight.enter_write(claim.host, claim.length)
        if isinstance(claim, InPlace):
            try:
                if self.file.event is not None:
                    await self.file.event("write_aio")
                await self.file.write(claim.host, encrypted(self.cipher, offset, iov_slice(iov, skip, claim.length)))
            finally:
                self.inflight.leave_write(item)
            return claim.length
        try:
            await self._cow.write(claim, iov_slice(iov, skip, claim.length))
            async with self.lock:
                await self.allocator.link(claim)
        finally:
            await self.finish(claim)
        return claim.length

    async def finish(self, claim: Allocation) -> None:
        """Take a claim out of flight, linked or not."""
        try:
            await take_back(self.lock)
        finally:
            # Cancelled or not: others wait for this allocation.
            try:
                await self.allocator.finish(claim)
            finally:
                self.lock.release()

    def need_write_access(self) -> None:
        """Raise ReadOnlyError if the image may not be written."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        if self._corruption is not None:
            raise ImageError(self.name, "", f"no writes any more, the image is corrupt: {self._corruption.where}")

    def _need_writable(self, offset: int, length: int) -> None:
        self.need_write_access()
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"{self.name}: {length} bytes at {offset} are outside the disk of {self.size} bytes")

    async def _relieve(self) -> None:
        """Flush by ourselves when too many frees wait for it."""
        if len(self.refcounts.pending) > MAX_PENDING_FREES:
            async with self.lock:
                await self.flush_metadata()

    # -- exclusive operations ---------------------------------------------------------------------

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Hold the metadata lock with no write of guest data on its way and none beginning (WriteGate)."""
        return self.gate.exclusive()

    def _admit_writes(self) -> None:
        closed = self.gate.closed or self.read_only or self._corruption is not None
        self._overwritable = {} if closed else self._slices

    # -- zeros and discards -----------------------------------------------------------------------

    @asynccontextmanager
    async def changing(self, offset: int, length: int) -> AsyncIterator[None]:
        """Around a change of the disk: marked whatever becomes of it; corruption that it meets stops all writing."""
        self._need_writable(offset, length)
        try:
            yield
        except CorruptImage as error:
            await self._stop_writing(error)
            raise
        finally:
            self.mark(offset, length)
        await self._relieve()

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        async with self.changing(offset, length):
            await self._zero.write_zeroes(GuestOffset(offset), length, unmap=unmap)

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: whole clusters only. They read as zeros afterwards, never as older data."""
        async with self.changing(offset, length):
            await self._zero.discard(GuestOffset(offset), length)

    async def unmap(self, offset: GuestOffset, length: int) -> None:
        """Make whole clusters unallocated, be they behind the end of the disk."""
        await self._zero.unmap(offset, length)

    async def write_compressed(self, offset: int, iov: IoVec, level: int | None = None) -> None:
        """Write whole clusters compressed (compressed_write.py). Raises UsageError, OSError or ImageError."""
        from e2kdisk.qcow2.compressed_write import write_compressed

        length = iov_length(iov)
        async with self.changing(offset, length):
            await write_compressed(self, offset, iov, length, level)

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status: what this layer says, without its backing file."""
        return status_of(self, GuestOffset(offset), await self._extent(GuestOffset(offset), length))

    # -- flush, close -----------------------------------------------------------------------------

    async def flush(self) -> None:
        """Node.flush."""
        if not self.read_only:
            async with self.lock:
                if self.file.event is not None:
                    await self.file.event("flush_to_os")
                await self.flush_metadata()
        if self.file.event is not None:
            await self.file.event("flush_to_disk")
        await self.file.flush()

    async def flush_metadata(self) -> None:
        """All metadata durable, and the frees that waited for it carried out. Needs the metadata lock."""
        await self.order.flush()
        if self.refcounts.pending:
            await self.refcounts.apply_frees()

    async def truncate(self, size: int) -> None:
        """Node.truncate: grow or shrink the disk; new bytes read as zeros. Raises ImageError, OSError."""
        from e2kdisk.qcow2.resize import resize

        self.need_write_access()
        await resize(self, size)

    async def close(self) -> None:
        """Node.close: everything durable, pending frees carried out, backing chain closed."""
        try:
            if not self.read_only:
                async with self.lock:
                    try:
                        if self._corruption is None:
                            await self.bitmaps.store()
                    finally:
                        # Bitmaps that could not be stored stay marked in use; everything else must be in order.
                        await self._close_metadata()
        finally:
            try:
                await self.file.close()
            finally:
                if self.backing is not None:
                    await self.backing.close()

    async def _close_metadata(self) -> None:
        if self.snapshots.unsettled:
            with suppress(OSError, ImageError):
                await self.snapshots.settle()
        await self.flush_metadata()
        # The frees that the first flush carried out changed refcounts: written by a second one, the lazy ones too.
        await self.order.flush(lazy=False)
        features = self.header.incompatible_features
        if self.order.lazy and features & layout.INCOMPAT_DIRTY and not self.snapshots.unsettled:
            await self.writer.switch(incompatible_features=features & ~layout.INCOMPAT_DIRTY)
        await self.file.flush()
