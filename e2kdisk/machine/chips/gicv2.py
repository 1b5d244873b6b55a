"""GICv2 for one CPU: distributor and CPU interface (ARM IHI 0048B). Group and security extensions are absent."""

from __future__ import annotations

from functools import partial
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.machine.chips.chip import Chip, InputListener

LINES = 160
"""SGI 0..15, PPI 16..31, SPI 32.. (3.1); a multiple of 32."""
SPI = 32
WORDS = LINES // 32
SPURIOUS = 1023
MASK = 0xFFFF_FFFF


class Gic:
    """The state that the two blocks of registers share."""

    def __init__(self, output: IrqLine) -> None:
        self._output = output
        self.on_input: InputListener | None = None
        self.level = 0
        self.reset()

    def reset(self) -> None:
        """Power-on state; the lines belong to the devices."""
        self.distributor_on = self.interface_on = 0
        self.enabled = 0xFFFF  # SGIs cannot be disabled here (4.3.5, implementation defined)
        self.latched = 0
        """Pending by an edge or by a write of the guest."""
        self.active = 0
        self.edge = 0xFFFF
        """One bit a line: edge-triggered."""
        self.priority = [0] * LINES
        self.target = [1] * LINES
        self.mask = 0
        self.binary_point = 0
        self.served: list[int] = []
        """Active interrupts, the one that was taken last at the end."""
        self.update()

    def line(self, number: int) -> IrqLine:
        """The wire into an interrupt."""
        return IrqLine(partial(self._set_level, number))

    def _set_level(self, number: int, level: bool) -> None:
        if self.on_input is not None:
            self.on_input(number, level)
        bit = 1 << number
        if level:
            self.latched |= bit & self.edge
            self.level |= bit
        else:
            self.level &= ~bit
        self.update()

    @property
    def pending(self) -> int:
        """One bit a line (3.2.4)."""
        return self.latched | self.level & ~self.edge

    def best(self) -> int:
        """The interrupt to take now, SPURIOUS for none."""
        waiting = self.pending & self.enabled & ~self.active
        if not waiting or not self.distributor_on or not self.interface_on:
            return SPURIOUS
        best = SPURIOUS
        limit = min([self.mask, *(self.priority[number] for number in self.served)])
        for number in range(LINES):
            if waiting >> number & 1 and self.priority[number] < limit:
                best, limit = number, self.priority[number]
        return best

    def update(self) -> None:
        """Drive the CPU's input."""
        self._output.set(self.best() != SPURIOUS)

    def acknowledge(self) -> int:
        """The CPU takes an interrupt (4.4.4)."""
        number = self.best()
        if number != SPURIOUS:
            self.latched &= ~(1 << number)
            self.active |= 1 << number
            self.served.append(number)
            self.update()
        return number

    def end(self, value: int) -> None:
        """The CPU is done with an interrupt (4.4.5)."""
        number = value & 0x3FF
        if number in self.served:
            self.served.remove(number)
            self.active &= ~(1 << number)
            self.update()

    def set_bits(self, attribute: str, word: int, value: int) -> None:
        """Set 32 bits of a bit field."""
        setattr(self, attribute, getattr(self, attribute) | (value & MASK) << 32 * word)
        self.update()

    def clear_bits(self, attribute: str, word: int, value: int) -> None:
        """Clear 32 bits of a bit field."""
        keep = 0xFFFF if attribute == "enabled" else 0
        setattr(self, attribute, getattr(self, attribute) & ~((value & MASK) << 32 * word) | keep)
        self.update()

    def set_value(self, attribute: str, value: int) -> None:
        """Set a simple register."""
        setattr(self, attribute, value)
        self.update()


class GicBlock(Chip):
    """One of the two blocks of registers."""

    def __init__(self, gic: Gic, name: str) -> None:
        super().__init__(name, 0x10000)
        self.gic = gic

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self.gic.reset()


class GicDistributor(GicBlock):
    """The distributor; it also saves the state of both."""

    STATE_OF_GIC = (
        *("distributor_on", "interface_on", "enabled", "latched", "level", "active", "edge"),
        *("priority", "target", "mask", "binary_point", "served"),
    )

    def read_bytes(self, attribute: str, first: int) -> int:
        """Four lines' bytes."""
        return int.from_bytes(bytes(getattr(self.gic, attribute)[first : first + 4]), "little")

    def write_bytes(self, attribute: str, first: int, value: int) -> None:
        """Four lines' bytes."""
        getattr(self.gic, attribute)[first : first + 4] = value.to_bytes(4, "little")
        self.gic.update()

    def read_config(self, word: int) -> int:
        """Two bits a line, the upper one says edge."""
        return sum((self.gic.edge >> 16 * word + n & 1) << 2 * n + 1 for n in range(16))

    def write_config(self, word: int, value: int) -> None:
        """Two bits a line; those of SGIs are fixed."""
        if word:
            for n in range(16):
                bit = 1 << 16 * word + n
                self.gic.edge = self.gic.edge | bit if value >> 2 * n + 1 & 1 else self.gic.edge & ~bit
            self.gic.update()

    def send_software(self, value: int) -> None:
        """An interrupt to ourselves (4.3.15); there is only CPU 0."""
        chosen = value >> 24 & 3
        if chosen == 2 or (chosen == 0 and value >> 16 & 1):
            self.gic.set_bits("latched", 0, 1 << (value & 15))

    def save(self) -> dict[str, object]:
        """State as plain data."""
        plain = {name: getattr(self.gic, name) for name in self.STATE_OF_GIC}
        return {"version": 1, **{name: list(v) if isinstance(v, list) else v for name, v in plain.items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        if state["version"] != 1:
            raise ValueError(f"{self.name}: state of version {state['version']}")
        for name in self.STATE_OF_GIC:
            value = state[name]
            setattr(self.gic, name, list(value) if isinstance(value, list) else value)
        self.gic.update()


class GicInterface(GicBlock):
    """The CPU interface."""


# -- the tables -------------------------------------------------------------------------------------


def _reg(offset: int, name: str, access: Access, meaning: str, section: str, **more: Any) -> Register[Any]:
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=f"IHI 0048B {section}", **more)


def _simple(offset: int, name: str, attribute: str, meaning: str, section: str) -> Register[Any]:
    return _reg(
        offset,
        name,
        RW,
        meaning,
        section,
        read=lambda block: getattr(block.gic, attribute),
        write=lambda block, value: block.gic.set_value(attribute, value & 0xFF),
    )


def _bits(offset: int, name: str, attribute: str, meaning: str, section: str) -> list[Register[Any]]:
    """A pair of arrays: writing ones sets bits in the first (at offset), clears them in the second (+0x80)."""

    def registers(word: int) -> list[Register[Any]]:
        def read(block: GicBlock) -> int:
            shown = "pending" if attribute == "latched" else attribute
            return int(getattr(block.gic, shown)) >> 32 * word & MASK

        def set_(block: GicBlock, value: int) -> None:
            block.gic.set_bits(attribute, word, value)

        def clear(block: GicBlock, value: int) -> None:
            block.gic.clear_bits(attribute, word, value)

        return [
            _reg(offset + 4 * word, f"GICD_IS{name}{word}", RW, f"set {meaning}", section, read=read, write=set_),
            _reg(
                offset + 0x80 + 4 * word,
                f"GICD_IC{name}{word}",
                RW,
                f"clear {meaning}",
                section,
                read=read,
                write=clear,
            ),
        ]

    return [register for word in range(WORDS) for register in registers(word)]


def _bytes(offset: int, name: str, attribute: str, meaning: str, section: str) -> list[Register[Any]]:
    def register(first: int) -> Register[Any]:
        return _reg(
            offset + first,
            f"{name}{first // 4}",
            RW,
            meaning,
            section,
            read=lambda block: block.read_bytes(attribute, first),
            write=lambda block, value: block.write_bytes(attribute, first, value),
        )

    return [register(first) for first in range(0, LINES, 4)]


def _config(word: int) -> Register[Any]:
    return _reg(
        0xC00 + 4 * word,
        f"GICD_ICFGR{word}",
        RW,
        "edge or level",
        "4.3.13",
        read=lambda block: block.read_config(word),
        write=lambda block, value: block.write_config(word, value),
    )


GicDistributor.registers = RegisterMap(
    "gic-distributor",
    _simple(0x000, "GICD_CTLR", "distributor_on", "enable", "4.3.1"),
    _reg(0x004, "GICD_TYPER", R, "number of lines", "4.3.2", reset=WORDS - 1),
    _reg(0x008, "GICD_IIDR", R, "implementer: Arm", "4.3.3", reset=0x0200_043B),
    *_bits(0x100, "ENABLER", "enabled", "enable bits", "4.3.5, 4.3.6"),
    *_bits(0x200, "PENDR", "latched", "pending bits", "4.3.7, 4.3.8"),
    *_bits(0x300, "ACTIVER", "active", "active bits", "4.3.9, 4.3.10"),
    *_bytes(0x400, "GICD_IPRIORITYR", "priority", "priorities, lower first", "4.3.11"),
    *_bytes(0x800, "GICD_ITARGETSR", "target", "CPUs", "4.3.12"),
    *[_config(word) for word in range(LINES // 16)],
    _reg(0xF00, "GICD_SGIR", W, "software interrupt", "4.3.15", write=GicDistributor.send_software),
    _reg(0xFE8, "GICD_ICPIDR2", R, "architecture version 2", "4.3.18", reset=0x2B),
)

GicInterface.registers = RegisterMap(
    "gic-interface",
    _simple(0x00, "GICC_CTLR", "interface_on", "enable", "4.4.1"),
    _simple(0x04, "GICC_PMR", "mask", "priority mask", "4.4.2"),
    _simple(0x08, "GICC_BPR", "binary_point", "priority grouping", "4.4.3"),
    _reg(0x0C, "GICC_IAR", R, "acknowledge", "4.4.4", read=lambda block: block.gic.acknowledge()),
    _reg(0x10, "GICC_EOIR", W, "end", "4.4.5", write=lambda block, value: block.gic.end(value)),
    _reg(0x14, "GICC_RPR", R, "running priority", "4.4.6", reset=0xFF),
    _reg(0x18, "GICC_HPPIR", R, "highest pending", "4.4.7", read=lambda block: block.gic.best()),
    _reg(0xFC, "GICC_IIDR", R, "implementer: Arm", "4.4.14", reset=0x0202_043B),
)
