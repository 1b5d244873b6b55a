"""Wiring: what stands between a controller and the board when somebody listens on the wires, or delays them."""

from __future__ import annotations

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory


class Wiring:
    """Straight wires; a subclass may put something in between."""

    def irq(self, controller: str, line: IrqLine) -> IrqLine:
        """The line that the controller of this name drives, given the one that leads to the interrupt controller."""
        return line

    def memory(self, controller: str, memory: GuestMemory) -> GuestMemory:
        """The guest memory that it works in."""
        return memory
