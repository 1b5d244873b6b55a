"""Guest memory behind a unicorn.Uc whose RAM the host cannot address: every access is a copy through the engine."""

from __future__ import annotations

from collections.abc import Container
from struct import Struct
from typing import Any

from unicorn.unicorn_const import UC_PROT_READ, UC_PROT_WRITE

from e2kdisk.devices.memory import Area
from e2kdisk.machine.cpu import unicorn_raw as raw

RAM = UC_PROT_READ | UC_PROT_WRITE


class _UcArea:
    """A ring in guest memory."""

    __slots__ = ("_address", "_uc", "length")

    def __init__(self, uc: raw.Engine, address: int, length: int) -> None:
        self._uc = uc
        self._address = address
        self.length = length

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        """Area.unpack."""
        return layout.unpack(self._uc.mem_read(self._address + offset, layout.size))

    def pack(self, layout: Struct, offset: int, *values: Any) -> None:
        """Area.pack."""
        self._uc.mem_write(self._address + offset, layout.pack(*values))


class UcMemory:
    """A GuestMemory of copies. RAM is what is mapped readable and writable and is not one of our register pages.

    The engine does not tell its owner's register pages (mmio_map) from RAM: a guest that puts a ring there reads
    and writes registers, as DMA to such an address may do on real buses.
    """

    def __init__(self, uc: raw.Engine, registers: Container[int]) -> None:
        self._uc = uc
        self._registers = registers
        self._written: list[tuple[int, memoryview]] = []

    def _is_ram(self, address: int, length: int) -> bool:
        """Whether all of a range is RAM; regions may lie next to each other."""
        at, end = address, address + length
        for first, last, permissions in sorted(self._uc.mem_regions()):
            if first <= at <= last and permissions & RAM == RAM and first not in self._registers:
                at = min(end, last + 1)
        return at >= end and length >= 0

    def area(self, address: int, length: int) -> Area | None:
        """GuestMemory.area."""
        return _UcArea(self._uc, address, length) if self._is_ram(address, length) else None

    def source(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.source."""
        return memoryview(self._uc.mem_read(address, length)) if self._is_ram(address, length) else None

    def target(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.target."""
        return memoryview(bytearray(length)) if self._is_ram(address, length) else None

    def written(self, address: int, view: memoryview) -> None:
        """GuestMemory.written: kept until the guest may see it."""
        self._written.append((address, view))

    def publish(self) -> None:
        """GuestMemory.publish."""
        written, self._written = self._written, []
        for address, view in written:
            self._uc.mem_write(address, view.tobytes())
            self._uc.ctl_remove_cache(address, address + view.nbytes)
