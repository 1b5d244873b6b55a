"""Guest RAM: anonymous host memory that the CPU and the disks use in place."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 0x10000
"""Bytes that save() looks at, and load() compares, at a time."""
_ZEROS = bytearray(CHUNK)  # compared with a view, a bytearray takes 2 us and bytes take 120


class GuestRam:
    """`size` bytes that start as zeros and cost host memory only once touched."""

    def __init__(self, size: int) -> None:
        # Private, since shared memory gets no huge pages: they spare a page fault every 4 KiB that firmware or a disk
        # touches. Only a hint, so a refusal does not matter.
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._map)
        # The exported buffer also keeps the mapping alive for the emulator that was given the address.
        self._pin = (ctypes.c_char * size).from_buffer(self._map)
        self.address = ctypes.addressof(self._pin)

    def save(self) -> dict[int, bytes]:
        """What is not zero: offset in bytes -> content."""
        view, runs = self.view, {}
        for offset in range(0, view.nbytes, CHUNK):
            piece = view[offset : offset + CHUNK]
            if piece != _ZEROS[: piece.nbytes]:
                runs[offset] = bytes(piece)
        return runs

    def load(self, runs: Mapping[int, bytes]) -> Iterator[tuple[int, int]]:
        """Restore what save() gave; yields the ranges (start, end) that may have changed, in bytes.

        What was zero is given back to the host, which costs by what has been touched since; the rest is compared
        first, so that unchanged pages keep their translated code.
        """
        view, end = self.view, 0
        for offset in sorted(runs):
            if offset > end:
                self._map.madvise(mmap.MADV_DONTNEED, end, offset - end)
                yield end, offset
            content = runs[offset]
            end = offset + len(content)
            piece = view[offset:end]
            if bytearray(content) != piece:
                piece[:] = content
                yield offset, end
        if end < view.nbytes:
            self._map.madvise(mmap.MADV_DONTNEED, end, view.nbytes - end)
            yield end, view.nbytes

    def part(self, offset: int, size: int) -> RamPart:
        """Some of it, to be mapped at a place of its own."""
        return RamPart(self, self.view[offset : offset + size], self.address + offset)


@dataclass(slots=True)
class RamPart:
    """A piece of guest RAM."""

    whole: GuestRam
    """Kept alive by its pieces."""
    view: memoryview
    address: int
