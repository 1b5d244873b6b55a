"""PL011, the serial port of Arm boards (ARM DDI 0183G). Sending takes no time; baud rates are accepted and ignored."""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.machine.chips.chip import SerialPort

FR_RXFE = 1 << 4
FR_TXFF = 1 << 5
FR_RXFF = 1 << 6
FR_TXFE = 1 << 7

INT_RX = 1 << 4
INT_TX = 1 << 5
INT_RT = 1 << 6

PAUSE_READS = 64
"""So many looks at the flags in a row show a full transmitter once: U-Boot's flush waits to see that before `go`."""


class Pl011(SerialPort):
    """A PL011 with a receive FIFO and level interrupts."""

    STATE = ("_received", "_baud", "_fraction", "_line_control", "_control", "_levels", "_mask", "_sent", "_looks")

    def __init__(self, irq: IrqLine, name: str = "pl011") -> None:
        super().__init__(name, 0x1000)
        self._irq = irq
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._received = []
        self._baud = self._fraction = self._line_control = 0
        self._control = 0x300  # TXE | RXE
        self._levels = 0x12
        self._mask = 0
        self._sent = False
        self._looks = 0
        self._changed()

    def read_data(self) -> int:
        """Next received byte."""
        self._looks = 0
        return self._pop()

    def write_data(self, value: int) -> None:
        """Send a byte."""
        self._looks = 0
        self.line.put(value & 0xFF)
        self._sent = True  # the transmit FIFO has passed its trigger level: it is empty again at once
        self._changed()

    def read_flags(self) -> int:
        """State of the FIFOs."""
        if not self._received:
            self.refill()
        self._looks += 1
        flags = FR_TXFE if self._looks % PAUSE_READS else FR_TXFF
        if not self._received:
            flags |= FR_RXFE
        elif len(self._received) >= self.FIFO:
            flags |= FR_RXFF
        return flags

    def read_raw_interrupts(self) -> int:
        """Conditions before the mask."""
        return (INT_RX | INT_RT if self._received else 0) | (INT_TX if self._sent else 0)

    def read_masked_interrupts(self) -> int:
        """Conditions that interrupt."""
        return self.read_raw_interrupts() & self._mask

    def clear_interrupts(self, value: int) -> None:
        """Forget the transmit condition; the receive one lasts as long as there is data."""
        if value & INT_TX:
            self._sent = False
        self._changed()

    def _changed(self) -> None:
        self._irq.set(bool(self.read_masked_interrupts()))

    def set_mask(self, value: int) -> None:
        """Which conditions interrupt."""
        self._mask = value & 0x7FF
        self._changed()


def _reg(offset: int, name: str, access: Access, meaning: str, section: str, **more: Any) -> Register[Pl011]:
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=f"DDI 0183 {section}", **more)


def _kept(offset: int, name: str, attribute: str, meaning: str, section: str) -> Register[Pl011]:
    def read(chip: Pl011) -> int:
        return int(getattr(chip, attribute))

    def write(chip: Pl011, value: int) -> None:
        setattr(chip, attribute, value)

    return _reg(offset, name, RW, meaning, section, read=read, write=write)


Pl011.registers = RegisterMap(
    "pl011",
    _reg(0x00, "UARTDR", RW, "data", "3.3.1", read=Pl011.read_data, write=Pl011.write_data),
    _reg(0x04, "UARTRSR", RW, "receive status: never an error here", "3.3.2"),
    _reg(0x18, "UARTFR", R, "flags", "3.3.3", read=Pl011.read_flags),
    _kept(0x24, "UARTIBRD", "_baud", "integer baud rate", "3.3.5"),
    _kept(0x28, "UARTFBRD", "_fraction", "fractional baud rate", "3.3.6"),
    _kept(0x2C, "UARTLCR_H", "_line_control", "line control", "3.3.7"),
    _kept(0x30, "UARTCR", "_control", "control", "3.3.8"),
    _kept(0x34, "UARTIFLS", "_levels", "FIFO levels that interrupt", "3.3.9"),
    _reg(0x38, "UARTIMSC", RW, "interrupt mask", "3.3.10", read=lambda chip: chip._mask, write=Pl011.set_mask),
    _reg(0x3C, "UARTRIS", R, "raw interrupts", "3.3.11", read=Pl011.read_raw_interrupts),
    _reg(0x40, "UARTMIS", R, "masked interrupts", "3.3.12", read=Pl011.read_masked_interrupts),
    _reg(0x44, "UARTICR", W, "interrupt clear", "3.3.13", write=Pl011.clear_interrupts),
    *[
        _reg(0xFE0 + 4 * n, f"UARTPeriphID{n}", R, "identification", "3.3.15", reset=value)
        for n, value in enumerate((0x11, 0x10, 0x14, 0x00))
    ],
    *[
        _reg(0xFF0 + 4 * n, f"UARTPCellID{n}", R, "identification", "3.3.16", reset=value)
        for n, value in enumerate((0x0D, 0xF0, 0x05, 0xB1))
    ],
)
