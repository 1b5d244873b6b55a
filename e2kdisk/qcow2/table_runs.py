"""Runs in L2 tables and refcount blocks, found by comparing memory: most entries are never looked at by themselves.

A table of an image that was written in order is a ramp, `entry, entry + cluster, entry + 2 cluster ...`, and its
refcount blocks are one value over and over. Both are compared with memory that looks like that, at memcmp's speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from struct import Struct

from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import Geometry

_TWO_ENTRIES = Struct(">2Q").unpack_from

_LONGEST_PATTERN = 1 << 16
"""Longest stretch of equal entries or refcounts that one comparison finds (bytes)."""

FEW_RUNS = 256
CLUSTERS_PER_RUN = 128
MOST_RUNS = 1 << 16
"""Runs that an image may have before it counts as scattered: FEW_RUNS, and one for so many clusters."""
RUNS_PER_MOVE = 8
"""Moving the window of a ramp takes about as long as finding this many runs."""


class Scattered(Exception):
    """The clusters of this image lie in too many runs."""


class Ramp:
    """The L2 entries of consecutive clusters, as they lie in the file: a window that moves over all clusters.

    Its length is such that its low bytes are the same wherever it stands; to move it is to fill in the other bytes.

        entry   80 00 0a bc 00 00 00 00     byte 0 and 7: flags, the same in the whole window
                80 00 0a bc 00 01 00 00     bytes 1-3: where the window stands
                80 00 0a bc 00 02 00 00     bytes 4-6: run through the window (clusters of 64 KiB)
    """

    def __init__(self, cluster_bits: int) -> None:
        self._cluster_bits = cluster_bits
        window_bits = 10 + -(cluster_bits + 10) % 8
        self.window = 1 << window_bits
        """Entries of the window."""
        running = (cluster_bits + window_bits) // 8
        self._standing = (*range(8 - running), 7)
        self._bytes = bytearray(8 * self.window)
        for place in range(1, running):
            shift = 8 * place - cluster_bits
            values = range(0, 256, 1 << max(0, -shift))
            period = b"".join([bytes((value,)) * (1 << max(0, shift)) for value in values])
            self._bytes[7 - place :: 8] = period * (self.window // len(period))
        self._view = memoryview(self._bytes)

    def move(self, entry: int) -> int:
        """Let the window hold an entry, with its flags; returns how many bytes of every entry had to change."""
        wanted = entry.to_bytes(8, "big")
        places = [place for place in self._standing if self._bytes[place] != wanted[place]]
        for place in places:
            self._bytes[place::8] = wanted[place : place + 1] * self.window
        return len(places)

    def following(self, entry: int) -> memoryview:
        """An entry that the window holds and those of the clusters after it, up to the end of the window."""
        first = (entry & layout.OFFSET_MASK) >> self._cluster_bits & (self.window - 1)
        return self._view[8 * first :]


class TableRuns:
    """Cuts the tables of one image into runs. Raises Scattered when there are too many."""

    def __init__(self, geometry: Geometry, clusters: int) -> None:
        """clusters: of the file."""
        self._geometry = geometry
        self._clusters = clusters
        self._special = layout.COMPRESSED | layout.L2_RESERVED | (geometry.cluster_mask & layout.OFFSET_MASK)
        self._ramp: Ramp | None = None
        self._left = min(MOST_RUNS, FEW_RUNS + clusters // CLUSTERS_PER_RUN)

    def cluster(self, entry: int) -> int | None:
        """The cluster of an ordinary entry, 0 if it has none; None for an entry that is not ordinary."""
        cluster = (entry & layout.OFFSET_MASK) >> self._geometry.cluster_bits
        return None if entry & self._special or cluster >= self._clusters else cluster

    def entries(self, raw: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
        """(index, how many, entry) of the runs of an L2 table.

        A run is: consecutive clusters of the file with the same flags, from entry on; or equal entries without a
        cluster; or one entry that is not ordinary. One may follow another of its kind without a break.
        """
        at, end = 0, len(raw)
        while at < end:
            self._spend(1)
            entry, following = _TWO_ENTRIES(raw, at) if at + 8 < end else (int.from_bytes(raw[at:], "big"), -1)
            cluster, length = self.cluster(entry), 8
            if cluster == 0 and following == entry:
                length = _equal(raw, at, _repeated(bytes(raw[at : at + 8]), min(end, _LONGEST_PATTERN)), 8)
            elif cluster and following == entry + self._geometry.cluster_size:
                length = _equal(raw, at, self._ramp_from(entry)[: 8 * (self._clusters - cluster)], 8)
            yield at // 8, length // 8, entry
            at += length

    def _ramp_from(self, entry: int) -> memoryview:
        if self._ramp is None:
            self._ramp = Ramp(self._geometry.cluster_bits)
        self._spend(RUNS_PER_MOVE * self._ramp.move(entry))
        return self._ramp.following(entry)

    def _spend(self, runs: int) -> None:
        self._left -= runs
        if self._left < 0:
            raise Scattered

    def refcounts(self, raw: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
        """(index, how many, refcount) of the runs of equal refcounts in a refcount block; neighbours may be equal."""
        bits = self._geometry.refcount_bits
        width, per_unit = max(1, bits // 8), max(1, 8 // bits)
        mask = (1 << bits) - 1
        ones = 0xFF // mask if bits < 8 else 1
        at, end = 0, len(raw)
        while at < end:
            self._spend(1)
            unit = bytes(raw[at : at + width])
            number = int.from_bytes(unit, "big")
            value = number & mask
            index, length = at // width * per_unit, width
            if number == value * ones:
                if raw.startswith(unit, at + width):
                    length = _equal(raw, at, _repeated(unit, min(end, _LONGEST_PATTERN)), width)
                yield index, length // width * per_unit, value
            else:  # narrow refcounts that differ within their byte: the lowest index has the lowest bits
                for place in range(per_unit):
                    yield index + place, 1, number >> place * bits & mask
            at += length


@lru_cache(maxsize=8)
def _repeated(unit: bytes, length: int) -> memoryview:
    return memoryview(unit * (length // len(unit)))


def _equal(raw: bytes | bytearray, at: int, pattern: memoryview, unit: int) -> int:
    """How many bytes from `at` equal the pattern's, in whole units; the first unit is known to."""
    length = min(len(raw) - at, pattern.nbytes)
    if raw.startswith(pattern[:length], at):
        return length
    same, different = 1, length // unit  # in units: all before `same` are equal, not all before `different`
    while different - same > 1:
        middle = (same + different) // 2
        if raw.startswith(pattern[same * unit : middle * unit], at + same * unit):
            same = middle
        else:
            different = middle
    return same * unit
