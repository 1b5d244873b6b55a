"""The inner loops of a check, over whole tables at once: with numpy when it is installed, else in plain Python.

These are the kernels for every image, with a counter for each cluster; check_runs has the one for images in order,
which is tried first. All give the same answers (tests compare them); numpy is loaded only where it pays.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import Entries64, decode_refcounts
from e2kdisk.qcow2.geometry import Geometry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

NUMPY_FROM_CLUSTERS = 1 << 16
"""Importing numpy costs as much as checking about this many clusters without it."""

_SPECIAL = layout.COMPRESSED | layout.L2_RESERVED


class Kernel(Protocol):
    """References and refcounts of every cluster of a file, and the loops over them."""

    def reference(self, first: int, clusters: int) -> None:
        """One more reference to each cluster of a run that lies in the file."""

    def count_table(self, raw: bytearray) -> tuple[list[tuple[int, int]], int, int]:
        """Count the ordinary entries of an L2 table (not compressed, aligned, in the file).

        Returns (entries that are not ordinary, as (index, entry)), ordinary ones with space, those among them that
        do not follow their predecessor in this table).
        """

    def load_block(self, first: int, raw: bytearray) -> int:
        """Take over the refcounts of a refcount block; returns how many past the end of the file are not zero."""

    def differences(self) -> Iterable[tuple[int, int, int]]:
        """(cluster, refcount, references) wherever the two differ, in order."""

    def wrong_flags(self, raw: bytearray) -> Iterable[tuple[int, int, int]]:
        """(index, entry, refcount) of ordinary L2 entries whose COPIED flag does not agree with the refcount."""

    def refcount(self, cluster: int) -> int:
        """The refcount as the image has it."""

    def references_of(self, first: int, end: int) -> list[int]:
        """References of a range of clusters; 0 behind the end of the file."""

    def last_used(self) -> int:
        """The highest cluster that is counted or referenced, -1 for none."""


class PythonKernel:
    """The loops in plain Python."""

    def __init__(self, geometry: Geometry, clusters: int) -> None:
        self._geometry = geometry
        self._clusters = clusters
        self._references = array("I", bytes(4 * clusters))
        typecode = {3: "B", 4: "H", 5: "I", 6: "Q"}.get(geometry.refcount_order, "B")
        self._refcounts = array(typecode, bytes(array(typecode).itemsize * clusters))

    def reference(self, first: int, clusters: int) -> None:
        """Kernel.reference."""
        for cluster in range(first, first + clusters):
            self._references[cluster] += 1

    def count_table(self, raw: bytearray) -> tuple[list[tuple[int, int]], int, int]:
        """Kernel.count_table."""
        bits, size = self._geometry.cluster_bits, self._geometry.cluster_size
        special = _SPECIAL | (self._geometry.cluster_mask & layout.OFFSET_MASK)
        references, clusters = self._references, self._clusters
        others: list[tuple[int, int]] = []
        allocated = fragmented = expected = 0
        for index, entry in enumerate(Entries64(raw).values):
            if not entry:
                continue
            offset = entry & layout.OFFSET_MASK
            if entry & special or offset >> bits >= clusters:
                others.append((index, entry))
            elif offset:
                references[offset >> bits] += 1
                allocated += 1
                if expected and offset != expected:
                    fragmented += 1
                expected = offset + size
        return others, allocated, fragmented

    def load_block(self, first: int, raw: bytearray) -> int:
        """Kernel.load_block."""
        geometry = self._geometry
        inside = max(0, min(geometry.refblock_entries, self._clusters - first))
        block = decode_refcounts(raw, geometry.refcount_bits)
        for slot in range(inside):
            self._refcounts[first + slot] = block.get(slot)
        return sum(block.get(slot) != 0 for slot in range(inside, geometry.refblock_entries))

    def differences(self) -> Iterable[tuple[int, int, int]]:
        """Kernel.differences."""
        for cluster, (counted, referenced) in enumerate(zip(self._refcounts, self._references, strict=True)):
            if counted != referenced:
                yield cluster, counted, referenced

    def wrong_flags(self, raw: bytearray) -> Iterable[tuple[int, int, int]]:
        """Kernel.wrong_flags."""
        bits = self._geometry.cluster_bits
        special = _SPECIAL | (self._geometry.cluster_mask & layout.OFFSET_MASK)
        for index, entry in enumerate(Entries64(raw).values):
            cluster = (entry & layout.OFFSET_MASK) >> bits
            if cluster and not entry & special and cluster < self._clusters:
                refcount = self._refcounts[cluster]
                if (refcount == 1) != (entry >= layout.COPIED):
                    yield index, entry, refcount

    def refcount(self, cluster: int) -> int:
        """Kernel.refcount."""
        return self._refcounts[cluster]

    def references_of(self, first: int, end: int) -> list[int]:
        """Kernel.references_of."""
        part: list[int] = self._references[first:end].tolist()
        return part + [0] * (end - first - len(part))

    def last_used(self) -> int:
        """Kernel.last_used."""
        for cluster in range(self._clusters - 1, -1, -1):
            if self._refcounts[cluster] or self._references[cluster]:
                return cluster
        return -1


class NumpyKernel:
    """The loops as numpy expressions over views of the tables."""

    def __init__(self, geometry: Geometry, clusters: int) -> None:
        import numpy

        self._numpy: Any = numpy
        self._geometry = geometry
        self._clusters = clusters
        self._references: Any = numpy.zeros(clusters, numpy.uint32)
        width = max(8, geometry.refcount_bits)
        self._refcounts: Any = numpy.zeros(clusters, f"u{width // 8}")

    def reference(self, first: int, clusters: int) -> None:
        """Kernel.reference."""
        self._references[first : first + clusters] += 1

    def _ordinary(self, raw: bytearray) -> tuple[Any, Any, Any]:
        """(entries, offsets, which of them are ordinary and have space)."""
        numpy = self._numpy
        entries = numpy.frombuffer(raw, ">u8").astype(numpy.uint64)
        offsets = entries & numpy.uint64(layout.OFFSET_MASK)
        special = _SPECIAL | (self._geometry.cluster_mask & layout.OFFSET_MASK)
        inside = offsets < numpy.uint64(self._clusters << self._geometry.cluster_bits)
        good = ((entries & numpy.uint64(special)) == 0) & inside
        return entries, offsets, good

    def count_table(self, raw: bytearray) -> tuple[list[tuple[int, int]], int, int]:
        """Kernel.count_table."""
        numpy = self._numpy
        entries, offsets, good = self._ordinary(raw)
        strange = numpy.flatnonzero(~good & (entries != 0))
        others = [(int(index), int(entries[index])) for index in strange]
        used = offsets[good & (offsets != 0)]
        if not used.size:
            return others, 0, 0
        clusters = (used >> numpy.uint64(self._geometry.cluster_bits)).astype(numpy.int64)
        low, high = int(clusters.min()), int(clusters.max())
        if high - low < 4 * used.size:
            # Close together: counting a window of the file costs less than adding one by one.
            self._references[low : high + 1] += numpy.bincount(clusters - low, minlength=high - low + 1).astype(
                numpy.uint32
            )
        else:
            numpy.add.at(self._references, clusters, numpy.uint32(1))
        size = numpy.uint64(self._geometry.cluster_size)
        fragmented = int(numpy.count_nonzero(used[1:] != used[:-1] + size))
        return others, int(used.size), fragmented

    def load_block(self, first: int, raw: bytearray) -> int:
        """Kernel.load_block."""
        numpy, bits = self._numpy, self._geometry.refcount_bits
        if bits >= 8:
            counts = numpy.frombuffer(raw, f">u{bits // 8}")
        else:
            places = numpy.arange(0, 8, bits, dtype=numpy.uint8)
            spread = numpy.frombuffer(raw, numpy.uint8)[:, None] >> places
            counts = (spread & numpy.uint8((1 << bits) - 1)).reshape(-1)
        inside = max(0, min(len(counts), self._clusters - first))
        self._refcounts[first : first + inside] = counts[:inside]
        return int(numpy.count_nonzero(counts[inside:]))

    def differences(self) -> Iterable[tuple[int, int, int]]:
        """Kernel.differences."""
        for cluster in self._numpy.flatnonzero(self._refcounts != self._references):
            yield int(cluster), int(self._refcounts[cluster]), int(self._references[cluster])

    def wrong_flags(self, raw: bytearray) -> Iterable[tuple[int, int, int]]:
        """Kernel.wrong_flags."""
        numpy = self._numpy
        entries, offsets, good = self._ordinary(raw)
        indexes = numpy.flatnonzero(good & (offsets != 0))
        clusters = (offsets[indexes] >> numpy.uint64(self._geometry.cluster_bits)).astype(numpy.int64)
        counts = self._refcounts[clusters]
        copied = entries[indexes] >= numpy.uint64(layout.COPIED)
        for at in numpy.flatnonzero((counts == 1) != copied):
            yield int(indexes[at]), int(entries[indexes[at]]), int(counts[at])

    def refcount(self, cluster: int) -> int:
        """Kernel.refcount."""
        return int(self._refcounts[cluster])

    def references_of(self, first: int, end: int) -> list[int]:
        """Kernel.references_of."""
        part: list[int] = self._references[first:end].tolist()
        return part + [0] * (end - first - len(part))

    def last_used(self) -> int:
        """Kernel.last_used."""
        used = self._numpy.flatnonzero((self._refcounts != 0) | (self._references != 0))
        return int(used[-1]) if used.size else -1


def make_kernel(geometry: Geometry, clusters: int) -> Kernel:
    """The kernel that is faster for an image of this many clusters."""
    if clusters >= NUMPY_FROM_CLUSTERS or "numpy" in sys.modules:
        try:
            return NumpyKernel(geometry, clusters)
        except ImportError:
            pass
    return PythonKernel(geometry, clusters)
