"""A board whose disks are in slots for virtio-mmio, told of in a device tree: QEMU's `virt` machines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.mmio import VirtioMmio
from e2kdisk.devices.virtio.mmio_registers import MAGIC, VENDOR
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Board, Drive
from e2kdisk.machine.bus import Stub


class EmptySlot(Stub):
    """A transport whose device id is 0: drivers that look find nothing (VIRTIO 1.2 4.2.2)."""

    def __init__(self, name: str, size: int, version: int) -> None:
        super().__init__(name, size, ones=False)
        self._words = {0x000: MAGIC, 0x004: version, 0x00C: VENDOR}

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        return self._words.get(offset, 0) & (1 << 8 * size) - 1


class MmioBoard(Board):
    """A board with slots, filled from the lowest address upwards."""

    INTERFACES: ClassVar[tuple[str, ...]] = ("virtio",)
    SLOTS: ClassVar[int]

    def __init__(self, ram_size: int, cpu: str, quirks: Collection[str]) -> None:
        super().__init__(ram_size, cpu, quirks)
        self.slots: dict[int, Controller] = {}
        """Slot -> what is plugged in."""
        self._virtio_version = 2

    def slot_base(self, slot: int) -> int:
        """Address of a slot."""
        raise NotImplementedError

    def slot_irq(self, slot: int) -> IrqLine:
        """Interrupt wire of a slot."""
        raise NotImplementedError

    def device_tree(self) -> bytes:
        """What the firmware is told of this board."""
        raise NotImplementedError

    def plug(self, controller: Controller, place: int | None = None) -> int:
        """Board.plug: its slot."""
        free = [slot for slot in range(self.SLOTS) if slot not in self.slots]
        if not free:
            raise UsageError(f"board {self.NAME} has {self.SLOTS} slots for disks, and all are taken")
        if place is not None and place not in free:
            raise UsageError(f"board {self.NAME} has no free slot {place} for {controller.name}")
        slot = free[0] if place is None else place
        self.bus.add(self.slot_base(slot), controller)
        memory = self.wiring.memory(controller.name, self.cpu.memory)
        controller.connect(memory, self.wiring.irq(controller.name, self.slot_irq(slot)))
        self.controllers.append(controller)
        self.slots[slot] = controller
        return slot

    def fill_slots(self, size: int) -> None:
        """Put transports without a device, of so many bytes, into the slots that are free."""
        for slot in range(self.SLOTS):
            if slot not in self.slots:
                self.bus.add(self.slot_base(slot), EmptySlot(f"empty-slot{slot}", size, self._virtio_version))

    def plug_disks(self, drives: Sequence[Drive], *, virtio_version: int = 2) -> None:
        """Board.plug_disks."""
        self._virtio_version = virtio_version
        for number, drive in enumerate(drives):
            device = VirtioBlk(drive.disk)
            device.name = f"virtio-blk{number}"
            self.plug_disk(device, drive.interface, legacy=virtio_version == 1)

    def plug_disk(self, device: VirtioBlk, interface: str, *, legacy: bool) -> None:
        """Put a transport in front of a disk; for boards that have more than one."""
        self.plug(VirtioMmio(device, legacy=legacy))
