"""IOAPIC: the interrupt controller of an IOHUB, 24 pins that become messages to the CPU (Intel 82093AA, 290566).

A pin's line says whether its interrupt is asserted, not its voltage: the polarity bit is kept, and has no effect. All
inputs of this board are levels; an entry that says edge sends one message each time its pin is asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Register, RegisterMap, W
from e2kdisk.machine.chips.chip import Chip, InputListener

PINS = 24
SIZE = 0x1000
VERSION = 0x20 | (PINS - 1) << 16
"""The first one with a register for the end of an interrupt."""
ID, VERSION_INDEX, ARBITRATION, FIRST_ENTRY = 0x00, 0x01, 0x02, 0x10
# Redirection entry, 64 bits (3.2.4)
VECTOR = 0xFF
REMOTE_IRR = 1 << 14
LEVEL = 1 << 15
MASKED = 1 << 16
WRITABLE = 0xFF00_0000_0001_AFFF


class IoApic(Chip):
    """Levels in, vectors out."""

    STATE = ("_index", "_id", "_level", "_entries")

    def __init__(self, deliver: Callable[[int], None], name: str = "ioapic") -> None:
        """`deliver` takes the vector of an interrupt; the one CPU is every destination."""
        super().__init__(name, SIZE)
        self._deliver = deliver
        self.on_input: InputListener | None = None
        self._level = 0
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset: all pins are masked; the lines belong to the devices."""
        self._index = self._id = 0
        self._entries = [MASKED] * PINS

    def line(self, pin: int) -> IrqLine:
        """The wire into a pin."""
        return IrqLine(partial(self._set_level, pin))

    def _set_level(self, pin: int, level: bool) -> None:
        if self.on_input is not None:
            self.on_input(pin, level)
        # A line that is driven as it was when the machine was saved has not changed.
        rises = level and not self._level >> pin & 1
        self._level = self._level | 1 << pin if level else self._level & ~(1 << pin)
        entry = self._entries[pin]
        if rises and not entry & (LEVEL | MASKED):
            self._deliver(entry & VECTOR)
        self._serve(pin)

    def _serve(self, pin: int) -> None:
        """Send the message of a level that waits; one at a time, until its end is told."""
        entry = self._entries[pin]
        if entry & LEVEL and self._level >> pin & 1 and not entry & (MASKED | REMOTE_IRR):
            self._entries[pin] |= REMOTE_IRR
            self._deliver(entry & VECTOR)

    def end(self, vector: int) -> None:
        """The CPU is done with a vector: what is still asserted is sent again."""
        for pin, entry in enumerate(self._entries):
            if entry & VECTOR == vector & VECTOR and entry & REMOTE_IRR:
                self._entries[pin] &= ~REMOTE_IRR
                self._serve(pin)

    # -- registers --------------------------------------------------------------------------------

    def read_index(self) -> int:
        """IOREGSEL."""
        return self._index

    def write_index(self, value: int) -> None:
        """IOREGSEL."""
        self._index = value & 0xFF

    def read_window(self) -> int:
        """IOWIN: the register that IOREGSEL names."""
        pin, upper = divmod(self._index - FIRST_ENTRY, 2)
        if 0 <= pin < PINS:
            return self._entries[pin] >> 32 * upper & 0xFFFF_FFFF
        return {ID: self._id, VERSION_INDEX: VERSION, ARBITRATION: self._id}.get(self._index, 0)

    def write_window(self, value: int) -> None:
        """IOWIN."""
        pin, upper = divmod(self._index - FIRST_ENTRY, 2)
        if 0 <= pin < PINS:
            mask = 0xFFFF_FFFF << 32 * upper & WRITABLE
            entry = self._entries[pin] & ~mask | value << 32 * upper & mask
            # A level that becomes an edge has nobody left who could end it.
            self._entries[pin] = entry if entry & LEVEL else entry & ~REMOTE_IRR
            self._serve(pin)
        elif self._index == ID:
            self._id = value & 0x0F00_0000


_SECTION = "82093AA 3"

IoApic.registers = RegisterMap(
    "ioapic",
    Register(
        offset=0x00,
        name="IOREGSEL",
        access=RW,
        meaning="names the register that IOWIN is",
        section=f"{_SECTION}.1.1",
        read=IoApic.read_index,
        write=IoApic.write_index,
    ),
    Register(
        offset=0x10,
        name="IOWIN",
        access=RW,
        meaning="0 id, 1 version, 0x10 + 2 * pin: a pin's vector, mode and mask",
        section=f"{_SECTION}.1.2",
        read=IoApic.read_window,
        write=IoApic.write_window,
    ),
    Register(
        offset=0x40,
        name="EOI",
        access=W,
        meaning="ends the interrupt of a vector",
        section="Intel ICH9 316972 10.5",
        write=IoApic.end,
    ),
)
