"""CLINT: the timer and the software interrupt of a RISC-V hart (SiFive FU540-C000 manual, chapter 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, R, Register, RegisterMap
from e2kdisk.machine.chips.chip import Chip

NS_PER_TICK = 100
"""10 MHz, said in the device tree as timebase-frequency."""


class Clint(Chip):
    """One hart's share; time comes from the machine."""

    STATE = ("_compare", "_software")

    def __init__(
        self,
        read_ns: Callable[[], int],
        call_at: Callable[[int, Callable[[], None]], Callable[[], None]],
        timer: IrqLine,
        software: IrqLine,
        name: str = "clint",
    ) -> None:
        super().__init__(name, 0x10000)
        self._read_ns = read_ns
        self._call_at = call_at
        self._cancel: Callable[[], None] | None = None
        self._timer_irq = timer
        self._software_irq = software
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._compare = (1 << 64) - 1
        self._software = 0
        self._arm()
        self._software_irq.set(False)

    def set_software(self, value: int) -> None:
        """Raise or drop the software interrupt."""
        self._software = value & 1
        self._software_irq.set(bool(self._software))

    def set_compare(self, value: int) -> None:
        """When the timer interrupts next."""
        self._compare = value
        self._arm()

    def read_time(self) -> int:
        """Ticks since the start."""
        return self._read_ns() // NS_PER_TICK

    def _arm(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        due_ns = self._compare * NS_PER_TICK
        if due_ns <= self._read_ns():
            self._timer_irq.set(True)
            return
        self._timer_irq.set(False)
        if due_ns < 1 << 63:
            self._cancel = self._call_at(due_ns, self._fire)

    def _fire(self) -> None:
        self._cancel = None
        self._timer_irq.set(True)

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        super().load(state)
        self.set_software(self._software)
        self._arm()


Clint.registers = RegisterMap(
    "clint",
    Register(
        offset=0x0000,
        name="msip",
        access=RW,
        meaning="software interrupt of hart 0",
        section="FU540 9.2",
        read=lambda chip: chip._software,
        write=Clint.set_software,
    ),
    Register(
        offset=0x4000,
        name="mtimecmp",
        access=RW,
        width=8,
        meaning="when the timer of hart 0 interrupts, in ticks",
        section="FU540 9.3",
        read=lambda chip: chip._compare,
        write=Clint.set_compare,
    ),
    Register(
        offset=0xBFF8,
        name="mtime",
        access=R,
        width=8,
        meaning="time in ticks",
        section="FU540 9.3",
        read=Clint.read_time,
    ),
)
