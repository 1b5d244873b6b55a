"""The kernel of a check for images in order: runs of clusters instead of a counter for each.

An image that was written in order has a few runs in each table. Finding them costs less than importing numpy, and
they need no memory for clusters. An image with many short runs raises Scattered: the other kernels are for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.table_runs import TableRuns


class Steps:
    """A number for each cluster, kept as the places where it changes."""

    __slots__ = ("_changes", "_starts", "_values")

    def __init__(self) -> None:
        self._changes: dict[int, int] = {}
        self._starts: list[int] = []
        self._values: list[int] = []

    def add(self, first: int, end: int, value: int) -> None:
        """Add a value to the numbers of a range of clusters."""
        changes = self._changes
        changes[first] = changes.get(first, 0) + value
        changes[end] = changes.get(end, 0) - value
        self._starts = []

    def between(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(first, end, number) of the stretches of a range, in order; all of it, zeros too."""
        self._sort()
        starts, values = self._starts, self._values
        at = bisect_right(starts, first) - 1
        while first < end:
            stop = min(end, starts[at + 1]) if at + 1 < len(starts) else end
            yield first, stop, values[at]
            first = stop
            at += 1

    def last(self) -> int:
        """The last cluster whose number is not 0, or -1."""
        self._sort()
        return self._starts[-1] - 1  # where the last number that is not 0 ends

    def _sort(self) -> None:
        if self._starts:
            return
        self._starts, self._values = [0], [self._changes.get(0, 0)]
        for place in sorted(self._changes):
            if place and self._changes[place]:
                self._starts.append(place)
                self._values.append(self._values[-1] + self._changes[place])


class RunKernel:
    """See check_kernel.Kernel; every method may raise Scattered."""

    def __init__(self, geometry: Geometry, clusters: int) -> None:
        self._geometry = geometry
        self._clusters = clusters
        self._runs = TableRuns(geometry, clusters)
        self._references = Steps()
        self._refcounts = Steps()

    def reference(self, first: int, clusters: int) -> None:
        """Kernel.reference."""
        self._references.add(first, first + clusters, 1)

    def count_table(self, raw: bytes | bytearray) -> tuple[list[tuple[int, int]], int, int]:
        """Kernel.count_table."""
        others: list[tuple[int, int]] = []
        allocated = fragmented = expected = 0
        for index, count, entry in self._runs.entries(raw):
            first = self._runs.cluster(entry)
            if first:
                self._references.add(first, first + count, 1)
                allocated += count
                fragmented += expected not in (0, first)
                expected = first + count
            elif first is None:
                others.append((index, entry))
        return others, allocated, fragmented

    def load_block(self, first: int, raw: bytes | bytearray) -> int:
        """Kernel.load_block."""
        behind = 0
        for index, count, value in self._runs.refcounts(raw):
            if value:
                start = first + index
                end = min(start + count, self._clusters)
                if start < end:
                    self._refcounts.add(start, end, value)
                behind += start + count - max(start, end)
        return behind

    def differences(self) -> Iterable[tuple[int, int, int]]:
        """Kernel.differences."""
        for start, stop, counted in self._refcounts.between(0, self._clusters):
            for first, end, referenced in self._references.between(start, stop):
                if counted != referenced:
                    for cluster in range(first, end):
                        yield cluster, counted, referenced

    def wrong_flags(self, raw: bytes | bytearray) -> Iterable[tuple[int, int, int]]:
        """Kernel.wrong_flags."""
        size = self._geometry.cluster_size
        for index, count, entry in self._runs.entries(raw):
            cluster = self._runs.cluster(entry)
            if not cluster:
                continue
            copied = entry >= layout.COPIED
            for first, end, refcount in self._refcounts.between(cluster, cluster + count):
                if (refcount == 1) != copied:
                    for place in range(first - cluster, end - cluster):
                        yield index + place, entry + place * size, refcount

    def refcount(self, cluster: int) -> int:
        """Kernel.refcount."""
        return next(self._refcounts.between(cluster, cluster + 1))[2]

    def references_of(self, first: int, end: int) -> list[int]:
        """Kernel.references_of."""
        return [number for start, stop, number in self._references.between(first, end) for _ in range(start, stop)]

    def last_used(self) -> int:
        """Kernel.last_used."""
        return max(self._refcounts.last(), self._references.last())
