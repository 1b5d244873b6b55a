"""The physical address space of a board for somebody who is not its CPU: RAM, ROM and registers in any lengths."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol

from e2kdisk.machine.boards.board import Board, RamBank
from e2kdisk.machine.bus import Window

SPACE = 1 << 64
WIDEST = 4
"""Bytes of one access to registers; more is taken apart, as QEMU does unless a device says otherwise."""
PORTS = 1 << 16
FILL_PIECE = 1 << 20


class _Area(Protocol):
    """What answers in a range of addresses; offsets count from its start and stay inside."""

    registers: bool

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...


class _Ram:
    registers = False

    def __init__(self, board: Board, bank: RamBank) -> None:
        self._memory = board.cpu.memory
        self._base = bank.base
        self._view = bank.ram.view[bank.offset : bank.offset + bank.size]

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._view[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        room = self._view[offset : offset + len(data)]
        room[:] = data
        self._memory.written(self._base + offset, room)
        self._memory.publish()


class _Rom:
    """Content, then zeros; stores are lost."""

    registers = False

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length].ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        pass


class _Nothing:
    """Reads as zeros, as in QEMU."""

    registers = False

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def write(self, offset: int, data: bytes) -> None:
        pass


class _Registers:
    registers = True

    def __init__(self, window: Window) -> None:
        self._window = window

    def read(self, offset: int, length: int) -> bytes:
        window = self._window
        return b"".join(window.read(at, size).to_bytes(size, "little") for at, size in _accesses(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        for at, size in _accesses(offset, len(data)):
            start = at - offset
            self._window.write(at, size, int.from_bytes(data[start : start + size], "little"))


def _accesses(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Aligned accesses (offset, size) of up to WIDEST bytes."""
    end = offset + length
    while offset < end:
        size = min(WIDEST, offset & -offset or WIDEST, 1 << (end - offset).bit_length() - 1)
        yield offset, size
        offset += size


class AddressSpace:
    """All of a board's addresses; they wrap at 2^64, what is nowhere reads as zeros."""

    def __init__(self, board: Board | None) -> None:
        """None is a machine without anything in it. The board has been switched on."""
        places: list[tuple[int, int, _Area]] = []
        self._ports: _Registers | None = None
        if board is not None:
            places += ((bank.base, bank.size, _Ram(board, bank)) for bank in board.ram_banks)
            places += ((base, size, _Rom(content)) for base, (content, size) in board.roms.items())
            for window in board.bus.windows():
                registers = _Registers(window)
                places.append((window.base, window.size, registers))
                if window.base == board.IO_PORTS:
                    self._ports = registers
        self._starts: list[int] = []
        self._areas: list[_Area] = []
        end, nothing = 0, _Nothing()
        for base, size, area in sorted(places, key=lambda place: place[0]):
            if base > end:
                self._starts.append(end)
                self._areas.append(nothing)
            self._starts.append(base)
            self._areas.append(area)
            end = base + size
        self._starts.append(end)
        self._areas.append(nothing)

    def _pieces(self, address: int, length: int) -> Iterator[tuple[_Area, int, int]]:
        """The areas of a range: (area, offset in it, bytes)."""
        while length:
            address %= SPACE
            index = bisect_right(self._starts, address) - 1
            end = self._starts[index + 1] if index + 1 < len(self._starts) else SPACE
            size = min(length, end - address)
            yield self._areas[index], address - self._starts[index], size
            address += size
            length -= size

    def registers_in(self, address: int, length: int) -> int:
        """How many bytes of a range are registers: each access to them takes its time."""
        return sum(size for area, _, size in self._pieces(address, length) if area.registers)

    def read(self, address: int, length: int) -> bytes:
        """Bytes from an address."""
        return b"".join([area.read(offset, size) for area, offset, size in self._pieces(address, length)])

    def write(self, address: int, data: bytes) -> None:
        """Bytes to an address."""
        done = 0
        for area, offset, size in self._pieces(address, len(data)):
            area.write(offset, data[done : done + size])
            done += size

    def fill(self, address: int, length: int, byte: int) -> None:
        """The same byte to a range."""
        for area, offset, size in self._pieces(address, length):
            if isinstance(area, _Nothing):
                continue
            for start in range(0, size, FILL_PIECE):
                area.write(offset + start, bytes((byte,)) * min(FILL_PIECE, size - start))

    def load(self, address: int, size: int) -> int:
        """A little-endian number of 1, 2, 4 or 8 bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def store(self, address: int, size: int, value: int) -> None:
        """A little-endian number of 1, 2, 4 or 8 bytes."""
        self.write(address, value.to_bytes(size, "little"))

    # -- I/O ports --------------------------------------------------------------------------------

    @property
    def has_ports(self) -> bool:
        """Whether there is a space of I/O ports."""
        return self._ports is not None

    def port_in(self, port: int, size: int) -> int:
        """A number from a port; it lies inside the 64 KiB."""
        assert self._ports is not None
        return int.from_bytes(self._ports.read(port, size), "little")

    def port_out(self, port: int, size: int, value: int) -> None:
        """A number to a port; it lies inside the 64 KiB."""
        assert self._ports is not None
        self._ports.write(port, value.to_bytes(size, "little"))
