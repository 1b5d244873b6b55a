"""Geometry: every shift and mask of one image, and the two kinds of offsets that never mix."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType

    GuestOffset = NewType("GuestOffset", int)
    """A byte of the virtual disk."""
    HostOffset = NewType("HostOffset", int)
    """A byte of the image file."""
else:
    GuestOffset = HostOffset = int  # all that they are when the program runs; typing is slow to import

DEFAULT_L2_SLICE_BYTES = 4096
"""L2 tables are cached in slices of at most this size: a miss reads 4 KiB, not a whole 2 MiB table."""


class Geometry:
    """Converts between offsets, clusters and table indexes; nobody else shifts.

    Reference: the fields cluster_bits ... csize_mask of BDRVQcowState, size_to_clusters, size_to_l1,
    offset_to_l2_index, align_offset.
    """

    __slots__ = (
        "cluster_bits",
        "cluster_mask",
        "cluster_size",
        "compressed_offset_mask",
        "compressed_sectors_mask",
        "compressed_shift",
        "l1_shift",
        "l2_bits",
        "l2_entries",
        "refblock_bits",
        "refblock_entries",
        "refcount_bits",
        "refcount_order",
        "slice_bytes",
        "slice_entries",
        "slice_mask",
        "slice_shift",
        "slices_per_table",
    )

    def __init__(self, cluster_bits: int, refcount_order: int = 4, l2_slice_bytes: int = DEFAULT_L2_SLICE_BYTES):
        self.cluster_bits = cluster_bits
        self.cluster_size = 1 << cluster_bits
        self.cluster_mask = self.cluster_size - 1
        self.l2_bits = cluster_bits - 3
        self.l2_entries = 1 << self.l2_bits
        self.l1_shift = cluster_bits + self.l2_bits
        """offset >> l1_shift is the L1 index."""
        self.slice_bytes = min(self.cluster_size, l2_slice_bytes)
        self.slice_entries = self.slice_bytes // 8
        self.slice_mask = self.slice_entries - 1
        self.slice_shift = cluster_bits + self.slice_entries.bit_length() - 1
        """offset >> slice_shift numbers the L2 slices of the whole disk."""
        self.slices_per_table = self.cluster_size // self.slice_bytes
        self.refcount_order = refcount_order
        self.refcount_bits = 1 << refcount_order
        self.refblock_bits = cluster_bits + 3 - refcount_order
        self.refblock_entries = 1 << self.refblock_bits
        """Clusters that one refcount block counts."""
        self.compressed_shift = 62 - (cluster_bits - 8)
        self.compressed_sectors_mask = (1 << (cluster_bits - 8)) - 1
        self.compressed_offset_mask = (1 << self.compressed_shift) - 1

    def clusters(self, size: int) -> int:
        """Clusters that hold size bytes (size_to_clusters)."""
        return (size + self.cluster_mask) >> self.cluster_bits

    def l1_entries(self, size: int) -> int:
        """L1 entries that map size bytes of disk (size_to_l1)."""
        return (size + (1 << self.l1_shift) - 1) >> self.l1_shift

    def round_up(self, offset: int) -> int:
        """The next cluster boundary at or after offset."""
        return (offset + self.cluster_mask) & ~self.cluster_mask

    def round_down(self, offset: int) -> int:
        """The cluster boundary at or before offset."""
        return offset & ~self.cluster_mask

    def compressed_extent(self, entry: int) -> tuple[HostOffset, int]:
        """Where a compressed cluster's bytes lie: (host offset, bytes to the end of its last sector).

        The descriptor counts additional 512-byte sectors, so the true length is known only to the
        decompressor.
        """
        offset = entry & self.compressed_offset_mask
        sectors = ((entry >> self.compressed_shift) & self.compressed_sectors_mask) + 1
        return HostOffset(offset), sectors * 512 - (offset & 511)
