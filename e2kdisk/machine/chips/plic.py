"""PLIC: many interrupt lines, priorities, one claim register per context (RISC-V PLIC specification 1.0.0)."""

from __future__ import annotations

from functools import partial
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap
from e2kdisk.machine.chips.chip import Chip, InputListener

SOURCES = 96
"""Interrupt sources 1..96; 0 means none."""
WORDS = SOURCES // 32 + 1


class Plic(Chip):
    """Level-triggered sources and two contexts: hart 0 in machine mode and in supervisor mode."""

    STATE = ("_level", "_claimed", "_priority", "_enabled", "_threshold")

    def __init__(self, outputs: tuple[IrqLine, IrqLine], name: str = "plic") -> None:
        super().__init__(name, 0x60_0000)
        self._outputs = outputs
        self.on_input: InputListener | None = None
        self._level = 0
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset: the lines belong to the devices."""
        self._claimed = 0
        self._priority = [0] * (SOURCES + 1)
        self._enabled = [0, 0]
        self._threshold = [0, 0]
        self._update()

    def line(self, source: int) -> IrqLine:
        """The wire into a source."""
        return IrqLine(partial(self._set_level, source))

    def _set_level(self, source: int, level: bool) -> None:
        if self.on_input is not None:
            self.on_input(source, level)
        bit = 1 << source
        self._level = self._level | bit if level else self._level & ~bit
        self._update()

    @property
    def _pending(self) -> int:
        # The gateway lets a source through again only after its completion (chapter 4).
        return self._level & ~self._claimed

    def _best(self, context: int) -> int:
        """The pending source that this context must serve first, 0 for none (chapter 6)."""
        waiting = self._pending & self._enabled[context]
        best, best_priority = 0, self._threshold[context]
        for source in range(1, SOURCES + 1) if waiting else ():
            if waiting >> source & 1 and self._priority[source] > best_priority:
                best, best_priority = source, self._priority[source]
        return best

    def _update(self) -> None:
        for context, output in enumerate(self._outputs):
            output.set(self._best(context) != 0)

    def set_priority(self, source: int, value: int) -> None:
        """0 never interrupts, 7 is the highest."""
        self._priority[source] = value & 7
        self._update()

    def read_enabled(self, context: int, word: int) -> int:
        """32 enable bits."""
        return self._enabled[context] >> 32 * word & 0xFFFF_FFFF

    def set_enabled(self, context: int, word: int, value: int) -> None:
        """32 enable bits."""
        shift = 32 * word
        self._enabled[context] = self._enabled[context] & ~(0xFFFF_FFFF << shift) | value << shift
        self._update()

    def set_threshold(self, context: int, value: int) -> None:
        """Only priorities above this interrupt."""
        self._threshold[context] = value & 7
        self._update()

    def claim(self, context: int) -> int:
        """Take the source to serve."""
        source = self._best(context)
        if source:
            self._claimed |= 1 << source
            self._update()
        return source

    def complete(self, context: int, source: int) -> None:
        """The source has been served; ignored unless enabled in this context (chapter 9)."""
        if 0 < source <= SOURCES and self._enabled[context] >> source & 1:
            self._claimed &= ~(1 << source)
            self._update()

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        super().load(state)
        self._update()


def _reg(offset: int, name: str, access: Access, meaning: str, section: str, **more: Any) -> Register[Plic]:
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=f"PLIC {section}", **more)


def _priority(source: int) -> Register[Plic]:
    return _reg(
        4 * source,
        f"priority{source}",
        RW,
        "priority of a source",
        "4",
        read=lambda chip: chip._priority[source],
        write=lambda chip, value: chip.set_priority(source, value),
    )


def _pending_word(word: int) -> Register[Plic]:
    return _reg(
        0x1000 + 4 * word,
        f"pending{word}",
        R,
        "pending bits",
        "5",
        read=lambda chip: chip._pending >> 32 * word & 0xFFFF_FFFF,
    )


def _enable_word(context: int, word: int) -> Register[Plic]:
    return _reg(
        0x2000 + 0x80 * context + 4 * word,
        f"enable{context}.{word}",
        RW,
        "enable bits of a context",
        "6",
        read=lambda chip: chip.read_enabled(context, word),
        write=lambda chip, value: chip.set_enabled(context, word, value),
    )


def _context(context: int) -> list[Register[Plic]]:
    base = 0x20_0000 + 0x1000 * context
    return [
        _reg(
            base,
            f"threshold{context}",
            RW,
            "priority threshold",
            "7",
            read=lambda chip: chip._threshold[context],
            write=lambda chip, value: chip.set_threshold(context, value),
        ),
        _reg(
            base + 4,
            f"claim{context}",
            RW,
            "claim by reading, complete by writing",
            "8, 9",
            read=lambda chip: chip.claim(context),
            write=lambda chip, value: chip.complete(context, value),
        ),
    ]


Plic.registers = RegisterMap(
    "plic",
    *[_priority(source) for source in range(1, SOURCES + 1)],
    *[_pending_word(word) for word in range(WORDS)],
    *[_enable_word(context, word) for context in range(2) for word in range(WORDS)],
    *[register for context in range(2) for register in _context(context)],
)
