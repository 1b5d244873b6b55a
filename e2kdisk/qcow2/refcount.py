"""Refcounts: how often each cluster of the file is used; allocation and release of clusters.

    refcount table (in memory, ResidentTable)
      [0] -> refcount block: counts of clusters 0 .. n-1
      [1] -> refcount block: counts of clusters n .. 2n-1        n = Geometry.refblock_entries
      [2] -> 0: no block, all its clusters are free

All methods are called with the image's metadata lock held. Reference: the qcow2-refcount.c functions.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import Enum
from functools import partial

from e2kdisk.errors import CorruptImage, ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.cache import Table, TableCache
from e2kdisk.qcow2.entries import Refcounts, decode_refcounts, pack64
from e2kdisk.qcow2.free_search import FreeSearch
from e2kdisk.qcow2.geometry import Geometry, HostOffset
from e2kdisk.qcow2.metadata import Metadata
from e2kdisk.qcow2.table import ResidentTable

DEFAULT_CACHE_BYTES = 1 << 20
"""Refcount blocks in memory; at least four, so that growing the table never evicts what it works on."""

MAX_PENDING_FREES = 4096
"""Frees that wait for a flush; beyond this the image flushes by itself, so that the list stays bounded."""


class Freed(Enum):
    """Why clusters are freed: a runtime option for each says whether their space goes back to the host at once."""

    REQUEST = "pass-discard-request"
    """The guest has discarded them, or zeroed them and may unmap."""
    SNAPSHOT = "pass-discard-snapshot"
    """A snapshot has been deleted."""
    OTHER = "pass-discard-other"
    """Something else took their place."""


PASSED_ON = frozenset({Freed.REQUEST, Freed.SNAPSHOT})
"""What goes back to the host where no option says otherwise (reference: discard_passthrough)."""


class PendingFree:
    """Clusters that lose one reference as soon as no pointer on disk leads to them."""

    __slots__ = ("length", "offset", "why")

    def __init__(self, offset: HostOffset, length: int, why: Freed) -> None:
        self.offset = offset
        self.length = length
        """Bytes; both offset and length are cluster-aligned."""
        self.why = why


class RefcountTable:
    """Refcounts of one open image."""

    def __init__(self, metadata: Metadata, table: ResidentTable) -> None:
        file, geometry, order = metadata.file, metadata.geometry, metadata.order
        self._file = file
        self._header = metadata.header
        self._writer = metadata.writer
        self._geometry = geometry
        self._order = order
        self._guard = metadata.guard
        self.table = table
        self.blocks: TableCache[Refcounts] = TableCache(
            file,
            order,
            partial(decode_refcounts, bits=geometry.refcount_bits),
            geometry.cluster_size,
            max(4, DEFAULT_CACHE_BYTES // geometry.cluster_size),
            "refblock",
        )
        order.add(self.blocks, counts=True)
        order.add(table, counts=True)
        self._search = FreeSearch(file.name, geometry, self._block)
        self.pending: list[PendingFree] = []
        self.in_use: Callable[[HostOffset, int], bool] = lambda offset, length: False
        """True if a request is still reading or writing there; such clusters stay pending."""
        self.on_release: Callable[[], None] = lambda: None
        """Called when clusters have been released: what is remembered of their contents is void."""
        self.passed_on: frozenset[Freed] = PASSED_ON
        """The space of clusters that are freed for these reasons goes back to the host at once."""
        self.virgin = HostOffset(geometry.round_up(file.size))
        """Nothing at or after this offset has ever been written: a cluster allocated there is a hole of zeros."""

    @classmethod
    async def open(cls, metadata: Metadata) -> RefcountTable:
        """Read the refcount table, whose limits have been checked (reference: qcow2_refcount_init)."""
        header = metadata.header
        entries = header.refcount_table_clusters << metadata.geometry.cluster_bits >> 3
        offset = HostOffset(header.refcount_table_offset)
        return cls(metadata, await ResidentTable.read(metadata.file, offset, entries, "reftable"))

    def guard_structures(self) -> None:
        """Tell the overlap guard where the refcount structures lie."""
        self._guard.add("refcount table", self.table.offset, len(self.table.values) * 8)
        for entry in self.table.values:
            # An entry that is no offset of a cluster names no block: whoever needs it says so.
            if entry and not entry & self._geometry.cluster_mask:
                self._guard.add("refcount block", entry, self._geometry.cluster_size)

    def _note(self, what: str, first: int, clusters: int, **fields: object) -> None:
        """Tell who listens what happened to a run of clusters."""
        if self._file.note is not None:
            self._file.note(what, host=first << self._geometry.cluster_bits, clusters=clusters, **fields)

    def _need_free(self, offset: int, clusters: int) -> None:
        """Refuse clusters that hold metadata, whatever their refcounts say."""
        kind = self._guard.hit(offset, clusters << self._geometry.cluster_bits)
        if kind is not None:
            self._note("refused", offset >> self._geometry.cluster_bits, clusters, holds=kind)
            where = f"refcount of cluster {offset >> self._geometry.cluster_bits:#x}"
            raise CorruptImage(self._file.name, where, f"is 0, but the {kind} lies there")

    async def reload(self, geometry: Geometry) -> None:
        """Take over other refcount structures, which the header names already; nothing of the old ones is dirty."""
        entries = self._header.refcount_table_clusters << geometry.cluster_bits >> 3
        table = await ResidentTable.read(
            self._file, HostOffset(self._header.refcount_table_offset), entries, "reftable"
        )
        self._geometry = geometry
        self.table.move(table.offset, table.values)
        self.blocks.reset(partial(decode_refcounts, bits=geometry.refcount_bits))
        # The new counts were made from the pointers alone: what waited to be freed is free in them already.
        self.pending = []
        self._search = FreeSearch(self._file.name, geometry, self._block)
        self.virgin = max(self.virgin, HostOffset(geometry.round_up(self._file.size)))

    # -- one count --------------------------------------------------------------------------------

    async def get(self, cluster: int) -> int:
        """The refcount of a cluster (by number). Raises ImageError for a broken table."""
        block = await self._block(cluster >> self._geometry.refblock_bits)
        if block is None:
            return 0
        return block.entries.get(cluster & (self._geometry.refblock_entries - 1))

    async def counts(self, first: int, end: int) -> list[int]:
        """The refcounts of clusters (by number). Raises ImageError for a broken table."""
        found: list[int] = []
        while first < end:
            index, slot = divmod(first, self._geometry.refblock_entries)
            stop = min(self._geometry.refblock_entries, slot + end - first)
            block = await self._block(index)
            found += [0] * (stop - slot) if block is None else [block.entries.get(at) for at in range(slot, stop)]
            first += stop - slot
        return found

    async def _block(self, index: int) -> Table[Refcounts] | None:
        table = self.blocks.tables.get(index)
        if table is not None:
            table.used = True
            return table
        if index >= len(self.table.values):
            return None
        entry = self.table.values[index]
        if entry == 0:
            return None
        offset = entry & layout.REFTABLE_OFFSET_MASK
        if entry & 511 or offset & self._geometry.cluster_mask or offset >= layout.MAX_HOST_OFFSET:
            raise self._corrupt(index, f"{entry:#x} is not the offset of a cluster")
        if offset >= self._file.size:
            raise self._corrupt(index, f"{offset:#x} is past the end of the file")
        return await self.blocks.get(index, HostOffset(offset))

    def _corrupt(self, index: int, what: str) -> CorruptImage:
        place = self.table.offset + 8 * index
        return CorruptImage(self._file.name, f"refcount table entry {index} (offset {place:#x})", what)

    async def _change(self, cluster: int, delta: int) -> int:
        """Add delta to one refcount and return the new value."""
        if self._order.lazy:
            await self.mark_dirty()
        geometry = self._geometry
        index = cluster >> geometry.refblock_bits
        block = await self._block(index)
        if block is None:
            raise self._corrupt(index, f"no refcount block counts cluster {cluster:#x}, which is in use")
        slot = cluster & (geometry.refblock_entries - 1)
        value = block.entries.get(slot) + delta
        if value < 0 or value >> geometry.refcount_bits:
            place = block.offset + (slot << geometry.refcount_order >> 3)
            where = f"refcount of cluster {cluster:#x} (offset {place:#x})"
            if value < 0:
                raise CorruptImage(self._file.name, where, "would fall below 0")
            raise ImageError(self._file.name, where, f"does not fit in {geometry.refcount_bits} bits")
        block.entries.set(slot, value)
        first = slot << geometry.refcount_order >> 3
        self.blocks.mark_dirty(block, first, first + max(1, geometry.refcount_bits // 8))
        return value

    async def mark_dirty(self) -> None:
        """Say in the header that the refcounts on disk are not right, durably, before the first that is not.

        No-op if it says so already (reference: qcow2_mark_dirty). Version 3 only.
        """
        features = self._header.incompatible_features
        if not features & layout.INCOMPAT_DIRTY:
            await self._writer.switch(incompatible_features=features | layout.INCOMPAT_DIRTY)

    # -- allocate ---------------------------------------------------------------------------------

    async def allocate(self, clusters: int) -> tuple[HostOffset, bool]:
        """Take the first free run of clusters (reference: qcow2_alloc_clusters).

        Returns where it lies, and whether it has never been written (it reads as zeros). Raises OSError or
        ImageError; then nothing has been taken.
        """
        if self._file.event is not None:
            await self._file.event("cluster_alloc")
        while True:
            first = await self._search.find(clusters)
            self._need_free(first << self._geometry.cluster_bits, clusters)
            if self._take_run(first, clusters):
                break
            taken = 0
            try:
                while taken < clusters:
                    await self._ensure_block((first + taken) >> self._geometry.refblock_bits)
                    if await self.get(first + taken):
                        break  # a refcount block that had to be made took its place here: look again
                    await self._change(first + taken, 1)
                    taken += 1
            except BaseException:
                await self._give_back(first, taken)
                raise
            if taken == clusters:
                break
            await self._give_back(first, taken)
        self._search.taken(first, clusters)
        offset = HostOffset(first << self._geometry.cluster_bits)
        fresh = offset >= self.virgin
        self.virgin = max(self.virgin, HostOffset(offset + (clusters << self._geometry.cluster_bits)))
        self._note("allocate", first, clusters)
        return offset, fresh

    def _take_run(self, first: int, clusters: int) -> bool:
        """Count a run of free clusters that one resident refcount block counts; False if it takes more than that."""
        geometry = self._geometry
        block = self.blocks.tables.get(first >> geometry.refblock_bits)
        slot = first & (geometry.refblock_entries - 1)
        if block is None or slot + clusters > geometry.refblock_entries or self._order.lazy:
            return False
        for index in range(slot, slot + clusters):
            block.entries.set(index, 1)
        order = geometry.refcount_order
        self.blocks.mark_dirty(block, slot << order >> 3, ((slot + clusters - 1) << order >> 3) + 1)
        return True

    async def take(self, offset: HostOffset, clusters: int) -> int:
        """Take as many free clusters as lie exactly at offset, at most `clusters`; 0 is no error.

        Reference: qcow2_alloc_clusters_at.
        """
        first = offset >> self._geometry.cluster_bits
        taken = 0
        while taken < clusters:
            await self._ensure_block((first + taken) >> self._geometry.refblock_bits)
            if await self.get(first + taken):
                break
            await self._change(first + taken, 1)
            taken += 1
        self.virgin = max(self.virgin, HostOffset((first + taken) << self._geometry.cluster_bits))
        if taken:
            self._note("allocate", first, taken)
        return taken

    async def _give_back(self, first: int, clusters: int) -> None:
        for cluster in range(first, first + clusters):
            await self._change(cluster, -1)
        if clusters:
            self._search.freed(first)
            self._note("give back", first, clusters)

    async def abandon(self, offset: HostOffset, clusters: int) -> None:
        """Give back clusters that nothing has ever pointed to; on an error they leak, which harms nobody."""
        try:
            await self._give_back(offset >> self._geometry.cluster_bits, clusters)
        except (OSError, ImageError):
            return

    # -- free -------------------------------------------------------------------------------------

    def free(self, offset: HostOffset, length: int, why: Freed = Freed.OTHER) -> None:
        """Drop one reference of each cluster that the bytes touch, once the pointer's removal is durable.

        Reference: qcow2_free_clusters. The caller has removed the pointer in memory already.
        """
        start = HostOffset(self._geometry.round_down(offset))
        end = self._geometry.round_up(offset + length)
        last = self.pending[-1] if self.pending else None
        if last is not None and last.why is why and last.offset + last.length == start:
            last.length += end - start
        else:
            self.pending.append(PendingFree(start, end - start, why))

    async def apply_frees(self) -> bool:
        """Carry out the pending frees; the caller has just flushed the whole write order. True if any were done."""
        waiting, self.pending = self.pending, []
        done = False
        try:
            while waiting:
                item = waiting.pop()
                if self.in_use(item.offset, item.length):
                    self.pending.append(item)
                    continue
                done = True
                await self._apply(item)
        finally:
            self.pending += waiting  # after an error, only the item that it met leaks
        return done

    async def release(self, offset: HostOffset, length: int, why: Freed = Freed.OTHER) -> None:
        """Drop one reference of each cluster now: the caller has made the pointer's removal durable."""
        item = PendingFree(HostOffset(self._geometry.round_down(offset)), 0, why)
        item.length = self._geometry.round_up(offset + length) - item.offset
        if self.in_use(item.offset, item.length):
            self.pending.append(item)
        else:
            await self._apply(item)

    async def add(self, first: int, clusters: int, delta: int) -> None:
        """Change the refcounts of a run of clusters (by number); for walks over whole tables.

        Raises ImageError when a count would not fit; then the run is as it was.
        """
        done = 0
        try:
            for cluster in range(first, first + clusters):
                await self._change(cluster, delta)
                done += 1
        except BaseException:
            for cluster in range(first, first + done):
                await self._change(cluster, -delta)
            raise
        if delta < 0:
            self._search.freed(first)

    async def _apply(self, item: PendingFree) -> None:
        self.on_release()
        if self._file.event is not None:
            await self._file.event("cluster_free")
        bits = self._geometry.cluster_bits
        first = item.offset >> bits
        self._note("free", first, item.length >> bits, why=item.why.name.lower())
        hole: int | None = None
        for cluster in range(first, first + (item.length >> bits)):
            left = await self._change(cluster, -1)
            if left == 0:
                self._search.freed(cluster)
            if left == 0 and hole is None and item.why in self.passed_on:
                hole = cluster
            elif left and hole is not None:
                await self._file.discard(hole << bits, (cluster - hole) << bits)
                hole = None
        if hole is not None:
            await self._file.discard(hole << bits, (first << bits) + item.length - (hole << bits))

    # -- grow -------------------------------------------------------------------------------------

    async def _ensure_block(self, index: int) -> None:
        """Make the refcount block with this index if it is missing.

        It lies in the first free cluster. If no block counts that one, it gets a block too, which lies there and
        counts itself. So a run of free clusters across many missing blocks is found in the end: each try
        leaves blocks behind, and they fill the gaps before the run.
        """
        geometry = self._geometry
        while index >= len(self.table.values):
            await self._grow_table(index)
        if not self.table.values[index] and self._file.event is not None:
            await self._file.event("refblock_alloc")
        while not self.table.values[index]:
            cluster = await self._search.find(1)
            home = cluster >> geometry.refblock_bits
            while home >= len(self.table.values):
                await self._grow_table(home)
            if self.table.values[home]:
                if await self.get(cluster):
                    continue  # growing the table made the block that counts it
                await self._change(cluster, 1)
                try:
                    await self._insert_block(index, cluster)
                except BaseException:
                    await self._give_back(cluster, 1)
                    raise
            else:
                block = await self._insert_block(home, cluster)
                block.entries.set(cluster & (geometry.refblock_entries - 1), 1)

    async def _insert_block(self, index: int, cluster: int) -> Table[Refcounts]:
        """Put an empty refcount block into a cluster; valid until the next await."""
        geometry = self._geometry
        offset = HostOffset(cluster << geometry.cluster_bits)
        self._need_free(offset, 1)
        if self._file.event is not None:
            # Both steps are taken in memory here, one behind the other: announced before the first.
            await self._file.event("refblock_alloc_write")
            await self._file.event("refblock_alloc_hookup")
        block = await self.blocks.insert(index, offset, bytearray(geometry.cluster_size), dirty=True)
        self._note("refcount block", cluster, 1, index=index)
        self._guard.add("refcount block", offset, geometry.cluster_size)
        self.virgin = max(self.virgin, HostOffset(offset + geometry.cluster_size))
        # The write order puts the block on disk before this entry.
        self.table.set(index, offset)
        return block

    async def _grow_table(self, index: int) -> None:
        """Move the refcount table to a larger place that also has room for the blocks that count it.

            old coverage ............|  new blocks  |  new table  |  free
                                     ^ area: the first cluster that the old table cannot count

        The area is written as a whole and made durable; one write of the header switches to it; only then is
        the old table's space released. A crash before the switch leaves the old table valid and the area
        unused (past the old coverage, where nothing counts it).
        """
        geometry = self._geometry
        old_entries = len(self.table.values)
        area = old_entries << geometry.refblock_bits
        entries = max(index + 1, old_entries + old_entries // 2)
        blocks = 0
        while True:
            table_clusters = geometry.clusters((entries + blocks) * 8)
            wanted = -(-(blocks + table_clusters) // geometry.refblock_entries)
            if wanted <= blocks:
                break
            blocks = wanted
        if table_clusters << geometry.cluster_bits > layout.MAX_REFTABLE_BYTES:
            raise ImageError(self._file.name, "refcount table", "cannot grow: it would exceed the limit of 8 MiB")
        # Everything so far must be durable in the old place before it is copied: the copy is not ordered after it.
        if self._file.event is not None:
            await self._file.event("reftable_grow")
        await self._order.flush(before=self.table, lazy=False)
        values = array("Q", self.table.values)
        values.extend([0] * ((table_clusters << geometry.cluster_bits >> 3) - old_entries))
        used = blocks + table_clusters
        if self._file.event is not None:
            await self._file.event("refblock_alloc_write_blocks")
        for number in range(blocks):
            raw = bytearray(geometry.cluster_size)
            counts = decode_refcounts(raw, geometry.refcount_bits)
            for slot in range(min(geometry.refblock_entries, used - number * geometry.refblock_entries)):
                counts.set(slot, 1)
            offset = HostOffset((area + number) << geometry.cluster_bits)
            await self._file.write(offset, [memoryview(counts.pack(0, geometry.cluster_size))])
            values[old_entries + number] = offset
        new_offset = HostOffset((area + blocks) << geometry.cluster_bits)
        if self._file.event is not None:
            await self._file.event("refblock_alloc_write_table")
        await self._file.write(new_offset, [memoryview(pack64(values))])
        self.virgin = max(self.virgin, HostOffset((area + used) << geometry.cluster_bits))
        self._order.note_unsynced()
        await self._order.barrier()
        if self._file.event is not None:
            await self._file.event("refblock_alloc_switch_table")
        old_offset, old_clusters = self.table.offset, self._header.refcount_table_clusters
        await self._writer.switch(refcount_table_offset=int(new_offset), refcount_table_clusters=table_clusters)
        self.table.move(new_offset, values)
        self._note("refcount table grown", area, used, old=int(old_offset))
        self._guard.remove(old_offset, old_clusters << geometry.cluster_bits)
        self.guard_structures()
        self.free(old_offset, old_clusters << geometry.cluster_bits)
