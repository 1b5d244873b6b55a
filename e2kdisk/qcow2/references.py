"""Walks over everything that one L1 table maps: change refcounts, clear and refresh COPIED flags.

All under Qcow2Image.exclusive(), after a flush: the tables in the file are the truth, and are read from there.
Reference: qcow2_update_snapshot_refcount.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator

from e2kdisk.errors import CorruptImage, ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import Entries64, pack64
from e2kdisk.qcow2.geometry import HostOffset
from e2kdisk.qcow2.refcount import Freed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def read_entries(image: Qcow2Image, offset: int, count: int) -> array[int]:
    """Read 64-bit entries from the file."""
    raw = bytearray(count * 8)
    if count:
        await image.file.read(offset, [memoryview(raw)])
    return Entries64(raw).values


async def l2_tables(image: Qcow2Image, l1: array[int]) -> AsyncIterator[tuple[int, int, array[int]]]:
    """(index, offset, entries) of every L2 table that an L1 table names. Raises ImageError for an impossible offset."""
    geometry = image.geometry
    for index, l1_entry in enumerate(l1):
        offset = l1_entry & layout.OFFSET_MASK
        if not offset:
            continue
        if offset & geometry.cluster_mask or offset >= image.file.size:
            raise ImageError(image.name, f"L1 entry {index}", f"{l1_entry:#x} is not the offset of an L2 table")
        other = image.guard.instead_of_l2_table(offset)
        if other is not None:
            raise CorruptImage(image.name, f"L1 entry {index}", f"L2 table at {offset:#x}: the {other} lies there")
        yield index, offset, await read_entries(image, offset, geometry.l2_entries)


async def cluster_runs(image: Qcow2Image, l1: array[int]) -> AsyncIterator[tuple[int, int]]:
    """(first cluster, clusters) of every L2 table and everything that it maps, one reference each.

    Raises ImageError for an entry that makes no sense; nothing of its table has been yielded then.
    """
    geometry = image.geometry
    bits = geometry.cluster_bits
    async for _, table_offset, table in l2_tables(image, l1):
        runs = [(table_offset >> bits, 1)]
        for slot, entry in enumerate(table):
            if entry & layout.COMPRESSED:
                host, length = geometry.compressed_extent(entry)
                first = host >> bits
                # The descriptor's last sector may end behind the file's end, never in a cluster of its own there.
                last = (min(host + length, geometry.round_up(image.file.size)) - 1) >> bits
                runs.append((first, last - first + 1))
                continue
            offset = entry & layout.OFFSET_MASK
            if not offset:
                continue
            if offset & geometry.cluster_mask:
                where = f"L2 entry (offset {table_offset + 8 * slot:#x})"
                raise ImageError(image.name, where, f"{entry:#x} is not the offset of a cluster")
            cluster = offset >> bits
            if runs[-1][0] + runs[-1][1] == cluster:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((cluster, 1))
        for run in runs:
            yield run


async def add_references(image: Qcow2Image, l1: array[int]) -> None:
    """One more reference to everything that an L1 table maps; all or nothing. Raises OSError, ImageError."""
    done = 0
    try:
        async for first, clusters in cluster_runs(image, l1):
            await image.refcounts.add(first, clusters, 1)
            done += 1
    except BaseException:
        async for first, clusters in cluster_runs(image, l1):
            if not done:
                break
            await image.refcounts.add(first, clusters, -1)
            done -= 1
        raise


async def drop_references(image: Qcow2Image, l1: array[int]) -> None:
    """One reference less to everything that an L1 table maps, whose removal is durable."""
    bits = image.geometry.cluster_bits
    async for first, clusters in cluster_runs(image, l1):
        await image.refcounts.release(HostOffset(first << bits), clusters << bits, Freed.SNAPSHOT)


async def clear_copied(image: Qcow2Image) -> None:
    """Clear COPIED in the active tables: from here on every write copies. Always harmless, at any moment."""
    for index, l1_entry in enumerate(image.mapping.l1.values):
        offset = l1_entry & layout.OFFSET_MASK
        if not offset:
            continue
        # A table without COPIED is read too: it may be counted twice by a repaired mistake, not shared.
        table = await read_entries(image, offset, image.geometry.l2_entries)
        cleared = array("Q", [entry & ~layout.COPIED for entry in table])
        if cleared != table:
            await _write_table(image, index, offset, cleared)
        image.mapping.l1.set(index, l1_entry & ~layout.COPIED)


async def refresh_copied(image: Qcow2Image) -> None:
    """Set COPIED in the active tables exactly where the refcount is one (the reference's addend 0)."""
    for index, l1_entry in enumerate(image.mapping.l1.values):
        offset = l1_entry & layout.OFFSET_MASK
        if not offset:
            continue
        table = await read_entries(image, offset, image.geometry.l2_entries)
        fresh = array("Q", [await _with_flag(image, entry) for entry in table])
        if fresh != table:
            await _write_table(image, index, offset, fresh)
        value = await _with_flag(image, l1_entry)
        if value != l1_entry:
            image.mapping.l1.set(index, value)


async def _with_flag(image: Qcow2Image, entry: int) -> int:
    offset = entry & layout.OFFSET_MASK
    if entry & layout.COMPRESSED or not offset:
        return entry & ~layout.COPIED
    if await image.refcounts.get(offset >> image.geometry.cluster_bits) == 1:
        return entry | layout.COPIED
    return entry & ~layout.COPIED


async def _write_table(image: Qcow2Image, index: int, offset: int, entries: array[int]) -> None:
    """Overwrite an L2 table in place, where only flags differ."""
    await image.file.write(offset, [memoryview(pack64(entries))])
    image.order.note_unsynced()
    image.mapping.forget_slices(index)
