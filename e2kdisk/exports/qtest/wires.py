"""Interrupt wires that a test listens to: into the interrupt controller of a board, or out of a disk controller."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from e2kdisk.devices.irq import IrqLine
from e2kdisk.machine.boards.board import Board
from e2kdisk.machine.boards.wiring import Wiring
from e2kdisk.machine.chips import gicv2

Listener = Callable[[int, bool], None]
"""Told of a wire's number and its new level."""

CHIPS: dict[str, tuple[tuple[str, ...], int]] = {
    "elbrus": (("ioapic",), 0),
    "virt-arm64": (("gic", "unattached/device[1]"), gicv2.SPI),
    "virt-riscv64": (("plic", "unattached/device[2]"), 0),
}
"""Board -> names of its interrupt controller (the second is QEMU 7.2's own), and its number of what QEMU calls 0."""


class _WatchedLine(IrqLine):
    """A wire with somebody in the middle."""

    __slots__ = ("_line", "_tell")

    def __init__(self, tell: Callable[[bool], None], line: IrqLine) -> None:
        super().__init__()
        self._tell = tell
        self._line = line

    def set(self, level: bool) -> None:
        """IrqLine.set."""
        if level != self.level:
            self.level = level
            self._tell(level)
            self._line.set(level)


class Wires(Wiring):
    """The wires of one machine; one device can be listened to, as in QEMU."""

    def __init__(self) -> None:
        self.board: Board | None = None
        self._outputs: dict[str, int] = {}
        """Controller -> how many wires it has."""
        self._listener: Listener | None = None
        self._device: tuple[str, bool] | None = None
        self._levels: dict[int, bool] = {}

    def irq(self, controller: str, line: IrqLine) -> IrqLine:
        """Wiring.irq."""
        number = self._outputs.get(controller, 0)
        self._outputs[controller] = number + 1
        return _WatchedLine(partial(self._output_changed, controller, number), line)

    # -- listening --------------------------------------------------------------------------------

    def watch_inputs(self, path: str, listener: Listener) -> str:
        """Listen to what goes into an interrupt controller; "" or what is wrong."""
        if self.board is None:
            return "Unknown device"
        names, first = CHIPS[self.board.NAME]
        if path.removeprefix("/machine/") not in names:
            return "Unknown device"
        refused = self._take("", False, listener)
        if not refused:
            self.board.irq_chip.on_input = lambda number, level: self._changed(number - first, level)
        return refused

    def watch_outputs(self, path: str, listener: Listener) -> str:
        """Listen to what comes out of a disk controller, by its id; "" or what is wrong."""
        name = path.removeprefix("/machine/peripheral/").removeprefix("/machine/peripheral-anon/")
        return self._take(name, True, listener) if name in self._outputs else "Unknown device"

    def _take(self, name: str, outputs: bool, listener: Listener) -> str:
        if self._device not in (None, (name, outputs)):
            return "IRQ intercept already enabled"
        self._device = name, outputs
        self._listener = listener
        return ""

    def forget_levels(self) -> None:
        """A new client: what it has not been told of is low."""
        self._levels.clear()

    def _output_changed(self, controller: str, number: int, level: bool) -> None:
        if self._device == (controller, True):
            self._changed(number, level)

    def _changed(self, number: int, level: bool) -> None:
        if number >= 0 and self._levels.get(number, False) != level and self._listener is not None:
            self._levels[number] = level
            self._listener(number, level)
