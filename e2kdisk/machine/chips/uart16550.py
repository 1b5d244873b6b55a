"""16550A, the serial port of PCs and of RISC-V boards, with registers of one byte (TL16C550C data sheet, SLLS177)."""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap
from e2kdisk.machine.chips.chip import SerialPort

LSR_DATA_READY = 1 << 0
LSR_EMPTY = 1 << 5 | 1 << 6
IER_RECEIVE = 1 << 0
IER_EMPTY = 1 << 1
IIR_NONE = 0b0001
IIR_EMPTY = 0b0010
IIR_RECEIVE = 0b0100
IIR_FIFO_ON = 0b1100_0000
LCR_DLAB = 1 << 7
MCR_LOOP = 1 << 4
MSR_CONNECTED = 0b1011_0000


class Uart16550(SerialPort):
    """A 16550A whose transmitter is always empty."""

    STATE = ("_received", "_divisor", "_enabled", "_fifo_control", "_line_control", "_modem", "_scratch", "_sent")

    def __init__(self, irq: IrqLine, name: str = "uart16550") -> None:
        super().__init__(name, 0x100)
        self._irq = irq
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._received = []
        self._divisor = 1
        self._enabled = self._fifo_control = self._line_control = self._modem = self._scratch = 0
        self._sent = False
        self._changed()

    @property
    def _dlab(self) -> int:
        return self._line_control & LCR_DLAB

    def read_data(self) -> int:
        """Received byte, or the low half of the divisor."""
        return self._divisor & 0xFF if self._dlab else self._pop()

    def write_data(self, value: int) -> None:
        """Send a byte, or set the low half of the divisor."""
        if self._dlab:
            self._divisor = self._divisor & 0xFF00 | value
        elif self._modem & MCR_LOOP:
            self._received.append(value)
        else:
            self.line.put(value)
        self._sent = True
        self._changed()

    def read_enabled(self) -> int:
        """Enabled interrupts, or the high half of the divisor."""
        return self._divisor >> 8 if self._dlab else self._enabled

    def write_enabled(self, value: int) -> None:
        """Enable interrupts, or set the high half of the divisor."""
        if self._dlab:
            self._divisor = value << 8 | self._divisor & 0xFF
        else:
            # Enabling it while the transmitter is empty interrupts at once: drivers start sending that way.
            self._sent = self._sent or bool(value & ~self._enabled & IER_EMPTY)
            self._enabled = value & 0x0F
            self._changed()

    def read_identification(self) -> int:
        """What interrupts; reading it acknowledges an empty transmitter."""
        source = self._source()
        if source == IIR_EMPTY:
            self._sent = False
            self._changed()
        return source | (IIR_FIFO_ON if self._fifo_control & 1 else 0)

    def write_fifo_control(self, value: int) -> None:
        """Switch the FIFOs on, clear them."""
        if value & 0b10:
            self._received = []
        self._fifo_control = value & 0b1100_1001
        self._changed()

    def read_line_status(self) -> int:
        """Data ready, transmitter empty."""
        if not self._received:
            self.refill()
        return LSR_EMPTY | (LSR_DATA_READY if self._received else 0)

    def _source(self) -> int:
        if self._received and self._enabled & IER_RECEIVE:
            return IIR_RECEIVE
        return IIR_EMPTY if self._sent and self._enabled & IER_EMPTY else IIR_NONE

    def _changed(self) -> None:
        self._irq.set(self._source() != IIR_NONE)


def _reg(offset: int, name: str, access: Access, meaning: str, section: str, **more: Any) -> Register[Uart16550]:
    section = f"SLLS177 {section}"
    return Register(offset=offset, name=name, access=access, width=1, meaning=meaning, section=section, **more)


def _kept(offset: int, name: str, attribute: str, meaning: str, section: str) -> Register[Uart16550]:
    def read(chip: Uart16550) -> int:
        return int(getattr(chip, attribute))

    def write(chip: Uart16550, value: int) -> None:
        setattr(chip, attribute, value)

    return _reg(offset, name, RW, meaning, section, read=read, write=write)


Uart16550.registers = RegisterMap(
    "uart16550",
    _reg(
        0, "RBR/THR", RW, "data; divisor low", "receiver buffer", read=Uart16550.read_data, write=Uart16550.write_data
    ),
    _reg(
        1,
        "IER",
        RW,
        "interrupt enable; divisor high",
        "interrupt enable",
        read=Uart16550.read_enabled,
        write=Uart16550.write_enabled,
    ),
    _reg(
        2,
        "IIR/FCR",
        RW,
        "interrupt identification; FIFO control",
        "FIFO control",
        read=Uart16550.read_identification,
        write=Uart16550.write_fifo_control,
    ),
    _kept(3, "LCR", "_line_control", "line control", "line control"),
    _kept(4, "MCR", "_modem", "modem control", "modem control"),
    _reg(5, "LSR", R, "line status", "line status", read=Uart16550.read_line_status),
    _reg(6, "MSR", R, "modem status: connected", "modem status", reset=MSR_CONNECTED),
    _kept(7, "SCR", "_scratch", "scratch", "scratch"),
)
