"""What every disk controller offers to whoever plugs it in: registers, guest memory, an interrupt, a trace."""

from __future__ import annotations

from typing import Protocol

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory


class Trace(Protocol):
    """Where devices report what happens: requests, guest mistakes, interrupts."""

    def event(self, source: str, kind: str, **fields: object) -> None:
        """Record one event of a device."""
        ...


class RegisterDevice(Protocol):
    """A block of registers on a bus."""

    name: str
    size: int
    """Bytes of address space."""

    def read(self, offset: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes; never raises for what a guest does."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """A store of 1, 2, 4 or 8 bytes; never raises for what a guest does."""
        ...

    def register_name(self, offset: int) -> str:
        """The register's name for traces, "" if there is none at this offset."""
        ...

    def reset(self) -> None:
        """The board's reset line: drain what is in flight, then the power-on state."""
        ...


class Controller(RegisterDevice, Protocol):
    """A register device that moves data by DMA and interrupts."""

    trace: Trace | None

    @property
    def scheduler(self) -> Scheduler:
        """Where its requests run."""
        ...

    @property
    def disks(self) -> dict[int, Disk]:
        """What it drives, by place: what the trace calls drive where there can be several."""
        ...

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Plug into a machine: called once, before the guest's first access."""
        ...

    def save(self) -> dict[str, object]:
        """Versioned state as plain data; nothing may be in flight."""
        ...

    def load(self, state: dict[str, object]) -> None:
        """Restore what save() gave."""
        ...
