"""Build a whole new set of refcount structures from known references, and switch to it with one header write."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import decode_refcounts, pack64
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header_file import HeaderWriter

Counts = Callable[[int, int], Awaitable[list[int]]]
"""Refcounts for the clusters first..end, 0 for the refcount structures that are replaced."""


async def rebuild_refcounts(
    file: Node, writer: HeaderWriter, geometry: Geometry, clusters: int, counts_of: Counts
) -> None:
    """Write new refcount blocks and a new table behind the end of the file, then make the header name them.

        | the file as it is: clusters .. | refcount blocks | refcount table |

    `geometry` has the width that the new refcounts shall have; `clusters` is the length of the file. Blocks are
    made only where something is counted. Raises ImageError when a count does not fit the width, or OSError;
    the old structures are untouched then.
    """
    limit = (1 << geometry.refcount_bits) - 1
    needed: list[int] = []
    for index in range(-(-clusters // geometry.refblock_entries)):
        first = index << geometry.refblock_bits
        counts = await counts_of(first, min(first + geometry.refblock_entries, clusters))
        if max(counts, default=0) > limit:
            where = f"cluster {first + counts.index(max(counts)):#x}"
            raise ImageError(file.name, where, f"{max(counts)} references do not fit in {geometry.refcount_bits} bits")
        if any(counts):
            needed.append(index)
    # The new structures count themselves, so their number depends on itself: enlarge until it fits.
    table_clusters, indexes = 1, list(needed)
    while True:
        end = clusters + len(indexes) + table_clusters
        covered = sorted(
            {*needed, *range(clusters >> geometry.refblock_bits, ((end - 1) >> geometry.refblock_bits) + 1)}
        )
        wanted = geometry.clusters((covered[-1] + 1) * 8)
        if covered == indexes and wanted == table_clusters:
            break
        indexes, table_clusters = covered, max(wanted, table_clusters)
    if table_clusters << geometry.cluster_bits > layout.MAX_REFTABLE_BYTES:
        raise ImageError(file.name, "refcount table", "would exceed the limit of 8 MiB")
    table = array("Q", bytes(table_clusters << geometry.cluster_bits))
    for number, index in enumerate(indexes):
        first = index << geometry.refblock_bits
        block = decode_refcounts(bytearray(geometry.cluster_size), geometry.refcount_bits)
        old = await counts_of(first, min(first + geometry.refblock_entries, clusters)) if first < clusters else []
        for slot, count in enumerate(old):
            block.set(slot, count)
        for cluster in range(max(first, clusters), min(first + geometry.refblock_entries, end)):
            block.set(cluster - first, 1)
        table[index] = (clusters + number) << geometry.cluster_bits
        await file.write(table[index], [memoryview(block.pack(0, geometry.cluster_size))])
    offset = (clusters + len(indexes)) << geometry.cluster_bits
    await file.write(offset, [memoryview(pack64(table))])
    await file.flush()
    await writer.switch(
        refcount_table_offset=offset,
        refcount_table_clusters=table_clusters,
        refcount_order=geometry.refcount_order,
    )
