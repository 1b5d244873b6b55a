"""Downgrade: bring an image back to version 2, which knows neither zero clusters nor feature bits.

An L2 table may belong to the disk and to snapshots at once; its zero clusters are replaced where it lies, once for
all of them. The image reads the same at every moment and stays version 3 until no zero cluster is left: then one
write of the header makes it version 2. A crash before that leaves leaks at most.

Reference: qcow2_downgrade, which writes zeros into the space behind a zero cluster even if a snapshot's data is there.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator

from e2kdisk.block.node import zero_iov
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.encryption import encrypted
from e2kdisk.qcow2.entries import pack64
from e2kdisk.qcow2.geometry import GuestOffset, HostOffset
from e2kdisk.qcow2.refcount import Freed
from e2kdisk.qcow2.references import l2_tables, read_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_RUN_BYTES = 2 << 20
"""Zeros are allocated and written in runs of at most this size (or one cluster)."""


def need_downgradable_snapshots(image: Qcow2Image, size: int) -> None:
    """Raise UsageError if a snapshot needs version 3, for a disk of `size` bytes.

    A version 2 snapshot has no disk size of its own, and 32 bits for that of its VM state.
    """
    for snapshot in image.snapshots.all():
        if snapshot.disk_size != size:
            what = f"has a disk of {snapshot.disk_size} bytes, not {size}"
        elif snapshot.vm_state_size > 0xFFFFFFFF:
            what = f"has {snapshot.vm_state_size} bytes of VM state, more than 32 bits can say"
        else:
            continue
        raise UsageError(f"{image.name}: snapshot {snapshot.id} {what}: not possible in version 2")


async def downgrade(image: Qcow2Image) -> None:
    """Make a version 3 image version 2; lazy refcounts are off already. Raises UsageError, ImageError or OSError."""
    need_downgradable_snapshots(image, image.size)
    # Version 2 has no bit that says whether bitmaps are up to date: they would be taken for stale, and leak.
    for bitmap in image.bitmaps:
        await image.bitmaps.remove(bitmap.name)
    header = image.header
    async with image.exclusive():
        await image.flush_metadata()
        await _replace_zero_clusters(image)
        await image.flush_metadata()
        unknown, extensions = header.unknown_fields, list(header.extensions)
        header.unknown_fields = b""
        header.extensions = [item for item in extensions if item.type != layout.EXT_FEATURE_NAMES]
        try:
            await image.writer.switch(
                version=2,
                incompatible_features=0,
                compatible_features=0,
                autoclear_features=0,
                header_length=layout.V2_HEADER_BYTES,
            )
        except BaseException:
            header.unknown_fields, header.extensions = unknown, extensions
            raise


async def _replace_zero_clusters(image: Qcow2Image) -> None:
    active = image.mapping.l1.values
    tables = [active]
    for snapshot in image.snapshots.all():
        tables.append(await read_entries(image, snapshot.l1_table_offset, snapshot.l1_size))
    # Counted from the pointers: a refcount may be too high after a crash.
    references = Counter(entry & layout.OFFSET_MASK for l1 in tables for entry in l1)
    done: set[int] = set()
    for l1 in tables:
        async for index, offset, entries in l2_tables(image, l1):
            if offset not in done:
                done.add(offset)
                await _replace_in_table(image, index, offset, entries, references[offset], active=l1 is active)


async def _replace_in_table(
    image: Qcow2Image, index: int, offset: int, entries: array[int], references: int, *, active: bool
) -> None:
    """Replace the zero clusters of one L2 table, which `references` L1 entries name."""
    geometry = image.geometry
    fresh = array("Q", entries)
    taken: list[tuple[HostOffset, int]] = []
    """One reference each, to be given back when this fails."""
    copied = layout.COPIED if active and references == 1 else 0
    try:
        for first, clusters in _zero_runs(entries, max(1, _RUN_BYTES >> geometry.cluster_bits)):
            if image.backing is None and image.header.backing_file is None:
                fresh[first : first + clusters] = array("Q", bytes(8 * clusters))
                continue
            guest = GuestOffset((index << geometry.l1_shift) + (first << geometry.cluster_bits))
            host = await _new_zeros(image, guest, clusters, references, taken)
            for number in range(clusters):
                fresh[first + number] = host + (number << geometry.cluster_bits) | copied
        if fresh == entries:
            return
        # Zeros and their counts are durable before the entries that lead there.
        image.order.note_unsynced()
        await image.order.flush()
    except BaseException:
        for host, clusters in taken:
            await image.refcounts.abandon(host, clusters)
        raise
    if active:
        image.mapping.forget_slices(index)
    # If this fails nobody knows what the table on disk names: all of it stays allocated, some of it leaks.
    await image.file.write(offset, [memoryview(pack64(fresh))])
    image.order.note_unsynced()
    await image.order.flush()
    for entry in entries:
        # What lay behind a zero cluster may be a snapshot's data: it loses references, it is not reused.
        space = entry & layout.OFFSET_MASK
        if _is_zero(entry) and space and not space & geometry.cluster_mask:
            for _ in range(references):
                await image.refcounts.release(HostOffset(space), geometry.cluster_size, Freed.REQUEST)


async def _new_zeros(
    image: Qcow2Image, guest: GuestOffset, clusters: int, references: int, taken: list[tuple[HostOffset, int]]
) -> HostOffset:
    """New clusters that read as zeros at a guest offset, with a count for each reference."""
    host, _ = await image.refcounts.allocate(clusters)
    taken.append((host, clusters))
    if references > 1:
        await image.refcounts.add(host >> image.geometry.cluster_bits, clusters, references - 1)
        taken.extend([(host, clusters)] * (references - 1))
    length = clusters << image.geometry.cluster_bits
    if image.cipher is None:
        await image.file.write_zeroes(host, length, unmap=False)
    else:
        await image.file.write(host, encrypted(image.cipher, guest, zero_iov(length)))
    return host


def _is_zero(entry: int) -> bool:
    return entry & (layout.ZERO | layout.COMPRESSED) == layout.ZERO


def _zero_runs(entries: array[int], most: int) -> Iterator[tuple[int, int]]:
    """(first index, count) of neighbouring zero clusters, at most `most` at a time."""
    first = 0
    while first < len(entries):
        end = first
        while end < len(entries) and end - first < most and _is_zero(entries[end]):
            end += 1
        if end > first:
            yield first, end - first
        first = max(end, first + 1)
