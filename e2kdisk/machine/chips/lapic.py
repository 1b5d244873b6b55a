"""Local APIC of an Elbrus: vectors in, one interrupt line out (Intel SDM 3A 10.8, registers of Linux/e2k apicdef.h).

The part that carries interrupts of devices: priorities, acceptance, end. A CPU without an interrupt acknowledge cycle
takes the vector by reading VECT, as Linux/e2k does: from then on it is in service, until EOI. The timer, local inputs
and messages to other CPUs are absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.machine.chips.chip import Chip

SIZE = 0x10_0000
"""The window: messages of devices go to any address in it."""
WORDS = 8
FIRST_VECTOR = 16
"""Vectors below are reserved."""
BOOT_CPU = 0x900
"""BSP: this is the CPU that boots, and its APIC is on."""
VERSION = 0x0003_0010
ENABLED = 1 << 8
"""Of SPIV: the software switch."""
PRIORITY = 0xF0
"""Of a vector: the upper half is its priority."""


class LocalApic(Chip):
    """The interrupts of one CPU."""

    STATE = ("_id", "_logical", "_format", "_task_priority", "_spurious", "_waiting", "_served")

    def __init__(self, output: IrqLine, name: str = "lapic") -> None:
        super().__init__(name, SIZE)
        self._output = output
        self.on_end: Callable[[int], None] = lambda vector: None
        """Told the vector of every interrupt that is over: the message that it sends to IOAPICs."""
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset: switched off by SPIV (10.4.7.1)."""
        self._id = self._logical = self._task_priority = 0
        self._format = 0xFFFF_FFFF
        self._spurious = 0xFF
        self._waiting = self._served = 0
        self._update()

    def accept(self, vector: int) -> None:
        """A message: one bit a vector, so that a second one before the first is served is the same."""
        if self._spurious & ENABLED and FIRST_VECTOR <= vector < 256:
            self._waiting |= 1 << vector
            self._update()

    def _best(self) -> int:
        """The vector to serve now, 0 for none (10.8.3.1)."""
        vector = self._waiting.bit_length() - 1
        return vector if vector >= 0 and vector & PRIORITY > self.read_priority() & PRIORITY else 0

    def _update(self) -> None:
        self._output.set(bool(self._best()))

    # -- registers --------------------------------------------------------------------------------

    def take(self) -> int:
        """VECT: the vector to serve, which is in service from now on; the spurious one if there is none."""
        vector = self._best()
        if not vector:
            return self._spurious & 0xFF
        self._waiting &= ~(1 << vector)
        self._served |= 1 << vector
        self._update()
        return vector

    def end(self, value: int) -> None:
        """EOI: the vector that was taken last is over."""
        vector = self._served.bit_length() - 1
        if vector >= 0:
            self._served &= ~(1 << vector)
            self._update()
            self.on_end(vector)

    def read_priority(self) -> int:
        """PROCPRI: the task's priority, or that of the vector in service."""
        served = max(self._served.bit_length() - 1, 0)
        return self._task_priority if self._task_priority & PRIORITY >= served & PRIORITY else served & PRIORITY

    def set(self, attribute: str, value: int) -> None:
        """A register that is kept."""
        setattr(self, attribute, value)
        self._update()

    def word(self, attribute: str, number: int) -> int:
        """32 of 256 bits, one a vector."""
        return int(getattr(self, attribute)) >> 32 * number & 0xFFFF_FFFF

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        super().load(state)
        self._update()


def _reg(offset: int, name: str, access: Access, meaning: str, section: str, **more: Any) -> Register[LocalApic]:
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=section, **more)


def _kept(offset: int, name: str, attribute: str, mask: int, meaning: str, section: str) -> Register[LocalApic]:
    def read(chip: LocalApic) -> int:
        return int(getattr(chip, attribute))

    def write(chip: LocalApic, value: int) -> None:
        chip.set(attribute, value & mask)

    return _reg(offset, name, RW, meaning, f"SDM 3A {section}", read=read, write=write)


def _bits(offset: int, name: str, attribute: str, meaning: str) -> list[Register[LocalApic]]:
    def word(number: int) -> Register[LocalApic]:
        def read(chip: LocalApic) -> int:
            return chip.word(attribute, number)

        return _reg(offset + 0x10 * number, f"{name}{number}", R, meaning, "SDM 3A 10.8.4", read=read)

    return [word(number) for number in range(WORDS)]


LocalApic.registers = RegisterMap(
    "lapic",
    _reg(0x010, "BSP", R, "whether this CPU boots", "Linux/e2k apicdef.h", reset=BOOT_CPU),
    _kept(0x020, "ID", "_id", 0xFF00_0000, "number of this CPU", "10.4.6"),
    _reg(0x030, "LVR", R, "version", "SDM 3A 10.4.8", reset=VERSION),
    _kept(0x080, "TASKPRI", "_task_priority", 0xFF, "only vectors of higher priority interrupt", "10.8.3.1"),
    _reg(0x0A0, "PROCPRI", R, "priority of what runs", "SDM 3A 10.8.3.1", read=LocalApic.read_priority),
    _reg(0x0B0, "EOI", W, "ends the interrupt in service", "SDM 3A 10.8.5", write=LocalApic.end),
    _kept(0x0D0, "LDR", "_logical", 0xFF00_0000, "logical number of this CPU", "10.6.2.2"),
    _kept(0x0E0, "DFR", "_format", 0xFFFF_FFFF, "format of logical numbers", "10.6.2.2"),
    _kept(0x0F0, "SPIV", "_spurious", 0x11FF, "switch, vector if there is none to serve", "10.9"),
    *_bits(0x100, "ISR", "_served", "vectors in service"),
    *_bits(0x200, "IRR", "_waiting", "vectors that wait"),
    _reg(0xFF0, "VECT", R, "takes the vector to serve", "Linux/e2k apicdef.h", read=LocalApic.take),
)
