"""A board whose disks are in slots for virtio-mmio, told of in a device tree: QEMU's `virt` machines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.mmio import VirtioMmio
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Board, Drive


class MmioBoard(Board):
    """A board with slots, filled from the lowest address upwards."""

    INTERFACES: ClassVar[tuple[str, ...]] = ("virtio",)
    SLOTS: ClassVar[int]

    def __init__(self, ram_size: int, cpu: str, quirks: Collection[str]) -> None:
        super().__init__(ram_size, cpu, quirks)
        self.slots_taken = 0

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
        slot = self.slots_taken
        if slot >= self.SLOTS:
            raise UsageError(f"board {self.NAME} has {self.SLOTS} slots for disks, and all are taken")
        self.bus.add(self.slot_base(slot), controller)
        memory = self.wiring.memory(controller.name, self.cpu.memory)
        controller.connect(memory, self.wiring.irq(controller.name, self.slot_irq(slot)))
        self.controllers.append(controller)
        self.slots_taken += 1
        return slot

    def plug_disks(self, drives: Sequence[Drive], *, virtio_version: int = 2) -> None:
        """Board.plug_disks."""
        for number, drive in enumerate(drives):
            device = VirtioBlk(drive.disk)
            device.name = f"virtio-blk{number}"
            self.plug_disk(device, drive.interface, legacy=virtio_version == 1)

    def plug_disk(self, device: VirtioBlk, interface: str, *, legacy: bool) -> None:
        """Put a transport in front of a disk; for boards that have more than one."""
        self.plug(VirtioMmio(device, legacy=legacy))
