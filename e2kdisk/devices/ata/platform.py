"""A channel as plain memory-mapped registers (the "ata-generic" of device trees, CompactFlash in true IDE mode).

Register n of the command block is at n * stride, the control block at 14 * stride unless said otherwise. A register
is one byte wherever the access is wider than that; the data port takes 2 and 4 bytes.
"""

from __future__ import annotations

from typing import Any

from e2kdisk.block.disk import Disk
from e2kdisk.devices.ata.channel import AtaChannel
from e2kdisk.devices.ata.device import AtaDevice
from e2kdisk.devices.ata.plug import plugged
from e2kdisk.devices.ata.registers import COMMAND_BLOCK, CONTROL_BLOCK
from e2kdisk.devices.controller import Trace
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.errors import UsageError


class AtaPlatform:
    """Two drives at most behind a block of registers; a Controller."""

    def __init__(
        self, *disks: Disk | AtaDevice | None, stride: int = 1, control: int | None = None, name: str = "ata"
    ) -> None:
        """Device 0 first. stride and control are bytes."""
        if stride not in (1, 2, 4, 8, 16):
            raise UsageError(f"{name}: register stride {stride}; it is 1, 2, 4, 8 or 16 bytes")
        self.name = name
        self._stride = stride
        self._control = 14 * stride if control is None else control
        if self._control < 8 * stride:
            raise UsageError(f"{name}: the control block at {self._control} lies in the command block")
        self.size = self._control + stride
        drives, self.scheduler = plugged(name, disks)
        self.channel = AtaChannel(drives, name=name)

    # -- Controller -------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace | None:
        """The channel's."""
        return self.channel.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self.channel.trace = trace

    @property
    def disks(self) -> dict[int, Disk]:
        """Controller.disks."""
        return self.channel.disks

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Controller.connect."""
        self.channel.connect(memory, irq)

    def read(self, offset: int, size: int) -> int:
        """Controller.read."""
        if offset == self._control:
            return self.channel.control.read(0, 1)
        index, inside = divmod(offset, self._stride)
        if index > 7 or inside:
            return 0
        return self.channel.read(index, 1 if index and self._stride > 1 else size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Controller.write."""
        if offset == self._control:
            self.channel.control.write(0, 1, value)
            return
        index, inside = divmod(offset, self._stride)
        if index <= 7 and not inside:
            self.channel.write(index, 1 if index and self._stride > 1 else size, value)

    def register_name(self, offset: int) -> str:
        """Controller.register_name."""
        if offset == self._control:
            return CONTROL_BLOCK.name_of(0)
        index, inside = divmod(offset, self._stride)
        return "" if inside else COMMAND_BLOCK.name_of(index)

    def reset(self) -> None:
        """Controller.reset."""
        self.channel.reset()

    def resume(self) -> None:
        """Make requests again that the error policy has parked."""
        self.channel.resume()

    def save(self) -> dict[str, object]:
        """Controller.save."""
        return {"version": 1, "controller": "ata-platform", "channel": self.channel.save()}

    def load(self, state: dict[str, Any]) -> None:
        """Controller.load."""
        if (state["version"], state["controller"]) != (1, "ata-platform"):
            raise ValueError(f"{self.name}: this state is of another controller or version")
        self.channel.load(state["channel"])
