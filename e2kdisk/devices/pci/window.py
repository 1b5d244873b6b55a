"""A host's window onto the bus: one RegisterDevice that finds who answers at an address.

Regions move while the guest runs, and a window of 2 GiB may hold regions of 16 bytes, so there is no table of pages:
the ranges are sorted, and the last one that answered is tried first.

    offset in the window ->  [ free | BAR of 03.0 | free | BAR of 04.0 | free ]
                                      ^ low  high ^
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from e2kdisk.devices.controller import RegisterDevice
from e2kdisk.devices.pci.bar import Claim, Space


class PciWindow:
    """Part of an address space of the bus, as a RegisterDevice."""

    def __init__(self, name: str, space: Space, base: int, size: int) -> None:
        """Base is the bus's address of the window's first byte; where the host has the window is not known here."""
        self.name = name
        self.space = space
        self.base = base
        self.size = size
        self._fixed: list[Claim] = []
        self._claims: list[Claim] = []
        self._ranges: list[tuple[int, int, int, RegisterDevice]] = []  # start, end, start of the device, device
        self._starts: list[int] = []
        self._forget()

    def add_fixed(self, address: int, registers: RegisterDevice) -> None:
        """Let a device answer at a fixed address of the bus, before any function."""
        self._fixed.append(Claim(self.space, address, registers.size, registers))
        self.set_claims(self._claims)

    def set_claims(self, claims: Iterable[Claim]) -> None:
        """Take the ranges of all functions; of two that overlap the earlier one wins."""
        self._claims = [claim for claim in claims if claim.space == self.space]
        self._ranges = []
        for claim in self._fixed + self._claims:
            first = claim.address - self.base
            for start, end in self._gaps(max(first, 0), min(first + claim.size, self.size)):
                self._ranges.append((start, end, first, claim.registers))
            self._ranges.sort(key=lambda found: found[0])
        self._starts = [found[0] for found in self._ranges]
        self._forget()

    def _gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of a range that nobody has taken."""
        gaps = []
        for taken, upto, *_ in self._ranges:
            if start < taken:
                gaps.append((start, min(end, taken)))
            start = max(start, upto)
        gaps.append((start, end))
        return [(low, high) for low, high in gaps if low < high]

    def _forget(self) -> None:
        self._low = self._high = self._origin = 0
        self._device: RegisterDevice | None = None

    def _find(self, offset: int, size: int) -> bool:
        """Make the range that has all of an access the last one; False if there is none."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0:
            low, high, origin, device = self._ranges[index]
            if offset + size <= high:
                self._low, self._high, self._origin, self._device = low, high, origin, device
                return True
        return False

    # -- RegisterDevice ---------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load; where nobody answers there are ones."""
        if (self._low <= offset and offset + size <= self._high) or self._find(offset, size):
            assert self._device is not None
            return self._device.read(offset - self._origin, size)
        if size == 1:
            return 0xFF
        return sum(self.read(offset + index, 1) << 8 * index for index in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        """A store; where nobody answers it is lost."""
        if (self._low <= offset and offset + size <= self._high) or self._find(offset, size):
            assert self._device is not None
            self._device.write(offset - self._origin, size, value)
        elif size > 1:
            for index in range(size):
                self.write(offset + index, 1, value >> 8 * index & 0xFF)

    def behind(self, offset: int) -> tuple[RegisterDevice, int] | None:
        """The device that answers and its own offset, for traces."""
        return (self._device, offset - self._origin) if self._find(offset, 1) and self._device is not None else None

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name: the device behind and its register."""
        found = self.behind(offset)
        return f"{found[0].name} {found[0].register_name(found[1])}".rstrip() if found else ""

    def reset(self) -> None:
        """RegisterDevice.reset: nothing; the bus resets its functions, which give up their ranges."""
