"""The bus: functions by slot, their configuration space, and the windows through which a host reaches their regions."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.devices.pci.function import PciFunction
from e2kdisk.devices.pci.window import PciWindow

IO_SIZE = 0x1_0000
"""Bytes of I/O space."""


class PciBus:
    """Bus 0; a host bridge gives it to the CPU as ConfigPorts or Ecam, and as windows.

    Where two functions claim one address, the lower slot has it; a fixed device of the window comes before both.
    """

    def __init__(self, *, memory: tuple[int, int]) -> None:
        """Memory is the window for 32-bit addresses: the bus's address of its first byte, and its size in bytes.

        A host that shows bus address A at A, with its window at B, says (B, size); one that shows it at B + A (as
        qemu-e2k does) says (0, size).
        """
        self.functions: dict[int, PciFunction] = {}
        """By device number << 3 | function number."""
        self.memory = PciWindow("pci-memory", "memory", *memory)
        self.io = PciWindow("pci-io", "io", 0, IO_SIZE)
        self._windows = [self.memory, self.io]
        self.on_message: Callable[[int, int], None] | None = None
        """Takes message-signalled interrupts (address, data); without it they are lost, as on a board that has none."""

    def add_window(self, name: str, base: int, size: int) -> PciWindow:
        """Make another window onto memory space, for addresses above 4 GiB say."""
        window = PciWindow(name, "memory", base, size)
        self._windows.append(window)
        self.claims_changed()
        return window

    def add(self, devfn: int, function: PciFunction) -> None:
        """Put a function into a slot. Raises ValueError if that is taken, or is no slot."""
        if not 0 <= devfn < 256 or devfn in self.functions:
            raise ValueError(f"{function.name}: slot {devfn >> 3:02x}.{devfn & 7} is taken, or there is none")
        self.functions[devfn] = function
        self.functions = dict(sorted(self.functions.items()))
        slot = [other for number, other in self.functions.items() if number >> 3 == devfn >> 3]
        # Function 0 may be missing: a scan then finds the others only by looking at every one.
        if len(slot) > 1 or devfn & 7:
            for other in slot:
                other.set_multifunction()
        function.bus = self
        self.claims_changed()

    # -- for the host -----------------------------------------------------------------------------

    def function(self, bus: int, devfn: int) -> PciFunction | None:
        """The function at an address of configuration space."""
        return self.functions.get(devfn) if bus == 0 else None

    def config_read(self, bus: int, devfn: int, offset: int, size: int) -> int:
        """Read configuration space; where there is no function, all ones (PCI 3.0 6.1)."""
        function = self.function(bus, devfn)
        return (1 << 8 * size) - 1 if function is None else function.read_config(offset, size)

    def config_write(self, bus: int, devfn: int, offset: int, size: int, value: int) -> None:
        """Write configuration space."""
        function = self.function(bus, devfn)
        if function is not None:
            function.write_config(offset, size, value)

    def reset(self) -> None:
        """The reset line of the bus."""
        for function in self.functions.values():
            function.reset()

    # -- for functions ----------------------------------------------------------------------------

    def claims_changed(self) -> None:
        """Host.claims_changed: decode anew."""
        claims = [claim for function in self.functions.values() for claim in function.claims()]
        for window in self._windows:
            window.set_claims(claims)

    def message(self, address: int, data: int) -> None:
        """Host.message."""
        if self.on_message is not None:
            self.on_message(address, data)
