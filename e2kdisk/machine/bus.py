"""The physical address space: which device answers at which address.

The CPU maps whole pages, devices are smaller and may share one (virtio-mmio slots are 0x200 bytes apart on arm64), so
devices are gathered into page-aligned windows and told apart inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd

from e2kdisk.devices.controller import RegisterDevice
from e2kdisk.errors import UsageError
from e2kdisk.machine.trace import Tracer

PAGE = 0x1000


class Stub:
    """An address range with nothing behind it: every load gives the same bits, stores are lost."""

    def __init__(self, name: str, size: int, ones: bool = True) -> None:
        self.name = name
        self.size = size
        self._ones = ones

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        return (1 << 8 * size) - 1 if self._ones else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return ""

    def reset(self) -> None:
        """RegisterDevice.reset."""


@dataclass
class Window:
    """A page-aligned range and the devices in it."""

    bus: Bus
    base: int
    size: int
    devices: list[tuple[int, RegisterDevice]] = field(default_factory=list)
    _table: list[tuple[int, RegisterDevice] | None] = field(default_factory=list)
    _shift: int = 0

    def prepare(self) -> None:
        """Build the table that finds a device by the upper bits of the offset; again whenever devices come or go."""
        # A device may begin before the window or reach beyond it.
        places = [(base - self.base, device) for base, device in self.devices]
        step = gcd(self.size, *(value for start, device in places for value in (start, device.size)))
        step &= -step
        self._shift = step.bit_length() - 1
        self._table = [None] * (self.size >> self._shift)
        for start, device in places:
            end = min(start + device.size, self.size)
            for index in range(max(start, 0) >> self._shift, end >> self._shift):
                self._table[index] = (start, device)

    def read(self, offset: int, size: int) -> int:
        """IoWindow.read."""
        found = self._table[offset >> self._shift]
        if found is None:
            return self.bus.nobody(self.base + offset, size, None)
        start, device = found
        value = device.read(offset - start, size)
        if self.bus.trace is not None:
            self.bus.report(device, offset - start, size, value, "read")
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """IoWindow.write."""
        found = self._table[offset >> self._shift]
        if found is None:
            self.bus.nobody(self.base + offset, size, value)
            return
        start, device = found
        if self.bus.trace is not None:  # before the device's own events, which are the consequence
            self.bus.report(device, offset - start, size, value, "write")
        device.write(offset - start, size, value)
        if self.bus.after_write is not None:
            self.bus.after_write()


class Bus:
    """Devices by physical address, and the trace of their accesses."""

    def __init__(self) -> None:
        self.devices: dict[int, RegisterDevice] = {}
        self.trace: Tracer | None = None
        self.after_write: Callable[[], None] | None = None
        """Called when a device has taken a store: it may have work that goes on."""
        self.where: Callable[[], dict[str, object]] = dict
        """What the trace says of the instruction that makes the access: pc, disassembly."""

    def add(self, base: int, device: RegisterDevice) -> None:
        """Put a device at an address; refuses overlaps."""
        for other_base, other in self.devices.items():
            if base < other_base + other.size and other_base < base + device.size:
                raise UsageError(f"{device.name} at {base:#x} overlaps {other.name} at {other_base:#x}")
        self.devices[base] = device

    def windows(self) -> list[Window]:
        """The page-aligned ranges that the CPU must send here."""
        windows: list[Window] = []
        for base, device in sorted(self.devices.items()):
            start, end = base & -PAGE, (base + device.size + PAGE - 1) & -PAGE
            if windows and start < windows[-1].base + windows[-1].size:
                window = windows[-1]
                window.size = max(window.size, end - window.base)
            else:
                window = Window(self, start, end - start)
                windows.append(window)
            window.devices.append((base, device))
        for window in windows:
            window.prepare()
        return windows

    def reset(self) -> None:
        """Every device's reset line."""
        for device in self.devices.values():
            device.reset()

    def report(self, device: RegisterDevice, offset: int, size: int, value: int, kind: str) -> None:
        """One access for the trace, by the name of the device that answers behind a window onto another bus."""
        assert self.trace is not None
        while (behind := getattr(device, "behind", None)) is not None and (found := behind(offset)) is not None:
            device, offset = found
        if not self.trace.wants(device.name):
            return
        register = device.register_name(offset) or f"+{offset:#x}"
        self.trace.event(device.name, kind, register=register, value=value, size=size, **self.where())

    def nobody(self, address: int, size: int, value: int | None) -> int:
        """An access between the devices of a page: loads give ones, as from an idle bus."""
        if self.trace is not None:
            kind = "read" if value is None else "write"
            self.trace.event("bus", f"{kind} of nothing", address=address, size=size, **self.where())
        return (1 << 8 * size) - 1
