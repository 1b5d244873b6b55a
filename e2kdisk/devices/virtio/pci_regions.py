"""The two regions through which a driver reaches a virtio device over PCI (VIRTIO 1.2 4.1.4).

modern, memory              legacy, I/O
0x0000 common               0x00 legacy registers
0x1000 ISR status           0x14 the device's configuration,
0x2000 device               0x18 with MSI-X enabled
0x3000 notifications
"""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.registers import RegisterMap
from e2kdisk.devices.virtio.pci_registers import COMMON, LEGACY, LEGACY_WITH_VECTORS, STATUS_AT, PciRegisters

PAGE = 0x1000
COMMON_AT = 0x0000
ISR_AT = 0x1000
DEVICE_AT = 0x2000
NOTIFY_AT = 0x3000
MODERN_SIZE = 0x4000
NOTIFY_MULTIPLIER = 4
"""Bytes from one queue's notification address to the next (VIRTIO 1.2 4.1.4.4)."""


class ModernRegion:
    """The structures that the capabilities point to; four pages of memory."""

    size = MODERN_SIZE

    def __init__(self, name: str, registers: PciRegisters) -> None:
        self.name = name
        self._registers = registers

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        registers = self._registers
        if offset < ISR_AT:
            if size == 8:  # two data phases on the bus
                return self.read(offset, 4) | self.read(offset + 4, 4) << 32
            return registers.load_register(COMMON, offset, size)
        if offset == ISR_AT:
            return registers.take_isr()
        if DEVICE_AT <= offset < NOTIFY_AT:
            return registers.device.read_config(offset - DEVICE_AT, size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        registers = self._registers
        if offset >= NOTIFY_AT:
            # The place tells the queue; the value only repeats it without NOTIFICATION_DATA (4.1.5.2).
            registers.device.notify((offset - NOTIFY_AT) // NOTIFY_MULTIPLIER)
        elif offset >= DEVICE_AT:
            registers.device.write_config(offset - DEVICE_AT, size, value)
        elif offset < ISR_AT:
            if size == 8:
                self.write(offset, 4, value & 0xFFFFFFFF)
                self.write(offset + 4, 4, value >> 32)
            else:
                store(registers, COMMON, offset, size, value, legacy=False)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        if offset >= NOTIFY_AT:
            return f"notify {(offset - NOTIFY_AT) // NOTIFY_MULTIPLIER}"
        if offset >= DEVICE_AT:
            return self._registers.device.config_name(offset - DEVICE_AT)
        if offset == ISR_AT:
            return "isr"
        return COMMON.name_of(offset)

    def reset(self) -> None:
        """RegisterDevice.reset: the function does it."""


class LegacyRegion:
    """The registers of transitional devices, in I/O space."""

    def __init__(self, name: str, registers: PciRegisters) -> None:
        self.name = name
        self._registers = registers
        self.size = 1 << (LEGACY_WITH_VECTORS.size + registers.device.config_size - 1).bit_length()

    def _table(self) -> RegisterMap[PciRegisters]:
        return LEGACY_WITH_VECTORS if self._registers.msix_enabled else LEGACY

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        table = self._table()
        if offset >= table.size:
            return self._registers.device.read_config(offset - table.size, size)
        return self._registers.load_register(table, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        table = self._table()
        if offset >= table.size:
            self._registers.device.write_config(offset - table.size, size, value)
        else:
            store(self._registers, table, offset, size, value, legacy=True)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        table = self._table()
        if offset >= table.size:
            return self._registers.device.config_name(offset - table.size)
        return table.name_of(offset)

    def reset(self) -> None:
        """RegisterDevice.reset: the function does it."""


def store(
    registers: PciRegisters, table: RegisterMap[Any], offset: int, size: int, value: int, *, legacy: bool
) -> None:
    """A store by a driver of one generation; a reset is either's to make."""
    if (offset, size, value) == (STATUS_AT[table.name], 1, 0):
        registers.write_status(0)
        registers.speak(legacy=legacy)
    elif registers.speak(legacy=legacy):
        registers.store_register(table, offset, size, value)
