"""The walk of a check: from the header to everything that an image points to, one reference each."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.bitmap_table import bitmap_areas
from e2kdisk.qcow2.check_kernel import Kernel, make_kernel
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.snapshot_table import REQUIRED_EXTRA_BYTES, read_snapshots

MakeKernel = Callable[[Geometry, int], Kernel]
"""Makes the counters for a file of so many clusters."""

MAX_PROBLEMS = 1000
"""Problems that are kept as text; all are counted."""
MAX_CLUSTERS = 1 << 28
"""Clusters of the largest file that is checked: the counts of more would not fit in memory."""


class CheckResult:
    """What a check found."""

    def __init__(self, filename: str, total_clusters: int) -> None:
        self.filename = filename
        self.corruptions = 0
        self.leaks = 0
        """Clusters whose refcount is too high."""
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.problems: list[str] = []
        """One line each, the first MAX_PROBLEMS."""
        self.total_clusters = total_clusters
        """Clusters of the guest's disk."""
        self.allocated_clusters = 0
        self.fragmented_clusters = 0
        """Allocated clusters that do not follow their predecessor of the same L2 table in the file."""
        self.compressed_clusters = 0
        self.image_end = 0
        """First byte after the last cluster in use."""

    @property
    def clean(self) -> bool:
        """Neither corruptions nor leaks are left."""
        return not self.corruptions and not self.leaks

    def corrupt(self, text: str) -> None:
        """Note a corruption."""
        self.corruptions += 1
        self._note(text)

    def leak(self, text: str) -> None:
        """Note a leaked cluster."""
        self.leaks += 1
        self._note(text)

    def judge_flags(self, before: list[str], after: list[str]) -> None:
        """Put what is wrong with COPIED flags by the repaired refcounts in the place of what was wrong before."""
        self.corruptions += len(after) - len(before)
        gone = set(before)
        self.problems = [text for text in self.problems if text not in gone]
        for text in after:
            self._note(text)

    def _note(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


class Walk:
    """Counts references and judges pointers; afterwards `compare` judges refcounts and COPIED flags."""

    def __init__(self, file: Node, header: Header, kernel: MakeKernel = make_kernel) -> None:
        self.file = file
        self.header = header
        self.geometry = Geometry(header.cluster_bits, header.refcount_order)
        self.clusters = self.geometry.clusters(file.size)
        if self.clusters > MAX_CLUSTERS:
            raise ImageError(file.name, "", f"a file of {file.size} bytes has too many clusters to be checked")
        self.result = CheckResult(file.name, total_clusters=self.geometry.clusters(header.size))
        self.kernel = kernel(self.geometry, self.clusters)
        self.bad_entries: list[tuple[int, int]] = []
        """(file offset, value in its place) of L1 and L2 entries that make no sense."""
        self._zero_cluster = layout.ZERO if header.version >= 3 else 0
        self.bad_flags: list[tuple[int, int]] = []
        """(file offset, right value) of L1 and L2 entries whose COPIED flag is wrong."""
        self.wrong_flags: list[str] = []
        """The problems that are nothing but such a flag."""
        self.consequences: dict[str, bool] = {}
        """Those flags that will be right as soon as the refcount is; whether the cluster leaks."""
        self.broken_refcounts = False
        """The refcount table or blocks themselves cannot be repaired in place."""
        self.incomplete_snapshots = False
        """Entries of the snapshot table lack what version 3 asks for, as version 2 has written them."""
        self._structures: dict[int, str] = {}
        """Clusters of what the header and the snapshot table name: an L2 table there is a mistake of its pointer."""
        self._active_tables: list[tuple[int, int]] = []
        self._blocks: dict[int, int] = {}

    # -- count references -------------------------------------------------------------------------

    def count(self, offset: int, length: int, what: str) -> bool:
        """One reference to each cluster that these bytes touch; False if they are not in the file."""
        if length <= 0:
            return True
        bits = self.geometry.cluster_bits
        first, last = offset >> bits, (offset + length - 1) >> bits
        if last >= self.clusters:
            self.result.corrupt(f"{what}: {length} bytes at {offset:#x} are past the end of the file")
            return False
        self.kernel.reference(first, last - first + 1)
        return True

    async def count_everything_but_refcounts(self) -> None:
        """Header, active tables, snapshots, LUKS header, bitmaps. Raises ImageError when a directory is broken."""
        header = self.header
        snapshots, length = await read_snapshots(self.file, header)
        if header.version >= 3:
            for number, item in enumerate(snapshots):
                if len(item.extra_data) < REQUIRED_EXTRA_BYTES:
                    self.incomplete_snapshots = True
                    self.result.corrupt(f"snapshot table entry {number} is incomplete")
        table_bytes = header.refcount_table_clusters << header.cluster_bits
        sound = self._structure(0, self.geometry.cluster_size, "header")
        sound &= self._structure(header.l1_table_offset, header.l1_size * 8, "active L1 table")
        self._structure(header.refcount_table_offset, min(table_bytes, layout.MAX_REFTABLE_BYTES), "refcount table")
        self.count(0, self.geometry.cluster_size, "header")
        if snapshots:
            self._structure(header.snapshots_offset, length, "snapshot table")
            self.count(header.snapshots_offset, length, "snapshot table")
        apart = [
            self._structure(item.l1_table_offset, item.l1_size * 8, f"L1 table of snapshot {item.id}")
            for item in snapshots
        ]
        if sound:
            await self._count_tables(header.l1_table_offset, header.l1_size, active=True, what="active L1 table")
        for snapshot, its_own in zip(snapshots, apart, strict=True):
            if its_own:
                what = f"L1 table of snapshot {snapshot.id}"
                await self._count_tables(snapshot.l1_table_offset, snapshot.l1_size, active=False, what=what)
        crypto = header.extension(layout.EXT_CRYPTO)
        if crypto is not None and len(crypto) >= 16:
            self.count(int.from_bytes(crypto[:8], "big"), int.from_bytes(crypto[8:16], "big"), "LUKS header")
        async for what, offset, length in bitmap_areas(self.file, header):
            if length:
                self.count(offset, length, what)
            else:
                self.result.corrupt(what)

    def _structure(self, offset: int, length: int, what: str) -> bool:
        """Note where a structure lies; False, a corruption that nobody can repair, if another lies there."""
        if length <= 0:
            return True
        bits = self.geometry.cluster_bits
        clusters = range(offset >> bits, min((offset + length - 1 >> bits) + 1, self.clusters))
        other = next((self._structures[cluster] for cluster in clusters if cluster in self._structures), None)
        self._structures.update(dict.fromkeys(clusters, what))
        if other is not None:
            self.result.corrupt(f"{what} at {offset:#x}: the {other} lies there")
        return other is None

    async def _count_tables(self, l1_offset: int, l1_size: int, *, active: bool, what: str) -> None:
        """The references of one L1 table, its L2 tables and everything these map."""
        geometry = self.geometry
        if not l1_size or not self.count(l1_offset, l1_size * 8, what):
            return
        for index, entry in enumerate(Entries64(await self._read(l1_offset, l1_size * 8)).values):
            offset = entry & layout.OFFSET_MASK
            if entry & layout.L1_RESERVED or offset & geometry.cluster_mask:
                self.result.corrupt(f"{what}, entry {index}: {entry:#x} is not the offset of a cluster")
                self.bad_entries.append((l1_offset + 8 * index, 0))
            elif offset >> geometry.cluster_bits in self._structures and offset:
                other = self._structures[offset >> geometry.cluster_bits]
                self.result.corrupt(f"{what}, entry {index}: L2 table at {offset:#x}: the {other} lies there")
                # The pointer goes, not the entries of what it leads to: those are another structure's bytes.
                self.bad_entries.append((l1_offset + 8 * index, 0))
            elif offset and not self.count(offset, geometry.cluster_size, f"{what}, entry {index}: L2 table"):
                self.bad_entries.append((l1_offset + 8 * index, 0))
            elif offset:
                if active:
                    self._active_tables.append((offset, l1_offset + 8 * index))
                await self._count_l2(offset, active=active)

    async def _count_l2(self, table_offset: int, *, active: bool) -> None:
        result, size = self.result, self.geometry.cluster_size
        others, allocated, fragmented = self.kernel.count_table(await self._read(table_offset, size))
        compressed = 0
        for index, entry in others:
            where = table_offset + 8 * index
            if entry & layout.COMPRESSED:
                compressed += self._count_compressed(entry, where)
                continue
            self.bad_entries.append((where, self._zero_cluster))
            offset = entry & layout.OFFSET_MASK
            if entry & layout.L2_RESERVED or offset & self.geometry.cluster_mask:
                result.corrupt(f"L2 entry at {where:#x}: {entry:#x} is not the offset of a cluster")
            else:
                result.corrupt(f"L2 entry at {where:#x}: cluster at {offset:#x} is past the end of the file")
        if active:
            result.allocated_clusters += allocated + compressed
            result.compressed_clusters += compressed
            result.fragmented_clusters += fragmented + compressed

    def _count_compressed(self, entry: int, where: int) -> int:
        offset, length = self.geometry.compressed_extent(entry)
        # The last sectors of a descriptor may lie behind the end of the file: padding that nobody wrote.
        length = min(length, max(1, (self.clusters << self.geometry.cluster_bits) - offset))
        if entry & layout.COPIED:
            self.result.corrupt(f"L2 entry at {where:#x}: a compressed cluster has the COPIED flag")
            self.bad_flags.append((where, entry & ~layout.COPIED))
        if self.count(offset, length, f"L2 entry at {where:#x}: compressed cluster"):
            return 1
        self.bad_entries.append((where, self._zero_cluster))
        return 0

    # -- compare with the refcounts ---------------------------------------------------------------

    async def count_refcounts(self) -> None:
        """The references of the refcount table and blocks, and what these count."""
        geometry, header, result = self.geometry, self.header, self.result
        table_offset = header.refcount_table_offset
        table_bytes = header.refcount_table_clusters << geometry.cluster_bits
        try:
            header.check_refcount_limits(self.file.name, self.file.size)
        except ImageError as error:
            result.corrupt(f"{error.where}: {error.what}")
            self.broken_refcounts = True
            return
        self.count(table_offset, table_bytes, "refcount table")
        for index, entry in enumerate(Entries64(await self._read(table_offset, table_bytes)).values):
            if entry == 0:
                continue
            offset = entry & layout.REFTABLE_OFFSET_MASK
            if entry & 511 or offset & geometry.cluster_mask or offset >= layout.MAX_HOST_OFFSET:
                result.corrupt(f"refcount table entry {index}: {entry:#x} is not the offset of a cluster")
                self.broken_refcounts = True
            elif not self.count(offset, geometry.cluster_size, f"refcount table entry {index}: refcount block"):
                self.broken_refcounts = True
            else:
                self._blocks[index] = offset
        for index, offset in self._blocks.items():
            if self.kernel.references_of(offset >> geometry.cluster_bits, (offset >> geometry.cluster_bits) + 1) != [1]:
                result.corrupt(f"refcount block {index} at {offset:#x}: something else lies there too")
                self.broken_refcounts = True
            first = index << geometry.refblock_bits
            # What it counts past the end of the file is not judged, as in the reference: nothing lies there.
            self.kernel.load_block(first, await self._read(offset, geometry.cluster_size))

    async def compare(self) -> None:
        """Refcounts against references, COPIED flags against refcounts."""
        geometry, result, kernel = self.geometry, self.result, self.kernel
        for cluster, counted, referenced in kernel.differences():
            text = f"cluster {cluster:#x}: refcount {counted} but {referenced} references"
            if counted > referenced:
                result.leak(text)
                continue
            result.corrupt(text)
            if cluster >> geometry.refblock_bits not in self._blocks:
                self.broken_refcounts = True
        result.image_end = (kernel.last_used() + 1) << geometry.cluster_bits
        for table_offset, l1_entry_offset in self._active_tables:
            refcount = kernel.refcount(table_offset >> geometry.cluster_bits)
            entry = int.from_bytes(await self._read(l1_entry_offset, 8), "big")
            self._judge_flag("L1", l1_entry_offset, entry, refcount)
            for index, value, counted in kernel.wrong_flags(await self._read(table_offset, geometry.cluster_size)):
                self._judge_flag("L2", table_offset + 8 * index, value, counted)

    def _judge_flag(self, kind: str, where: int, entry: int, refcount: int) -> None:
        if (entry >= layout.COPIED) != (refcount == 1):
            flag = "is set" if entry >= layout.COPIED else "is missing"
            if kind == "L1":
                kind = f"L1 entry {(where - self.header.l1_table_offset) // 8}"
            else:
                kind = f"L2 entry at {where:#x}"
            text = f"{kind}: {entry:#x}: COPIED {flag} but the refcount is {refcount}"
            self.result.corrupt(text)
            self.wrong_flags.append(text)
            cluster = (entry & layout.OFFSET_MASK) >> self.geometry.cluster_bits
            references = self.kernel.references_of(cluster, cluster + 1)[0]
            if (entry >= layout.COPIED) == (references == 1):
                self.consequences[text] = refcount > references
            self.bad_flags.append((where, entry ^ layout.COPIED))

    @property
    def blocks(self) -> dict[int, int]:
        """Refcount blocks of the table: index -> offset in the file."""
        return self._blocks

    async def _read(self, offset: int, length: int) -> bytearray:
        raw = bytearray(length)
        await self.file.read(offset, [memoryview(raw)])
        return raw
