"""A board whose disks are in slots for virtio-mmio, told of in a device tree: QEMU's `virt` machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.mmio import VirtioMmio
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Board, Drive


class MmioBoard(Board):
    """A board with slots, filled from the lowest address upwards."""

    INTERFACES = ("virtio",)
    SLOTS: ClassVar[int]

    def slot_base(self, slot: int) -> int:
        """Address of a slot."""
        raise NotImplementedError

    def slot_irq(self, slot: int) -> IrqLine:
        """Interrupt wire of a slot."""
        raise NotImplementedError

    def device_tree(self) -> bytes:
        """What the firmware is told of this board."""
        raise NotImplementedError

    def plug(self, controller: Controller) -> int:
        """Board.plug: its slot."""
        slot = len(self.controllers)
        if slot >= self.SLOTS:
            raise UsageError(f"board {self.NAME} has {self.SLOTS} slots for disks, and all are taken")
        self.bus.add(self.slot_base(slot), controller)
        memory = self.wiring.memory(controller.name, self.cpu.memory)
        controller.connect(memory, self.wiring.irq(controller.name, self.slot_irq(slot)))
        self.controllers.append(controller)
        return slot

    def plug_disks(self, drives: Sequence[Drive], *, virtio_version: int = 2) -> None:
        """Board.plug_disks."""
        for number, drive in enumerate(drives):
            device = VirtioBlk(drive.disk)
            device.name = f"virtio-blk{number}"
            self.plug(VirtioMmio(device, legacy=virtio_version == 1))
