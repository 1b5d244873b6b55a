"""What the chips share: registers from a declared table, and a serial line to whoever sits at the console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from e2kdisk.devices.controller import Trace
from e2kdisk.devices.registers import Access, Register, RegisterMap

InputListener = Callable[[int, bool], None]
"""Told of each wire into an interrupt controller that changes: its number there, its level."""


class InterruptChip(Protocol):
    """An interrupt controller at whose wires somebody may listen."""

    on_input: InputListener | None


class Chip:
    """A RegisterDevice whose registers are a table; accesses of other widths than declared are put together.

    State that must survive save() and load() is named once, in STATE.
    """

    registers: ClassVar[RegisterMap[Any]]
    STATE: ClassVar[tuple[str, ...]] = ()
    trace: Trace | None = None
    """Where a chip reports what a guest should not have done."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return self.registers.name_of(offset)

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        register = self.registers.at.get(offset)
        if register is not None and register.width == size:
            return self._load(register)
        return self._read_odd(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        register = self.registers.at.get(offset)
        if register is None:
            self._write_inside(offset, size, value)
            return
        if register.write is not None:
            register.write(self, value & (1 << 8 * register.width) - 1)
        if size > register.width:
            self.write(offset + register.width, size - register.width, value >> 8 * register.width)

    def reset(self) -> None:
        """RegisterDevice.reset."""
        raise NotImplementedError

    def _load(self, register: Register[Any]) -> int:
        if register.access is Access.W:
            return 0
        return register.reset if register.read is None else register.read(self)

    def _read_odd(self, offset: int, size: int) -> int:
        register = self._covering(offset)
        if register is None:
            return 0
        inside = offset - register.offset
        value = self._load(register) >> 8 * inside
        covered = register.width - inside
        if size > covered:
            value |= self.read(offset + covered, size - covered) << 8 * covered
        return value & (1 << 8 * size) - 1

    def _covering(self, offset: int) -> Register[Any] | None:
        at = self.registers.at
        # Registers are aligned to their width, 8 bytes at most.
        register = at.get(offset) or at.get(offset & -2) or at.get(offset & -4) or at.get(offset & -8)
        return register if register is not None and offset < register.offset + register.width else None

    def _write_inside(self, offset: int, size: int, value: int) -> None:
        """A store to a part of a register: the rest keeps its value, if it can be read at all."""
        register = self._covering(offset)
        if register is None or register.write is None:
            return
        shift = 8 * (offset - register.offset)
        mask = ((1 << 8 * size) - 1) << shift
        register.write(self, self._load(register) & ~mask | (value << shift) & mask)

    def save(self) -> dict[str, object]:
        """State as plain data."""
        plain = {name: getattr(self, name) for name in self.STATE}
        return {"version": 1, **{name: list(v) if isinstance(v, list) else v for name, v in plain.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        if state["version"] != 1:
            raise ValueError(f"{self.name}: state of version {state['version']}")
        for name in self.STATE:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, list) else value)


class SerialLine(Protocol):
    """The other end of a serial port."""

    def put(self, byte: int) -> None:
        """The guest has sent a byte."""
        ...

    def take(self, limit: int) -> bytes:
        """At most `limit` bytes for the guest; what is not taken waits on the host's side and is never lost."""
        ...


class NoLine:
    """A serial port with nothing plugged in."""

    def put(self, byte: int) -> None:
        """SerialLine.put."""

    def take(self, limit: int) -> bytes:
        """SerialLine.take."""
        return b""


class SerialPort(Chip):
    """The part of a UART that does not depend on its registers: a receive FIFO filled as it empties."""

    FIFO = 16

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size)
        self.line: SerialLine = NoLine()
        self.on_waiting: Callable[[], object] = lambda: None
        """Called for each look of a guest that does nothing but look for input, where the chip can tell."""
        self._received: list[int] = []

    def refill(self) -> None:
        """Take from the line what has room; called before each look of the guest and between slices."""
        room = self.FIFO - len(self._received)
        if room > 0:
            taken = self.line.take(room)
            if taken:
                self._received += taken
                self._changed()

    def _changed(self) -> None:
        """The FIFO has changed: interrupts may have, too."""
        raise NotImplementedError

    def _pop(self) -> int:
        if not self._received:
            self.refill()
        byte = self._received.pop(0) if self._received else 0
        self._changed()
        return byte

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        super().load(state)
        self._changed()
