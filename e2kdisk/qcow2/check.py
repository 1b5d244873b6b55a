"""Check an image: count every reference from the header on, compare with the refcounts and COPIED flags.

Reference: qcow2_check_refcounts. Corruptions are counts that are too low, or pointers that make no sense;
leaks are counts that are too high.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, field

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.file import FileNode
from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.bitmap_table import bitmap_areas
from e2kdisk.qcow2.entries import Entries64, decode_refcounts
from e2kdisk.qcow2.format import read_header
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.snapshot_table import read_snapshots

MAX_PROBLEMS = 1000
"""Problems that are kept as text; all are counted."""


@dataclass(slots=True)
class CheckResult:
    """What a check found."""

    filename: str
    corruptions: int = 0
    leaks: int = 0
    """Clusters whose refcount is too high."""
    problems: list[str] = field(default_factory=list)
    """One line each, the first MAX_PROBLEMS."""
    total_clusters: int = 0
    """Clusters of the guest's disk."""
    allocated_clusters: int = 0
    fragmented_clusters: int = 0
    """Allocated clusters that do not follow their predecessor in the file."""
    compressed_clusters: int = 0
    image_end: int = 0
    """First byte after the last cluster in use."""

    @property
    def clean(self) -> bool:
        """Neither corruptions nor leaks."""
        return not self.corruptions and not self.leaks

    def corrupt(self, text: str) -> None:
        """Note a corruption."""
        self.corruptions += 1
        self._note(text)

    def leak(self, text: str) -> None:
        """Note a leaked cluster."""
        self.leaks += 1
        self._note(text)

    def _note(self, text: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)


class _Checker:
    def __init__(self, file: Node, header: Header, result: CheckResult) -> None:
        self.file = file
        self.header = header
        self.result = result
        self.geometry = Geometry(header.cluster_bits, header.refcount_order)
        self.clusters = self.geometry.clusters(file.size)
        self.references = array("I", bytes(4 * self.clusters))
        """How often each cluster of the file is pointed to."""
        self.copied: list[tuple[int, bool, str, int]] = []
        """(cluster, COPIED, kind, index) of each pointer in the active tables, judged when the counts are known."""

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
        for cluster in range(first, last + 1):
            self.references[cluster] += 1
        return True

    async def count_all(self) -> None:
        header, geometry = self.header, self.geometry
        self.count(0, geometry.cluster_size, "header")
        await self.count_tables(header.l1_table_offset, header.l1_size, active=True, what="active L1 table")
        if header.nb_snapshots:
            snapshots, length = await read_snapshots(self.file, header)
            self.count(header.snapshots_offset, length, "snapshot table")
            for snapshot in snapshots:
                what = f"L1 table of snapshot {snapshot.id}"
                await self.count_tables(snapshot.l1_table_offset, snapshot.l1_size, active=False, what=what)
        crypto = header.extension(layout.EXT_CRYPTO)
        if crypto is not None and len(crypto) >= 16:
            self.count(int.from_bytes(crypto[:8], "big"), int.from_bytes(crypto[8:16], "big"), "LUKS header")
        for what, offset, length in await bitmap_areas(self.file, header):
            self.count(offset, length, what)
        self.count(
            header.refcount_table_offset, header.refcount_table_clusters << geometry.cluster_bits, "refcount table"
        )

    async def count_tables(self, l1_offset: int, l1_size: int, *, active: bool, what: str) -> None:
        """The references of one L1 table, its L2 tables and everything these map."""
        geometry = self.geometry
        if not l1_size or not self.count(l1_offset, l1_size * 8, what):
            return
        for index, entry in enumerate(await self.read_table(l1_offset, l1_size * 8)):
            offset = entry & layout.OFFSET_MASK
            if entry & layout.L1_RESERVED or offset & geometry.cluster_mask:
                self.result.corrupt(f"{what}, entry {index}: {entry:#x} is not the offset of a cluster")
                continue
            if offset and self.count(offset, geometry.cluster_size, f"{what}, entry {index}: L2 table"):
                if active:
                    self.copied.append((offset >> geometry.cluster_bits, entry >= layout.COPIED, "L1", index))
                await self.count_l2(offset, index, active=active)

    async def count_l2(self, table_offset: int, l1_index: int, *, active: bool) -> None:
        geometry, result, references = self.geometry, self.result, self.references
        bits = geometry.cluster_bits
        bad = layout.L2_RESERVED | geometry.cluster_mask & layout.OFFSET_MASK
        expected = 0
        first = l1_index << geometry.l2_bits
        for index, entry in enumerate(await self.read_table(table_offset, geometry.cluster_size)):
            if entry == 0:
                continue
            where = table_offset + 8 * index
            if entry & layout.COMPRESSED:
                offset, length = geometry.compressed_extent(entry)
                # The last sectors of a descriptor may lie behind the end of the file: padding that nobody wrote.
                length = min(length, max(1, (self.clusters << bits) - offset))
                if entry & layout.COPIED:
                    result.corrupt(f"L2 entry at {where:#x}: a compressed cluster has the COPIED flag")
                if self.count(offset, length, f"L2 entry at {where:#x}: compressed cluster") and active:
                    result.allocated_clusters += 1
                    result.compressed_clusters += 1
                    result.fragmented_clusters += 1
                continue
            if entry & bad:
                result.corrupt(f"L2 entry at {where:#x}: {entry:#x} is not the offset of a cluster")
                continue
            if entry & layout.ZERO and self.header.version < 3:
                result.corrupt(f"L2 entry at {where:#x}: a zero cluster in a version 2 image")
            host = entry & layout.OFFSET_MASK
            if not host:
                continue
            cluster = host >> bits
            if cluster >= self.clusters:
                result.corrupt(f"L2 entry at {where:#x}: cluster at {host:#x} is past the end of the file")
                continue
            references[cluster] += 1
            if active:
                self.copied.append((cluster, entry >= layout.COPIED, "L2", first + index))
                result.allocated_clusters += 1
                if expected and host != expected:
                    result.fragmented_clusters += 1
                expected = host + geometry.cluster_size

    async def read_table(self, offset: int, length: int) -> array[int]:
        raw = bytearray(length)
        await self.file.read(offset, [memoryview(raw)])
        return Entries64(raw).values

    # -- compare with the refcounts ---------------------------------------------------------------

    async def compare(self) -> None:
        geometry, header = self.geometry, self.header
        table_bytes = header.refcount_table_clusters << geometry.cluster_bits
        table = await self.read_table(header.refcount_table_offset, table_bytes)
        blocks: dict[int, int] = {}
        for index, entry in enumerate(table):
            offset = entry & layout.REFTABLE_OFFSET_MASK
            if entry == 0:
                continue
            if entry & 511 or offset & geometry.cluster_mask or offset >= layout.MAX_HOST_OFFSET:
                self.result.corrupt(f"refcount table entry {index}: {entry:#x} is not the offset of a cluster")
            elif self.count(offset, geometry.cluster_size, f"refcount table entry {index}: refcount block"):
                blocks[index] = offset
        refcounts = array("Q", bytes(8 * self.clusters))
        for index, offset in blocks.items():
            await self.read_block(index, offset, refcounts)
        for cluster, (counted, referenced) in enumerate(zip(refcounts, self.references, strict=True)):
            if counted < referenced:
                self.result.corrupt(f"cluster {cluster:#x}: refcount {counted} but {referenced} references")
            elif counted > referenced:
                self.result.leak(f"cluster {cluster:#x}: refcount {counted} but {referenced} references")
            if counted or referenced:
                self.result.image_end = (cluster + 1) << geometry.cluster_bits
        for cluster, copied, kind, index in self.copied:
            if copied != (refcounts[cluster] == 1):
                flag = "is set" if copied else "is missing"
                what = f"{kind} entry {index}: COPIED {flag} but the refcount of cluster {cluster:#x}"
                self.result.corrupt(f"{what} is {refcounts[cluster]}")

    async def read_block(self, index: int, offset: int, refcounts: array[int]) -> None:
        geometry = self.geometry
        raw = bytearray(geometry.cluster_size)
        await self.file.read(offset, [memoryview(raw)])
        block = decode_refcounts(raw, geometry.refcount_bits)
        first = index << geometry.refblock_bits
        inside = max(0, min(geometry.refblock_entries, self.clusters - first))
        for slot in range(inside):
            refcounts[first + slot] = block.get(slot)
        for slot in range(inside, geometry.refblock_entries):
            if block.get(slot):
                self.result.leak(f"cluster {first + slot:#x}: refcount {block.get(slot)}, past the end of the file")


async def check_file(file: Node) -> CheckResult:
    """Check the image in an open file, which nobody writes meanwhile. Raises ImageError when it cannot begin."""
    header = await read_header(file)
    known = layout.INCOMPAT_DIRTY | layout.INCOMPAT_CORRUPT | layout.INCOMPAT_COMPRESSION
    unknown = header.incompatible_features & ~known
    if unknown:
        names = ", ".join(header.feature_names(0, unknown))
        raise ImageError(file.name, "incompatible_features", f"{names}: cannot be checked")
    header.check_limits(file.name, file.size)
    result = CheckResult(file.name)
    checker = _Checker(file, header, result)
    result.total_clusters = checker.geometry.clusters(header.size)
    await checker.count_all()
    await checker.compare()
    return result


def check(filename: str | os.PathLike[str]) -> CheckResult:
    """Check an image file, opened read-only. Raises ImageError (no image, in use) or OSError."""
    path = os.fspath(filename)
    scheduler = Scheduler()
    engine = AutoEngine(scheduler)
    try:
        return scheduler.run(_check(path, engine))
    finally:
        engine.close()


async def _check(path: str, engine: AutoEngine) -> CheckResult:
    file = await FileNode.open(path, engine, read_only=True)
    try:
        return await check_file(file)
    finally:
        await file.close()
