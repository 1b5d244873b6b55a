"""The physical address space of the e2k CPU: RAM and ROM banks, register windows, and the I/O ports' own space."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from e2kdisk.machine.cpu.cpu import IoWindow
from e2kdisk.machine.cpu.e2k.decode import MAS_BIG_ENDIAN, MAS_MODE, MAS_UNALIGNED, MASK64
from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

LINE_SHIFT = 6
"""Code is watched in lines of 64 bytes: a firmware keeps its variables close to its code."""
MAS_IO = 6


class Bank(NamedTuple):
    """Memory that the host has."""

    base: int
    end: int
    view: memoryview
    writable: bool


class AddressSpace:
    """Loads and stores by address; whatever cannot be done raises GuestTrap."""

    def __init__(self, touched: Callable[[int, int], None]) -> None:
        self.banks: list[Bank] = []
        self.code_lines: set[int] = set()
        """Lines (address >> 6) that hold translated code: a store there calls `touched` with (start, end)."""
        self._touched = touched
        self._windows: list[IoWindow] = []
        self._window_bases: list[int] = []
        self._ports: list[IoWindow] = []

    def add_bank(self, base: int, view: memoryview, *, writable: bool) -> None:
        """Add RAM or ROM; the largest bank is the fastest."""
        self.banks.append(Bank(base, base + view.nbytes, view, writable))
        self.banks.sort(key=lambda bank: -bank.view.nbytes)

    def add_window(self, window: IoWindow) -> None:
        """Add registers; a window may be of any size, so there is no table of pages."""
        place = bisect_right(self._window_bases, window.base)
        self._window_bases.insert(place, window.base)
        self._windows.insert(place, window)

    def add_ports(self, window: IoWindow) -> None:
        """Add registers that answer to MAS mode 6 only."""
        self._ports.append(window)

    def bank_of(self, address: int, size: int) -> Bank | None:
        """The bank that holds a range."""
        for bank in self.banks:
            if bank.base <= address and address + size <= bank.end:
                return bank
        return None

    def _io_window(self, address: int, mas: int) -> IoWindow | None:
        if mas & MAS_MODE == MAS_IO:
            return next((port for port in self._ports if port.base <= address < port.base + port.size), None)
        place = bisect_right(self._window_bases, address) - 1
        if place >= 0 and address - self._window_bases[place] < self._windows[place].size:
            return self._windows[place]
        return None

    def load(self, address: int, size: int, mas: int = 0) -> int:
        """A load of `size` bytes."""
        address &= MASK64
        if address & size - 1 and not mas & MAS_UNALIGNED:
            raise GuestTrap(Trap.UNALIGNED, f"{size}-byte load", address)
        window = self._io_window(address, mas)
        if window is not None:
            value = window.read(address - window.base, size) & (1 << 8 * size) - 1
        else:
            bank = self.bank_of(address, size)
            if bank is None or mas & MAS_MODE == MAS_IO:
                raise GuestTrap(Trap.LOAD, "" if mas & MAS_MODE != MAS_IO else "I/O space", address)
            offset = address - bank.base
            value = int.from_bytes(bank.view[offset : offset + size], "little")
        return _swapped(value, size) if mas & MAS_BIG_ENDIAN else value

    def store(self, address: int, value: int, size: int, mas: int = 0) -> None:
        """A store of `size` bytes; to ROM it has no effect."""
        address &= MASK64
        if address & size - 1 and not mas & MAS_UNALIGNED:
            raise GuestTrap(Trap.UNALIGNED, f"{size}-byte store", address)
        if mas & MAS_BIG_ENDIAN:
            value = _swapped(value, size)
        window = self._io_window(address, mas)
        if window is not None:
            window.write(address - window.base, size, value)
            return
        bank = self.bank_of(address, size)
        if bank is None or mas & MAS_MODE == MAS_IO:
            raise GuestTrap(Trap.STORE, "" if mas & MAS_MODE != MAS_IO else "I/O space", address)
        if bank.writable:
            offset = address - bank.base
            bank.view[offset : offset + size] = value.to_bytes(size, "little")
            if not self.code_lines.isdisjoint((address >> LINE_SHIFT, address + size - 1 >> LINE_SHIFT)):
                self._touched(address, address + size)

    # -- what translated code calls ---------------------------------------------------------------

    def fast_load(self, size: int, slow: Callable[[int, int, int], int]) -> Callable[[int, int], int]:
        """A function of (address, index of the wide instruction): aligned loads from the largest bank at once."""
        if not self.banks:
            return lambda address, index: slow(address, size, index)
        bank = self.banks[0]
        base, limit, shift, unaligned = bank.base, bank.view.nbytes // 8 * 8, size.bit_length() - 1, size - 1
        cells = _cells(bank.view[:limit], size)

        def load(address: int, index: int) -> int:
            offset = address - base
            if 0 <= offset < limit and not offset & unaligned:
                return cells[offset >> shift]
            return slow(address, size, index)

        return load

    def fast_store(self, size: int, slow: Callable[[int, int, int, int], None]) -> Callable[[int, int, int], None]:
        """The same for stores: (address, value, index)."""
        if not self.banks or not self.banks[0].writable:
            return lambda address, value, index: slow(address, value, size, index)
        bank = self.banks[0]
        base, limit, shift, unaligned = bank.base, bank.view.nbytes // 8 * 8, size.bit_length() - 1, size - 1
        cells = _cells(bank.view[:limit], size)
        code_lines, touched = self.code_lines, self._touched

        def store(address: int, value: int, index: int) -> None:
            offset = address - base
            if 0 <= offset < limit and not offset & unaligned:
                cells[offset >> shift] = value
                if address >> LINE_SHIFT in code_lines:
                    touched(address, address + size)
            else:
                slow(address, value, size, index)

        return store


def _cells(view: memoryview, size: int) -> memoryview[int]:
    """Memory as little-endian numbers of this size: the host's own order, on every host that this runs on."""
    match size:
        case 1:
            return view.cast("B")
        case 2:
            return view.cast("B").cast("H")
        case 4:
            return view.cast("B").cast("I")
    return view.cast("B").cast("Q")


def _swapped(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "little"), "big")
