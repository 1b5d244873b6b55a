"""A PCI host bridge that firmware learns of from the device tree (`pci-host-ecam-generic`), as on QEMU's `virt`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.pci import Ecam, Identity, PciBus, PciFunction, WiredOr, swizzle
from e2kdisk.devices.pci.bus import IO_SIZE
from e2kdisk.devices.pci.interrupt import PINS
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.tree import Tree, cells
from e2kdisk.machine.bus import Bus

DEVICES = 32
"""Slots of a bus; the host bridge itself is in the first."""
HOST_BRIDGE = Identity(vendor=0x1B36, device=0x0008, class_code=0x0600)
"""As on QEMU's `virt`: firmware may look for it."""

# Address spaces in the first cell of `ranges` (PCI Bus Binding to IEEE 1275, 2.2.1.1)
IO_RANGE = 0x0100_0000
MEMORY_RANGE = 0x0200_0000
MEMORY64_RANGE = 0x0300_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class PciMap:
    """Where a board has its windows onto PCI, as (address, bytes); memory is 1:1."""

    config: tuple[int, int]
    memory: tuple[int, int]
    high_memory: tuple[int, int]
    io: int


class PciHost:
    """Bus 0 with its windows on the machine's bus, and the four shared interrupt wires."""

    def __init__(self, bus: Bus, where: PciMap, wires: Sequence[IrqLine]) -> None:
        self.where = where
        self.pci = PciBus(memory=where.memory)
        self._wires = [WiredOr(wire) for wire in wires]
        bus.add(where.config[0], Ecam(self.pci, size=where.config[1], mirrored=False))
        bus.add(where.memory[0], self.pci.memory)
        bus.add(where.high_memory[0], self.pci.add_window("pci-high", *where.high_memory))
        bus.add(where.io, self.pci.io)
        self.bridge = PciFunction("pci-host", HOST_BRIDGE)
        self.pci.add(0, self.bridge)

    def plug(self, function: PciFunction, place: int | None = None) -> tuple[int, IrqLine]:
        """Put a function into a slot, the next free one unless said; its number, and the line for its pin.

        Raises UsageError.
        """
        free = [slot for slot in range(DEVICES) if slot << 3 not in self.pci.functions]
        if not free:
            raise UsageError(f"{function.name}: the PCI bus has {DEVICES} slots, and all are taken")
        if place is not None and place not in free:
            raise UsageError(f"{function.name}: slot {place} of the PCI bus is not free")
        slot = free[0] if place is None else place
        self.pci.add(slot << 3, function)
        return slot, self._wires[swizzle(slot << 3, function.interrupt_pin or 1)].line()

    def node(self, interrupts: Sequence[Sequence[int]], controller: int) -> dict[str, Tree]:
        """The node of the device tree; interrupts are the cells of each wire, as the interrupt controller reads them.

        The controller, known by its phandle, has addresses of two cells.
        """
        where = self.where
        swizzled = [
            [slot << 11, 0, 0, pin, controller, 0, 0, *interrupts[swizzle(slot << 3, pin)]]
            for slot in range(PINS)
            for pin in range(1, PINS + 1)
        ]
        return {
            f"pcie@{where.memory[0]:x}": {
                "compatible": "pci-host-ecam-generic",
                "device_type": "pci",
                "#address-cells": 3,
                "#size-cells": 2,
                "#interrupt-cells": 1,
                "linux,pci-domain": 0,
                "bus-range": [0, (where.config[1] >> 20) - 1],
                "reg": cells(*where.config),
                "ranges": [
                    *(IO_RANGE, *cells(0, where.io, IO_SIZE)),
                    *(MEMORY_RANGE, *cells(where.memory[0], *where.memory)),
                    *(MEMORY64_RANGE, *cells(where.high_memory[0], *where.high_memory)),
                ],
                "interrupt-map-mask": [(PINS - 1) << 11, 0, 0, 7],
                "interrupt-map": [cell for entry in swizzled for cell in entry],
                "dma-coherent": None,
            }
        }
