"""Virtio over MMIO: one page of registers in front of any virtio device (VIRTIO 1.2 4.2).

Version 2 is the specification's; version 1 ("legacy", 4.2.4) is what older firmware speaks: queues by page
number, no FEATURES_OK, the same registers otherwise.
"""

from __future__ import annotations

from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.devices.controller import Trace
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.devices.registers import W
from e2kdisk.devices.virtio.device import VirtioDevice
from e2kdisk.devices.virtio.mmio_registers import LEGACY, MODERN, MmioRegisters
from e2kdisk.devices.virtio.transport import LEGACY_PAGE_SIZE, RegisterMistake

CONFIG = 0x100
"""Where the device's configuration space begins (VIRTIO 1.2 4.2.2)."""


class VirtioMmio(MmioRegisters):
    """A virtio device as a block of registers on a bus; a Controller."""

    size = 0x200

    def __init__(self, device: VirtioDevice, *, legacy: bool = False) -> None:
        super().__init__(device)
        self.legacy = legacy
        self.name = device.name
        self.registers = LEGACY if legacy else MODERN
        self._at = self.registers.at
        device.choose_era(legacy=legacy)
        device.reset()

    # -- Controller -------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Scheduler:
        """The device's."""
        return self.device.scheduler

    @property
    def disks(self) -> dict[int, Disk]:
        """Controller.disks."""
        return self.device.disks

    @property
    def trace(self) -> Trace | None:
        """The device's: transport and device report to the same place."""
        return self.device.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self.device.trace = trace

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Controller.connect."""
        self.device.plug(memory)
        self._irq = irq

    def reset(self) -> None:
        """Controller.reset."""
        self.device.reset()
        self._clear()
        self._page_size = LEGACY_PAGE_SIZE

    def register_name(self, offset: int) -> str:
        """Controller.register_name."""
        return self.device.config_name(offset - CONFIG) if offset >= CONFIG else self.registers.name_of(offset)

    def read(self, offset: int, size: int) -> int:
        """Controller.read."""
        register = self._at.get(offset)
        if register is not None and size == 4 and register.access is not W:
            return register.reset if register.read is None else register.read(self)
        if offset >= CONFIG:
            return self.device.read_config(offset - CONFIG, size)
        self.report_access(self.registers, offset, size, RegisterMistake.WRITE_ONLY)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Controller.write."""
        # One frame less than store_register: every request comes through here.
        register = self._at.get(offset)
        if register is not None and size == 4 and register.write is not None:
            register.write(self, value & 0xFFFFFFFF)
        elif offset >= CONFIG:
            self.device.write_config(offset - CONFIG, size, value)
        else:
            self.report_access(self.registers, offset, size, RegisterMistake.READ_ONLY)

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """Controller.save."""
        return {
            "version": 1,
            "transport": "virtio-mmio",
            "legacy": self.legacy,
            "page_size": self._page_size,
            "align": list(self._align),
            **self.save_registers(),
            "device": self.device.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Controller.load."""
        if (state["version"], state["transport"], state["legacy"]) != (1, "virtio-mmio", self.legacy):
            raise ValueError(f"{self.name}: this state is of another transport or version")
        self.load_registers(state)
        self._page_size = state["page_size"]
        self._align = list(state["align"])
        self.device.load(state["device"])
        self._irq.set(self._interrupt_status != 0)
