"""How a host reaches configuration space: two I/O ports, or a window of memory."""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.controller import RegisterDevice
from e2kdisk.devices.pci.bus import PciBus
from e2kdisk.devices.registers import RW, Register, RegisterMap

ENABLE = 1 << 31
"""Of CONFIG_ADDRESS: the data port reaches configuration space."""
ADDRESS_BITS = 0x80FF_FFFC
"""Of CONFIG_ADDRESS: | 31 enable | 23..16 bus | 15..8 device and function | 7..2 dword |."""
BUS_STRIDE = 1 << 20
FUNCTION_STRIDE = 1 << 12


class ConfigPorts:
    """CONFIG_ADDRESS and CONFIG_DATA, eight ports from 0xcf8 on (PCI 3.0 3.2.2.3.2)."""

    name = "pci-config"
    size = 8
    PORT = 0xCF8

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus
        self.address = 0

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        if offset >= 4 and self.address & ENABLE:
            return self._bus.config_read(*self._target(offset), size)
        # Only a full dword reaches CONFIG_ADDRESS; other accesses there are for somebody else.
        return self.address if (offset, size) == (0, 4) else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        if offset >= 4:
            if self.address & ENABLE:
                self._bus.config_write(*self._target(offset), size, value)
        elif (offset, size) == (0, 4):
            self.address = value & ADDRESS_BITS

    def _target(self, offset: int) -> tuple[int, int, int]:
        address = self.address
        return address >> 16 & 0xFF, address >> 8 & 0xFF, (address & 0xFC) + (offset & 3)

    def behind(self, offset: int) -> tuple[RegisterDevice, int] | None:
        """The function that an access to CONFIG_DATA reaches, and the register, for traces."""
        bus, devfn, register = self._target(offset)
        function = self._bus.function(bus, devfn) if offset >= 4 and self.address & ENABLE else None
        return None if function is None else (function, register)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return REGISTERS.name_of(offset)

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self.address = 0

    def save(self) -> dict[str, object]:
        """State as plain data."""
        return {"version": 1, "address": self.address}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        if state["version"] != 1:
            raise ValueError(f"{self.name}: state of version {state['version']}")
        self.address = state["address"] & ADDRESS_BITS


_SECTION = "PCI 3.0 3.2.2.3.2"

REGISTERS: RegisterMap[ConfigPorts] = RegisterMap(
    "PCI configuration ports",
    Register(
        offset=0,
        name="CONFIG_ADDRESS",
        access=RW,
        meaning="bus, function and dword that CONFIG_DATA is about",
        section=_SECTION,
    ),
    Register(offset=4, name="CONFIG_DATA", access=RW, meaning="that dword, or bytes of it", section=_SECTION),
)


class Ecam:
    """Configuration space as memory: bus << 20 | device and function << 12 | register (PCI Express 3.0 7.2.2).

    There is no extended space: the 256 bytes of a function repeat through its 4 KiB when `mirrored`, else the rest
    is not there. Its reset is the reset of the bus.
    """

    name = "pci-ecam"

    def __init__(self, bus: PciBus, *, size: int = 256 * BUS_STRIDE, mirrored: bool = True) -> None:
        self.size = size
        self._bus = bus
        self._register_bits = 0xFF if mirrored else 0xFFF

    def _target(self, offset: int) -> tuple[int, int, int]:
        return offset >> 20, offset >> 12 & 0xFF, offset & self._register_bits

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        return self._bus.config_read(*self._target(offset), size)

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        self._bus.config_write(*self._target(offset), size, value)

    def behind(self, offset: int) -> tuple[RegisterDevice, int] | None:
        """The function that an access reaches, and the register, for traces."""
        bus, devfn, register = self._target(offset)
        function = self._bus.function(bus, devfn)
        return None if function is None else (function, register)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        found = self.behind(offset)
        return "" if found is None else f"{found[0].name} {found[0].register_name(found[1])}"

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._bus.reset()
