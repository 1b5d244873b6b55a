"""Guest RAM: anonymous host memory that the CPU and the disks use in place."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress


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
