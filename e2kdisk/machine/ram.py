"""Guest RAM: anonymous host memory that the CPU and the disks use in place."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress


class GuestRam:
    """`size` bytes that start as zeros and cost host memory only once touched."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size)
        # Fewer page faults while a firmware copies itself and files around; a hint, so a refusal does not matter.
        with suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._map)
        # The exported buffer also keeps the mapping alive for the emulator that was given the address.
        self._pin = (ctypes.c_char * size).from_buffer(self._map)
        self.address = ctypes.addressof(self._pin)

    def clear(self) -> None:
        """Zeros again, as after power-on."""
        self._map.madvise(mmap.MADV_DONTNEED)
