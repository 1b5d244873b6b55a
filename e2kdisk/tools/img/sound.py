"""A look whether an image is sound and in order, for `check`, with a fraction of the imports that the engine needs.

It goes the way of e2kdisk.qcow2.check_walk through an image that has no snapshots, backing file or bitmaps. Where
anything is not as it should be, it leaves the image to the engine, which counts what is wrong and has the words.
"""

from __future__ import annotations

import os

from e2kdisk.block.locks import lock_image
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.check_runs import RunKernel
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.table_runs import Scattered
from e2kdisk.tools.img.head import Head, Odd

_ONLY_FOR_THE_ENGINE = {layout.EXT_BITMAPS, layout.EXT_CRYPTO, layout.EXT_DATA_FILE}


class Sound:
    """What a check says of an image in which nothing is wrong: see check_walk.CheckResult."""

    __slots__ = ("allocated_clusters", "fragmented_clusters", "image_end", "total_clusters")

    clean = True
    corruptions = leaks = corruptions_fixed = leaks_fixed = compressed_clusters = 0
    problems: tuple[str, ...] = ()

    def __init__(self, total_clusters: int) -> None:
        self.total_clusters = total_clusters
        self.allocated_clusters = self.fragmented_clusters = self.image_end = 0


def look(path: str, *, force_share: bool) -> Sound | None:
    """Check the image in a plain file; None if the engine must judge."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not force_share:
            lock_image(fd, path, writable=False)
        return _Walk(fd, Head(fd)).result()
    except (Odd, Scattered, ImageError, OSError):
        return None
    finally:
        os.close(fd)


class _Walk:
    def __init__(self, fd: int, head: Head) -> None:
        """Raises Odd."""
        special = head.incompatible or head.snapshot_count or head.crypt_method or head.backing_file_offset
        if special or head.extensions.keys() & _ONLY_FOR_THE_ENGINE or head.size > layout.MAX_DISK_BYTES:
            raise Odd
        self.fd = fd
        self.head = head
        self.geometry = Geometry(head.cluster_size.bit_length() - 1, head.refcount_order)
        self.clusters = self.geometry.clusters(os.fstat(fd).st_size)
        self.kernel = RunKernel(self.geometry, self.clusters)
        self._structures: list[tuple[int, int]] = []

    def result(self) -> Sound:
        """Count and compare everything. Raises Odd, Scattered, OSError."""
        sound = Sound(self.geometry.clusters(self.head.size))
        self._structure(0, self.geometry.cluster_size)
        l2_tables = self._count_tables(sound)
        self._count_refcounts()
        # A structure that something else shares could still have the right refcount.
        if any(self.kernel.references_of(first, end) != [1] * (end - first) for first, end in self._structures):
            raise Odd
        if any(self.kernel.differences()):
            raise Odd
        for offset in l2_tables:
            if any(self.kernel.wrong_flags(self._read(offset, self.geometry.cluster_size))):
                raise Odd
        sound.image_end = (self.kernel.last_used() + 1) << self.geometry.cluster_bits
        return sound

    def _count_tables(self, sound: Sound) -> list[int]:
        l2_tables = []
        for entry in Entries64(self._structure(self.head.l1_offset, self.head.l1_size * 8)).values:
            if not entry:
                continue
            if entry & (layout.L1_RESERVED | layout.COPIED) != layout.COPIED:
                raise Odd
            offset = entry & layout.OFFSET_MASK
            others, allocated, fragmented = self.kernel.count_table(self._structure(offset, self.geometry.cluster_size))
            if others:
                raise Odd
            sound.allocated_clusters += allocated
            sound.fragmented_clusters += fragmented
            l2_tables.append(offset)
        return l2_tables

    def _count_refcounts(self) -> None:
        table_bytes = self.head.refcount_table_clusters << self.geometry.cluster_bits
        if table_bytes > layout.MAX_REFTABLE_BYTES:
            raise Odd
        for index, offset in enumerate(Entries64(self._structure(self.head.refcount_table_offset, table_bytes)).values):
            if offset:
                # What it counts past the end of the file is not judged, as in check_walk.
                block = self._structure(offset, self.geometry.cluster_size)
                self.kernel.load_block(index << self.geometry.refblock_bits, block)

    def _structure(self, offset: int, length: int) -> bytes:
        """Count a structure and read it. Raises Odd if it cannot lie there."""
        first, end = offset >> self.geometry.cluster_bits, self.geometry.clusters(offset + length)
        if offset & self.geometry.cluster_mask or not length or end > self.clusters:
            raise Odd
        self.kernel.reference(first, end - first)
        self._structures.append((first, end))
        return self._read(offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        raw = os.pread(self.fd, length, offset)
        if len(raw) != length:
            raise Odd
        return raw
