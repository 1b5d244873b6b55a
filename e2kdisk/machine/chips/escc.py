"""ESCC: the two serial ports of an Elbrus, a Z85C30 (Zilog UM010903) reached byte by byte.

    +0 control A   +1 data A   (console 0 of Linux)
    +2 control B   +3 data B   (console 1)

A channel has sixteen registers behind its control port: a store there names one, the next access reaches it. What is
sent is sent at once. Nothing is received before the guest has enabled the receiver: typed text waits outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Register, RegisterMap
from e2kdisk.machine.chips.chip import Chip, SerialPort

WAITING = 64
"""So many looks at the status without a byte sent or received mean that the guest waits for input."""
# RR0, and RR1: everything is sent, the residue code of whole bytes
RX_AVAILABLE = 1 << 0
TX_EMPTY = 1 << 2
CONNECTED = 1 << 5 | 1 << 3
TX_UNDERRUN = 1 << 6
ALL_SENT = 0b0111
# RR3 of channel A: its own pending interrupts are three bits above those of channel B
TX_PENDING = 1 << 1
RX_PENDING = 1 << 2
# RR2 of channel B: the reason, of which bit 2 says that it is channel A's
REASON_TX, REASON_RX, REASON_NONE = 0b000, 0b010, 0b011
# WR0: commands in bits 5..3
POINT_HIGH = 1
RESET_TX_INTERRUPT = 5
# WR1
TX_INTERRUPT = 1 << 1
RX_INTERRUPT = 3 << 3
"""Modes: never, first byte, every byte, special conditions only (there are none)."""
RX_ON_DATA = (1 << 3, 2 << 3)
# WR3, WR5, WR14
RX_ENABLE = 1 << 0
TX_ENABLE = 1 << 3
LOOPBACK = 1 << 4
# WR9: a reset command in the upper two bits
MASTER_ENABLE = 1 << 3
STATUS_HIGH = 1 << 4
RESETS: dict[int, tuple[int, ...]] = {0: (), 1: (1,), 2: (0,), 3: (0, 1)}
"""Which channels a reset command is for."""


class Channel(SerialPort):
    """One serial port. As a RegisterDevice it is its sixteen registers, by number: RRn to read, WRn to write."""

    FIFO = 8
    STATE = ("_received", "_written", "_sent", "pointer", "_looks")

    def __init__(self, name: str, chip: Escc) -> None:
        super().__init__(name, 16)
        self._chip = chip
        self.pointer = 0
        """The register that the next access of the control port reaches."""
        self.reset()

    def reset(self) -> None:
        """A channel's reset: silent, no interrupts (UM010903 2.9)."""
        self._received = []
        self._written = [0] * 16
        self._sent = False
        self._looks = 0
        self.pointer = 0
        self._changed()

    def _changed(self) -> None:
        self._chip.update()

    def refill(self) -> None:
        """SerialPort.refill: nothing arrives before the receiver is enabled."""
        if self._written[3] & RX_ENABLE:
            super().refill()

    # -- the two ports ----------------------------------------------------------------------------

    def read_control(self) -> int:
        """The register that was named, else RR0."""
        number, self.pointer = self.pointer, 0
        return self.read(number, 1)

    def write_control(self, value: int) -> None:
        """The register that was named, else WR0."""
        number, self.pointer = self.pointer, 0
        self.write(number, 1, value)

    def read_data(self) -> int:
        """RR8: take a received byte."""
        self._looks = 0
        return self._pop()

    def write_data(self, value: int) -> None:
        """WR8: send a byte; lost unless the transmitter is enabled."""
        self._looks = 0
        if not self._written[5] & TX_ENABLE:
            return
        if not self._written[14] & LOOPBACK:
            self.line.put(value)
        elif len(self._received) < self.FIFO:
            self._received.append(value)
        self._sent = True
        self._changed()

    # -- registers --------------------------------------------------------------------------------

    def command(self, value: int) -> None:
        """WR0: name a register, or give a command."""
        command = value >> 3 & 7
        self.pointer = value & 7 | (8 if command == POINT_HIGH else 0)
        if command == RESET_TX_INTERRUPT:
            self._sent = False
            self._changed()

    def store(self, number: int, value: int) -> None:
        """Keep what is written to a register; what it changes is looked up when it matters."""
        self._written[number] = value
        self._changed()

    def stored(self, number: int) -> int:
        """What was written to a register."""
        return self._written[number]

    def read_status(self) -> int:
        """RR0."""
        if not self._received:
            self.refill()
        self._looks += 1
        if self._looks > WAITING and not self._received:
            self.on_waiting()
        return TX_EMPTY | TX_UNDERRUN | CONNECTED | (RX_AVAILABLE if self._received else 0)

    def read_vector(self) -> int:
        """RR2: the vector; through channel B it tells the reason."""
        return self._chip.read_vector(self)

    def write_vector(self, value: int) -> None:
        """WR2, the same register in both channels."""
        self._chip.vector = value

    def write_master(self, value: int) -> None:
        """WR9, the same register in both channels."""
        self._chip.write_master(value)

    def read_pending(self) -> int:
        """RR3, in channel A only."""
        return self._chip.read_pending(self)

    @property
    def pending(self) -> int:
        """The interrupts that wait, as RR3 shows those of channel B."""
        enabled = self._written[1]
        transmitted = self._sent and enabled & TX_INTERRUPT
        received = self._received and enabled & RX_INTERRUPT in RX_ON_DATA
        return (TX_PENDING if transmitted else 0) | (RX_PENDING if received else 0)


class Escc(Chip):
    """Both channels, the registers that they share, and one interrupt."""

    STATE = ("vector", "_master")

    def __init__(self, irq: IrqLine, name: str = "escc") -> None:
        super().__init__(name, 4)
        self._irq = irq
        self.vector = 0
        self._master = 0
        self.channels: tuple[Channel, ...] = ()
        self.channels = Channel("ttyS0", self), Channel("ttyS1", self)

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self.vector = self._master = 0
        for channel in self.channels:
            channel.reset()

    def update(self) -> None:
        """Drive the interrupt."""
        pending = any(channel.pending for channel in self.channels)
        self._irq.set(pending and bool(self._master & MASTER_ENABLE))

    def write_master(self, value: int) -> None:
        """WR9: interrupts on or off, reset of one or both channels."""
        self._master = value & 0x3F
        for number in RESETS[value >> 6]:
            self.channels[number].reset()
        self.update()

    def read_pending(self, asking: Channel) -> int:
        """RR3; zero through channel B."""
        a, b = self.channels
        return a.pending << 3 | b.pending if asking is a else 0

    def read_vector(self, asking: Channel) -> int:
        """RR2: through channel B, bits 3..1 or 6..4 are the reason of the interrupt (UM010903 table 4-9)."""
        a, b = self.channels
        if asking is a:
            return self.vector
        reason = REASON_NONE
        for channel, base in ((a, 0b100), (b, 0)):
            if channel.pending:
                reason = base | (REASON_RX if channel.pending & RX_PENDING else REASON_TX)
                break
        if self._master & STATUS_HIGH:
            reversed_reason = (reason & 1) << 2 | reason & 2 | reason >> 2
            return self.vector & ~0x70 | reversed_reason << 4
        return self.vector & ~0x0E | reason << 1

    def save(self) -> dict[str, object]:
        """State as plain data."""
        return super().save() | {"channels": [channel.save() for channel in self.channels]}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        super().load(state)
        for channel, saved in zip(self.channels, state["channels"], strict=True):
            channel.load(saved)
        self.update()


# -- the tables -------------------------------------------------------------------------------------

Reader = Callable[[Channel], int]
Writer = Callable[[Channel, int], None]


def _kept(number: int) -> Writer:
    return lambda channel, value: channel.store(number, value)


def _stored(number: int) -> Reader:
    return lambda channel: channel.stored(number)


def _all_sent(channel: Channel) -> int:
    return ALL_SENT


def _number(number: int, write: Writer, read: Reader, meaning: str, section: str) -> Register[Channel]:
    name = f"WR{number}/RR{number}"
    section = f"UM010903 {section}"
    return Register(
        offset=number, name=name, access=RW, width=1, meaning=meaning, section=section, read=read, write=write
    )


Channel.registers = RegisterMap(
    "escc channel",
    # Numbers that no register answers to when they are read give the one that shares their lower bits (table 4-1).
    _number(0, Channel.command, Channel.read_status, "commands; status", "4.2.1, 4.3.1"),
    _number(1, _kept(1), _all_sent, "which interrupts; special conditions", "4.2.2, 4.3.2"),
    _number(2, Channel.write_vector, Channel.read_vector, "interrupt vector", "4.2.3, 4.3.3"),
    _number(3, _kept(3), Channel.read_pending, "receiver; pending interrupts", "4.2.4, 4.3.4"),
    _number(4, _kept(4), Channel.read_status, "parity and stop bits", "4.2.5"),
    _number(5, _kept(5), _all_sent, "transmitter", "4.2.7"),
    _number(6, _kept(6), Channel.read_vector, "sync character", "4.2.8"),
    _number(7, _kept(7), Channel.read_pending, "sync character", "4.2.9"),
    _number(8, Channel.write_data, Channel.read_data, "data", "4.2.12, 4.3.9"),
    _number(9, Channel.write_master, _stored(13), "interrupts of both channels, resets", "4.2.13"),
    _number(10, _kept(10), lambda channel: 0, "encoding; status of loops", "4.2.14, 4.3.11"),
    _number(11, _kept(11), _stored(15), "clocks", "4.2.15"),
    _number(12, _kept(12), _stored(12), "divisor, low half", "4.2.16, 4.3.13"),
    _number(13, _kept(13), _stored(13), "divisor, high half", "4.2.17, 4.3.14"),
    _number(14, _kept(14), lambda channel: 0, "clock generator, loopback", "4.2.18"),
    _number(15, _kept(15), _stored(15), "which changes of state interrupt", "4.2.19, 4.3.15"),
)


def _ports(number: int, letter: str) -> list[Register[Escc]]:
    section = "UM010903 2.4"
    return [
        Register(
            offset=2 * number,
            name=f"control {letter}",
            access=RW,
            width=1,
            meaning="names a register, then reaches it",
            section=section,
            read=lambda chip: chip.channels[number].read_control(),
            write=lambda chip, value: chip.channels[number].write_control(value),
        ),
        Register(
            offset=2 * number + 1,
            name=f"data {letter}",
            access=RW,
            width=1,
            meaning="received and sent bytes",
            section=section,
            read=lambda chip: chip.channels[number].read_data(),
            write=lambda chip, value: chip.channels[number].write_data(value),
        ),
    ]


Escc.registers = RegisterMap("escc", *_ports(0, "A"), *_ports(1, "B"))
