"""Interrupt pins on their way to the interrupt controller: the usual rotation, and wires that are shared."""

from __future__ import annotations

from e2kdisk.devices.irq import IrqLine

PINS = 4


def swizzle(devfn: int, pin: int) -> int:
    """Which of four wires (0 to 3) the pin (1 to 4) of a slot is on: neighbours differ (P2P bridge 1.2 9.1)."""
    return (pin - 1 + (devfn >> 3)) % PINS


class WiredOr:
    """One wire that several functions drive: high while any of them drives it."""

    def __init__(self, wire: IrqLine) -> None:
        self._wire = wire
        self._sources: list[IrqLine] = []

    def line(self) -> IrqLine:
        """A line for one more function."""
        source = IrqLine(lambda level: self._wire.set(level or any(other.level for other in self._sources)))
        self._sources.append(source)
        return source
