"""Emulator: the machine that tests drive, and its drives; what happens to it as a whole is told as events."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.exports.qtest.address_space import AddressSpace
from e2kdisk.exports.qtest.clock import SteppedClock
from e2kdisk.exports.qtest.drives import Drives
from e2kdisk.exports.qtest.wires import Wires
from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.machine import Machine

Event = Callable[[str, dict[str, object] | None], None]
"""Told of what QMP calls an event: its name, its data."""


class Emulator:
    """One machine, or none at all (-machine none), whose CPU never runs."""

    def __init__(
        self,
        machine: Machine | None,
        wires: Wires,
        drives: Drives,
        *,
        running: bool = True,
        off_ends: bool = True,
    ) -> None:
        """Takes over machine and drives.

        `running` is only said, as by -S; off_ends: that the guest switches itself off ends everything.
        """
        self.machine = machine
        self.wires = wires
        self.drives = drives
        self.scheduler = scheduler = drives.scheduler
        self.space = AddressSpace(None if machine is None else machine.board)
        self.clock = SteppedClock(scheduler)
        self.status = "running" if running else "prelaunch"
        """A RunState of QMP."""
        self.ended = False
        """Somebody wants the program to end."""
        self.listeners: list[Event] = []
        self._off_ends = off_ends
        if machine is not None:
            machine.time.still = True
            wires.board = machine.board

    @property
    def running(self) -> bool:
        """Whether QMP says so."""
        return self.status == "running"

    def tell(self, event: str, data: dict[str, object] | None = None) -> None:
        """Send an event to everybody who listens."""
        for listener in self.listeners:
            listener(event, data)

    def go_on(self) -> None:
        """Carry out what a command has started: requests that wait for the host, a device's wish to switch off."""
        if self.scheduler.tasks:
            self.scheduler.settle()
        if self.machine is None:
            return
        match self.machine.cpu.take_stop_reason():
            case Reason.RESET:
                self.reset(guest=True, reason="guest-reset")
            case Reason.POWER_OFF:
                self.tell("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
                self.status = "shutdown"
                self.ended = self.ended or self._off_ends

    def reset(self, *, guest: bool, reason: str) -> None:
        """Reset the machine; disks keep their content."""
        if self.machine is not None:
            self.machine.reset()
        self.tell("RESET", {"guest": guest, "reason": reason})

    def stop(self) -> None:
        """Say that the guest does not run."""
        if self.running:
            self.status = "paused"
            self.tell("STOP")

    def cont(self) -> None:
        """Say that the guest runs."""
        if not self.running:
            self.status = "running"
            self.tell("RESUME")

    def end(self, reason: str) -> None:
        """Somebody wants this program to end: host-qmp-quit, host-signal."""
        if not self.ended:
            self.ended = True
            self.tell("SHUTDOWN", {"guest": False, "reason": reason})

    def close(self) -> None:
        """Finish what is in flight and close the disks. Raises OSError, ImageError, after everything is closed."""
        try:
            if self.machine is not None:
                self.machine.close()
        finally:
            self.drives.close()
