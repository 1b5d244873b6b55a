"""Mapping: from guest offsets through L1 and L2 tables to extents of the image file.

    guest offset -> L1 entry -> L2 table -> L2 entry -> Unallocated | Zero | Allocated | Compressed

L2 tables are cached in slices, numbered by the guest space they map (slice n maps the guest bytes from
n << Geometry.slice_shift). Reference: qcow2_get_cluster_offset, qcow2_get_cluster_type, qcow2_grow_l1_table,
qcow2_l2_cache_reset.
"""

from __future__ import annotations

from array import array

from e2kdisk.errors import CorruptImage, ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.cache import Table, TableCache
from e2kdisk.qcow2.entries import Entries64, pack64
from e2kdisk.qcow2.geometry import GuestOffset, HostOffset
from e2kdisk.qcow2.metadata import Metadata
from e2kdisk.qcow2.refcount import RefcountTable
from e2kdisk.qcow2.table import ResidentTable

DEFAULT_L2_CACHE_BYTES = 32 << 20
"""Enough to map 256 GiB at 64 KiB clusters."""


class Unallocated:
    """Reads come from the backing file, or are zeros without one (QCOW2_CLUSTER_UNALLOCATED)."""

    __match_args__ = ("length",)
    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class Zero:
    """Reads are zeros; there may be space behind it, kept for later writes (QCOW2_CLUSTER_ZERO)."""

    __match_args__ = ("length",)
    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length


class Allocated:
    """The bytes lie in the file from `host` on (QCOW2_CLUSTER_NORMAL)."""

    __match_args__ = ("host", "length")
    __slots__ = ("host", "length")

    def __init__(self, host: HostOffset, length: int) -> None:
        self.host = host
        self.length = length


class Compressed:
    """One compressed cluster (QCOW2_CLUSTER_COMPRESSED)."""

    __match_args__ = ("entry", "skip", "length")
    __slots__ = ("entry", "length", "skip")

    def __init__(self, entry: int, skip: int, length: int) -> None:
        self.entry = entry
        """The L2 entry, a compressed cluster descriptor."""
        self.skip = skip
        """Where in the decompressed cluster the extent begins, bytes."""
        self.length = length


Extent = Unallocated | Zero | Allocated | Compressed


def cluster_kind(entry: int) -> type[Extent]:
    """What an L2 entry says of its cluster; the order of the tests is part of the format."""
    if entry & layout.COMPRESSED:
        return Compressed
    if entry & layout.ZERO:
        return Zero
    if entry & layout.OFFSET_MASK:
        return Allocated
    return Unallocated


class Mapping:
    """The active L1 table and its L2 tables."""

    def __init__(self, metadata: Metadata, refcounts: RefcountTable, l1: ResidentTable, l2_cache_bytes: int) -> None:
        file, geometry, order = metadata.file, metadata.geometry, metadata.order
        self._file = file
        self._header = metadata.header
        self._writer = metadata.writer
        self._geometry = geometry
        self._order = order
        self._guard = metadata.guard
        self._refcounts = refcounts
        self.l1 = l1
        self.slices: TableCache[Entries64] = TableCache(
            file, order, Entries64, geometry.slice_bytes, max(8, l2_cache_bytes // geometry.slice_bytes), "l2"
        )
        order.add(self.slices)
        order.add(l1)

    @classmethod
    async def open(
        cls, metadata: Metadata, refcounts: RefcountTable, l2_cache_bytes: int = DEFAULT_L2_CACHE_BYTES
    ) -> Mapping:
        """Read the active L1 table, whose limits have been checked. Raises OSError."""
        header = metadata.header
        offset = HostOffset(header.l1_table_offset)
        l1 = await ResidentTable.read(metadata.file, offset, header.l1_size, "l1")
        return cls(metadata, refcounts, l1, l2_cache_bytes)

    # -- look up ----------------------------------------------------------------------------------

    def resident(self, offset: GuestOffset) -> Table[Entries64] | None:
        """The L2 slice that maps an offset, if it is in memory; valid until the next await."""
        table = self.slices.tables.get(offset >> self._geometry.slice_shift)
        if table is not None:
            table.used = True
        return table

    def has_l2_table(self, offset: GuestOffset) -> bool:
        """False if the L1 table says that nothing around this offset is allocated."""
        index = offset >> self._geometry.l1_shift
        return index < len(self.l1.values) and bool(self.l1.values[index] & layout.OFFSET_MASK)

    async def load(self, offset: GuestOffset) -> Table[Entries64] | None:
        """The L2 slice that maps an offset, read if need be; None if there is no L2 table.

        Needs the metadata lock. Raises ImageError for a broken L1 entry.
        """
        geometry = self._geometry
        key = offset >> geometry.slice_shift
        table = self.slices.tables.get(key)
        if table is not None:
            table.used = True
            return table
        l2_offset = self.l2_table_offset(offset >> geometry.l1_shift)
        if l2_offset == 0:
            return None
        part = key & (geometry.slices_per_table - 1)
        return await self.slices.get(key, HostOffset(l2_offset + part * geometry.slice_bytes))

    def l2_table_offset(self, index: int) -> HostOffset:
        """Where the L2 table of an L1 entry lies, 0 for none. Raises ImageError for a broken entry."""
        entry = self.l1.values[index]
        offset = entry & layout.OFFSET_MASK
        if entry & layout.L1_RESERVED or offset & self._geometry.cluster_mask or (entry and not offset):
            raise self._corrupt_l1(index, f"{entry:#x} is not the offset of a cluster")
        if offset and offset + self._geometry.cluster_size > self._geometry.round_up(self._file.size):
            raise self._corrupt_l1(index, f"L2 table at {offset:#x} is past the end of the file")
        return HostOffset(offset)

    def _corrupt_l1(self, index: int, what: str) -> CorruptImage:
        return CorruptImage(self._file.name, f"L1 entry {index} (offset {self.l1.offset + index * 8:#x})", what)

    def extent(self, table: Table[Entries64] | None, offset: GuestOffset, length: int) -> Extent:
        """What lies at offset: the longest run of one kind, at most length bytes, within the slice if there is one.

        `table` is the slice of that offset (None: no L2 table). Raises ImageError for a broken L2 entry.
        """
        geometry = self._geometry
        if table is None:
            return Unallocated(min(length, self._next_l2_table(offset, length) - offset))
        slice_end = ((offset >> geometry.slice_shift) + 1) << geometry.slice_shift
        length = min(length, slice_end - offset)
        values = table.entries.values
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        entry = values[index]
        inside = offset & geometry.cluster_mask
        last = index + ((inside + length - 1) >> geometry.cluster_bits)
        kind = cluster_kind(entry)
        if kind is Compressed:
            return Compressed(entry, inside, min(length, geometry.cluster_size - inside))
        if kind is Allocated:
            host = self.check_entry(table, index)
            step = geometry.cluster_size
            flags = layout.COMPRESSED | layout.ZERO
            expected = int(host)
            file_end = geometry.round_up(self._file.size)
            index += 1
            while index <= last:
                expected += step
                if values[index] & (layout.OFFSET_MASK | flags) != expected or expected >= file_end:
                    break
                index += 1
            return Allocated(HostOffset(host + inside), self._clip(offset, index, length))
        if kind is Zero and self._header.version < 3:
            raise self.corrupt_l2(table, index, f"{entry:#x} is a zero cluster, which version 2 does not have")
        index += 1
        while index <= last and cluster_kind(values[index]) is kind:
            index += 1
        if kind is Zero:
            return Zero(self._clip(offset, index, length))
        return Unallocated(self._clip(offset, index, length))

    def allocated_runs(self, table: Table[Entries64], offset: GuestOffset, length: int) -> list[tuple[HostOffset, int]]:
        """Where the bytes from offset on lie: (host offset, bytes) of each run, within the slice.

        Ends where a cluster is not allocated, or its entry not in order: extent() tells what it is.
        """
        geometry = self._geometry
        inside = offset & geometry.cluster_mask
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        last = index + ((inside + length - 1) >> geometry.cluster_bits)
        wrong = layout.COMPRESSED | layout.ZERO | layout.L2_RESERVED | geometry.cluster_mask
        file_end = self._file.size
        runs: list[tuple[HostOffset, int]] = []
        start = end = 0
        for entry in table.entries.values[index : last + 1]:
            host = entry & layout.OFFSET_MASK
            if not host or entry & wrong or host >= file_end:
                break
            if host != end:
                if end:
                    runs.append((HostOffset(start), end - start))
                start = host
            end = host + geometry.cluster_size
        if not end:
            return []
        runs.append((HostOffset(start), end - start))
        first, size = runs[0]
        runs[0] = HostOffset(first + inside), size - inside
        past = sum([size for _, size in runs]) - length
        if past > 0:
            start, size = runs[-1]
            runs[-1] = start, size - past
        return runs

    def _next_l2_table(self, offset: GuestOffset, length: int) -> int:
        """The guest offset of the first L2 table behind offset, which has none; not far behind length bytes."""
        shift = self._geometry.l1_shift
        index = (offset >> shift) + 1
        last = min((offset + length - 1) >> shift, len(self.l1.values) - 1)
        while index <= last and not self.l1.values[index] & layout.OFFSET_MASK:
            index += 1
        return index << shift

    def zero_space(self, offset: GuestOffset, length: int) -> tuple[int, HostOffset | None]:
        """The space that a run of zero clusters keeps: the bytes for which it is one piece, or there is none.

        The slice of offset is resident.
        """
        table = self.resident(offset)
        if table is None:
            return length, None
        geometry = self._geometry
        values = table.entries.values
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        first = values[index] & layout.OFFSET_MASK
        step = geometry.cluster_size if first else 0
        inside = offset & geometry.cluster_mask
        last = index + ((inside + length - 1) >> geometry.cluster_bits)
        end = index + 1
        while end <= last and values[end] & layout.OFFSET_MASK == first + (end - index) * step:
            end += 1
        return self._clip(offset, end, length), HostOffset(first + inside) if first else None

    def data_run(self, table: Table[Entries64] | None, offset: GuestOffset, length: int) -> int:
        """Bytes from offset whose clusters hold data, compressed or not; it ends before an entry that is broken."""
        if table is None:
            return 0
        geometry = self._geometry
        values = table.entries.values
        start = index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        last = min(
            index + ((offset & geometry.cluster_mask) + length - 1 >> geometry.cluster_bits), geometry.slice_mask
        )
        wrong = layout.ZERO | layout.L2_RESERVED | geometry.cluster_mask
        while index <= last:
            entry = values[index]
            if not entry & layout.COMPRESSED and (
                entry & wrong or not 0 < entry & layout.OFFSET_MASK < self._file.size
            ):
                break
            index += 1
        return self._clip(offset, index, length) if index > start else 0

    def _clip(self, offset: GuestOffset, end_index: int, length: int) -> int:
        geometry = self._geometry
        slice_start = offset >> geometry.slice_shift << geometry.slice_shift
        return min(length, slice_start + (end_index << geometry.cluster_bits) - offset)

    def check_entry(self, table: Table[Entries64], index: int) -> HostOffset:
        """The host offset of a standard L2 entry. Raises ImageError when it makes no sense."""
        entry = table.entries.values[index]
        host = entry & layout.OFFSET_MASK
        if host & self._geometry.cluster_mask or entry & layout.L2_RESERVED:
            raise self.corrupt_l2(table, index, f"{entry:#x} is not the offset of a cluster")
        if host >= self._file.size:
            raise self.corrupt_l2(table, index, f"cluster at {host:#x} is past the end of the file")
        return HostOffset(host)

    def corrupt_l2(self, table: Table[Entries64], index: int, what: str) -> CorruptImage:
        """The error for an L2 entry, naming the guest offset that it maps and where it lies in the file."""
        guest = (table.key << self._geometry.slice_shift) + (index << self._geometry.cluster_bits)
        where = f"L2 entry of guest offset {guest:#x} (offset {table.offset + 8 * index:#x})"
        return CorruptImage(self._file.name, where, what)

    # -- change -----------------------------------------------------------------------------------

    async def writable(self, offset: GuestOffset) -> Table[Entries64]:
        """The L2 slice that maps an offset, in an L2 table of our own: made or copied if need be.

        Valid until the next await. Needs the metadata lock.
        """
        index = offset >> self._geometry.l1_shift
        if not self.l1.values[index] & layout.COPIED:
            await self._own_l2_table(index)
        table = await self.load(offset)
        assert table is not None
        return table

    async def _own_l2_table(self, index: int) -> None:
        """Give an L1 entry an L2 table that nobody shares: empty, or a copy of a snapshot's."""
        geometry = self._geometry
        old = self.l2_table_offset(index)
        new, fresh = await self._refcounts.allocate(1)
        try:
            if self._file.event is not None:
                await self._file.event("l2_alloc_write")
            if old:
                raw = bytearray(geometry.cluster_size)
                if self._file.event is not None:
                    await self._file.event("l2_alloc_cow_read")
                # Changes to the old table that are still in memory must be in the copy.
                await self._order.flush(before=self.l1)
                await self._file.read(old, [memoryview(raw)])
                await self._file.write(new, [memoryview(raw)])
            elif fresh:
                await self._file.write(new + geometry.cluster_size - 8, [memoryview(bytes(8))])
            else:
                await self._file.write_zeroes(new, geometry.cluster_size)
        except BaseException:
            await self._refcounts.abandon(new, 1)
            raise
        # The table's contents are on their way before the L1 entry: the order's L1 stage comes behind a barrier.
        self._order.note_unsynced()
        if self._file.note is not None:
            self._file.note("l2 table", host=int(new), index=index, copy_of=int(old))
        self.forget_slices(index)
        self.l1.set(index, new | layout.COPIED)
        self._guard.add("active L2 table", new, geometry.cluster_size)
        if old:
            self._guard.remove(old, geometry.cluster_size)
            self._guard.add("inactive L2 table", old, geometry.cluster_size)
            self._refcounts.free(old, geometry.cluster_size)

    def guard_structures(self) -> None:
        """Tell the overlap guard where the L1 table and the L2 tables lie."""
        self._guard.add("active L1 table", self.l1.offset, len(self.l1.values) * 8)
        for entry in self.l1.values:
            offset = entry & layout.OFFSET_MASK
            if offset and not offset & self._geometry.cluster_mask:
                self._guard.add("active L2 table", offset, self._geometry.cluster_size)

    def forget_slices(self, index: int) -> None:
        """Drop what is cached of one L2 table: its bytes in the file have been changed, or are another table's."""
        for part in range(self._geometry.slices_per_table):
            self.slices.forget(index * self._geometry.slices_per_table + part)

    def switch_l1(self, offset: HostOffset, values: array[int]) -> None:
        """Another L1 table is active now: the header names it already (reference: qcow2_l2_cache_reset)."""
        for key in list(self.slices.tables):
            self.slices.forget(key)
        self.l1.move(offset, values)

    def set_entries(self, table: Table[Entries64], index: int, entries: list[int]) -> None:
        """Replace L2 entries of one slice, which is resident and our own."""
        table.entries.values[index : index + len(entries)] = array("Q", entries)
        self.slices.mark_dirty(table, index * 8, (index + len(entries)) * 8)

    # -- grow -------------------------------------------------------------------------------------

    async def grow_l1(self, entries: int, *, exact: bool = False) -> None:
        """Make the L1 table at least `entries` long (reference: qcow2_grow_l1_table).

        The new table is written and durable before one write of the header switches to it; the old one is
        released after that. Raises ImageError beyond 32 MiB.
        """
        old_entries = len(self.l1.values)
        if entries <= old_entries:
            return
        if not exact:
            entries = max(entries, old_entries + old_entries // 2)
        if entries * 8 > layout.MAX_L1_BYTES:
            entries = layout.MAX_L1_BYTES // 8 if not exact else entries
        if entries * 8 > layout.MAX_L1_BYTES or entries <= old_entries:
            raise ImageError(self._file.name, "L1 table", "cannot grow: it would exceed the limit of 32 MiB")
        geometry = self._geometry
        clusters = geometry.clusters(entries * 8)
        # All that the old table points to must be durable before a copy of it is reachable.
        await self._order.flush()
        values = array("Q", self.l1.values)
        values.extend([0] * (entries - old_entries))
        if self._file.event is not None:
            await self._file.event("l1_grow_alloc_table")
        offset, _ = await self._refcounts.allocate(clusters)
        try:
            if self._file.event is not None:
                await self._file.event("l1_grow_write_table")
            await self._file.write(offset, [memoryview(pack64(values))])
            self._order.note_unsynced()
            await self._order.flush(before=self.slices)
            if self._file.event is not None:
                await self._file.event("l1_grow_activate_table")
        except BaseException:
            await self._refcounts.abandon(offset, clusters)
            raise
        old_offset = self.l1.offset
        # If this fails nobody knows which table the header on disk names: both stay allocated, one leaks.
        await self._writer.switch(l1_size=entries, l1_table_offset=int(offset))
        self.l1.move(offset, values)
        if self._file.note is not None:
            self._file.note("l1 grown", host=int(offset), entries=entries, old=int(old_offset))
        self._guard.remove(old_offset, old_entries * 8)
        self._guard.add("active L1 table", offset, entries * 8)
        if old_entries:
            self._refcounts.free(old_offset, old_entries * 8)
