"""Instructions -> one Python function: a straight run of wide instructions, for one register frame.

Interpreting a wide instruction operation by operation costs Python several microseconds. So a run of them becomes the
text of a function, and CPython's own compiler does the rest: registers are list items at fixed distances from the
window's start, literals are constants, and what a frame makes illegal is known before anything runs.

The order inside one wide instruction: all sources, predicates and conditions are read and all results computed,
memory acts in channel order; then registers are written (the highest channel last), then predicates, then ctprs and
the frame, then pc. So a trap leaves registers and predicates as they were.

Names in the text: s the CPU, R the register stack, w the window's start in it, G globals, P predicates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from e2kdisk.machine.cpu.e2k import arithmetic, extended
from e2kdisk.machine.cpu.e2k.decode import (
    MASK64,
    MAX_PAIRS,
    Guard,
    Instruction,
    Register,
    SetBase,
    SetWindow,
    Slot,
    Source,
)
from e2kdisk.machine.cpu.e2k.operations import Kind
from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

HIGH = "0xFFFFFFFF00000000"
LOW = "0xFFFFFFFF"
_NAMES = re.compile(r"\b([abcABCmhkw]|MRGC)\b")


class Frame(NamedTuple):
    """What of the register windows decides what a wide instruction means; sizes in pairs of registers."""

    pairs: int = 8
    parameters: int = 4
    """A SETWD may not go below."""
    doubled: bool = False
    base: int = 0
    size: int = 0
    """Of the based window, less one."""
    current: int = 0


class Block(NamedTuple):
    """A translated run."""

    run: Callable[[Any], int]
    """Given the CPU, carries it out and returns the next pc."""
    steps: int
    """Wide instructions in it."""
    addresses: tuple[int, ...]
    """Of each wide instruction."""
    end: int


def set_window(frame: Frame, change: SetWindow) -> Frame:
    """The frame after SETWD."""
    if not frame.parameters <= change.pairs <= MAX_PAIRS:
        raise GuestTrap(Trap.ILLEGAL, f"setwd of {change.pairs} pairs, {frame.parameters} to {MAX_PAIRS} are possible")
    return frame._replace(pairs=change.pairs, doubled=change.doubled)


def called(frame: Frame, base: int) -> Frame:
    """The frame that a callee finds."""
    if base > frame.pairs:
        raise GuestTrap(Trap.WINDOW_BOUNDS, f"call with window base {base} of {frame.pairs} pairs")
    return frame._replace(pairs=frame.pairs - base, parameters=frame.pairs - base)


def place(register: Register, frame: Frame) -> str:
    """Where a register is, as text; raises GuestTrap outside the window."""
    number = register.number
    if register.file == "g":
        return f"G[{number}]"
    if register.file == "b":
        around = 2 * (frame.size + 1)
        if number >= around:
            raise GuestTrap(Trap.WINDOW_BOUNDS, f"%b{number} of a based window of {around}")
        number = 2 * frame.base + (2 * frame.current + number) % around
    if number >= 2 * frame.pairs:
        raise GuestTrap(Trap.WINDOW_BOUNDS, f"%r{number} of a window of {2 * frame.pairs}")
    return f"R[w + {number}]" if number else "R[w]"


def _holds(guard: Guard) -> str:
    return f"not P[{guard.predicate}]" if guard.inverted else f"P[{guard.predicate}]"


def _any(guards: Iterable[Guard]) -> str:
    return " or ".join(map(_holds, guards))


class _Writer:
    """Writes the text of one wide instruction."""

    def __init__(self, instruction: Instruction, index: int, pc: int, frame: Frame) -> None:
        self.instruction = instruction
        self.index = index
        self.pc = pc
        self.next = pc + instruction.length
        self.frame = frame
        change = instruction.window
        self.results = set_window(frame, change) if isinstance(change, SetWindow) else frame
        """The frame for destinations: a new window size already holds for them."""
        self.lines: list[str] = []
        self.writes: list[str] = []
        self.late: set[str] = set()
        """The registers that `writes` writes."""
        self.predicate_writes: list[str] = []
        self.touches_memory = any(slot.operation.kind in (Kind.LOAD, Kind.STORE) for slot in instruction.slots)

    def write(self, *, last: bool) -> tuple[list[str], bool]:
        """The lines, and whether the run must end here."""
        instruction = self.instruction
        go = self._read_condition()
        for position, slot in enumerate(instruction.slots):
            self._slot(slot, later=instruction.slots[position + 1 :])
        self._predicate_unit()
        self.lines += self.writes + self.predicate_writes
        if instruction.prepare is not None:
            where = instruction.prepare.displacement
            target = "s.RETURN" if where is None else f"{self.pc + where & MASK64:#x}"
            self.lines.append(f"s.ctpr[{instruction.prepare.ctpr}] = {target}")
        frame = self._new_frame()
        if frame != self.frame:
            self.lines.append(f"s.set_frame({tuple(frame)})")
        if instruction.transfer is not None:
            self._go(go, frame)
            return self.lines, True
        if last or frame != self.frame:
            self.lines.append(f"return {self.next:#x}")
            return self.lines, True
        if self.touches_memory:
            # A device may want the run to end, a store may have changed the very code that follows.
            self.lines.append("if s.attention:")
            self.lines.append(f"    s.ran = {self.index + 1}; return {self.next:#x}")
        return self.lines, False

    # -- transfer of control ----------------------------------------------------------------------

    def _read_condition(self) -> str:
        """Read what a transfer depends on, before anything is written; the condition as text, "" for always."""
        transfer = self.instruction.transfer
        if transfer is None:
            return ""
        go = ""
        if transfer.guard is not None:
            go = _holds(transfer.guard)
            if self.instruction.predicates or any(s.operation.kind is Kind.COMPARE for s in self.instruction.slots):
                self.lines.append(f"go = {go}")
                go = "go"
        if transfer.ctpr:
            ask = f"to = s.prepared({transfer.ctpr}, {self.index}, {transfer.window_base is not None})"
            self.lines.append(f"if {go}: {ask}" if go else ask)
        return go

    def _go(self, go: str, frame: Frame) -> None:
        transfer = self.instruction.transfer
        assert transfer is not None
        if transfer.window_base is not None:
            inner = tuple(called(frame, transfer.window_base))
            jump = f"s.call(to, {transfer.window_base}, {self.next:#x}, {inner}, {self.index})"
        elif transfer.ctpr:
            jump = f"s.give_back({self.index}) if to == s.RETURN else to"
        else:
            jump = f"{self.pc + transfer.displacement & MASK64:#x}"
            if not go and not transfer.displacement and not self.lines:
                jump = f"s.wait({self.pc:#x})"
        self.lines.append(f"if {go}: return {jump}" if go else f"return {jump}")
        if go:
            self.lines.append(f"return {self.next:#x}")

    def _new_frame(self) -> Frame:
        frame = self.results
        if self.instruction.advance:
            frame = frame._replace(current=(frame.current or frame.size + 1) - 1)
        if isinstance(self.instruction.window, SetBase):
            base, size, current = self.instruction.window
            if current > size:
                raise GuestTrap(Trap.ILLEGAL, f"setbn with current {current} beyond size {size}")
            frame = frame._replace(base=base, size=size, current=current)
        return frame

    # -- operations -------------------------------------------------------------------------------

    def _slot(self, slot: Slot, later: tuple[Slot, ...]) -> None:
        kind = slot.operation.kind
        guard = _any(slot.guards)
        if kind is Kind.STORE:
            self._line(guard, self._store(slot))
            return
        value = self._load(slot) if kind is Kind.LOAD else self._value(slot)
        if slot.operation.traps:
            self._line(guard, f"s.k = {self.index}")
            if slot.speculative:
                value = f"s.speculate(lambda: {value})"
        if kind in (Kind.COMPARE, Kind.CONTROL):
            self._keep(slot, guard, value)
            return
        assert isinstance(slot.target, Register)
        target = place(slot.target, self.results)
        narrow = slot.operation.width == 32 and not slot.operation.wide and not self.frame.doubled
        if target in self.late or any(self._needs(following, target) for following in later):
            # Of two writes to one register the second one must stay the second one.
            self.late.add(target)
            name = f"t{slot.channel}"
            self._line(guard, f"{name} = {value}")
            self.writes.append(self._guarded(guard, self._assign(target, name, narrow)))
        else:
            self._line(guard, self._assign(target, value, narrow))

    def _needs(self, slot: Slot, target: str) -> bool:
        """Whether a later operation must find the old value of a register, because it reads it or may trap."""
        if slot.operation.traps or slot.operation.kind in (Kind.LOAD, Kind.STORE):
            return True
        return any(isinstance(source, Register) and place(source, self.frame) == target for source in slot.sources)

    @staticmethod
    def _guarded(guard: str, line: str) -> str:
        return f"if {guard}: {line}" if guard else line

    def _line(self, guard: str, line: str) -> None:
        self.lines.append(self._guarded(guard, line))

    @staticmethod
    def _assign(target: str, value: str, narrow: bool) -> str:
        return f"{target} = {target} & {HIGH} | {value}" if narrow else f"{target} = {value}"

    def _keep(self, slot: Slot, guard: str, value: str) -> None:
        """A predicate or ctpr: its new value is seen by nothing in this wide instruction."""
        name = f"t{slot.channel}"
        self.lines.append(f"{name} = {value}")
        if guard:
            self.lines.append(f"g{slot.channel} = {guard}")
            guard = f"g{slot.channel}"
        place = f"P[{slot.target}]" if slot.operation.kind is Kind.COMPARE else f"s.ctpr[{slot.target}]"
        self.predicate_writes.append(self._guarded(guard, f"{place} = {name}"))

    def _value(self, slot: Slot) -> str:
        operation, sources = slot.operation, slot.sources
        if operation.kind is Kind.CONTROL:
            return self._text(sources[0])
        if operation.name == "addd" and sources[1] == 0:
            return self._text(sources[0])
        if operation.name == "sxt" and isinstance(sources[0], int):
            return self._extend(sources[0], self._text(sources[1]))
        letters = "bB" if operation.kind is Kind.UNARY else "aAbBcC"
        names = {
            "m": f"{(1 << operation.width) - 1:#x}",
            "h": f"{1 << operation.width - 1:#x}",
            "k": str(operation.width - 1),
            "w": str(operation.width),
            "MRGC": f"({_any(slot.choice)})",
        }
        for index, source in enumerate(sources):
            names[letters[2 * index + 1]] = names[letters[2 * index].upper()] = self._text(source)
            names[letters[2 * index].lower()] = self._text(source, operation.width)
        return f"({_NAMES.sub(lambda found: names[found[0]], operation.meaning)})"

    @staticmethod
    def _extend(mode: int, value: str) -> str:
        width = (8, 16, 32, 32)[mode & 3]
        cut = f"({value} & {(1 << width) - 1:#x})"
        half = 1 << width - 1
        return cut if mode & 4 else f"(({cut} ^ {half:#x}) - {half:#x} & {MASK64:#x})"

    def _text(self, source: Source, width: int = 64) -> str:
        if isinstance(source, int):
            return f"{source & (1 << width) - 1:#x}"
        text = place(source, self.frame)
        return text if width == 64 else f"({text} & {LOW})"

    # -- memory -----------------------------------------------------------------------------------

    def _address(self, slot: Slot) -> str:
        first, second = slot.sources[:2]
        if isinstance(first, int) and isinstance(second, int):
            return f"{first + second & MASK64:#x}"
        if isinstance(second, int):
            # Out of range only where the slow path of an access cuts it to 64 bits anyway.
            offset = arithmetic.signed(second, 64)
            return f"{self._text(first)} + {offset}" if offset else self._text(first)
        return f"{self._text(first)} + {self._text(second)} & {MASK64:#x}"

    def _load(self, slot: Slot) -> str:
        size = slot.operation.width // 8
        if slot.mas or slot.speculative:
            return f"s.load_by({self._address(slot)}, {size}, {slot.mas}, {slot.speculative}, {self.index})"
        return f"load{size}({self._address(slot)}, {self.index})"

    def _store(self, slot: Slot) -> str:
        size = slot.operation.width // 8
        value = self._text(slot.sources[2])
        if size < 8:
            value = f"{value} & {(1 << 8 * size) - 1:#x}"
        if slot.mas:
            return f"s.store_by({self._address(slot)}, {value}, {size}, {slot.mas}, {self.index})"
        return f"store{size}({self._address(slot)}, {value}, {self.index})"

    # -- predicates -------------------------------------------------------------------------------

    def _predicate_unit(self) -> None:
        def read(guard: Guard) -> str:
            number = guard.predicate
            text = f"P[{number}]" if number < 32 else f"q{number - 32}"
            return f"not {text}" if guard.inverted else text

        for number, step in enumerate(self.instruction.predicates):
            first, second = read(step.first), read(step.second)
            if step.move:
                self.lines += [f"q{number} = {second}", f"v{number} = {first}"]
            else:
                self.lines.append(f"q{number} = ({first}) and ({second})")
            if step.target is not None:
                condition = f"v{number}" if step.move else ""
                self.predicate_writes.append(self._guarded(condition, f"P[{step.target}] = q{number}"))


HELPERS: dict[str, object] = {
    name: getattr(arithmetic, name)
    for name in (
        "PARITY",
        "divide",
        "divide_long",
        "divide_long_signed",
        "divide_signed",
        "get_field",
        "insert_field",
        "packed_add",
        "packed_equal",
        "reverse_bits",
        "rotate_right",
        "sign_extend",
        "signed",
    )
} | {"add_extended": extended.add_extended}
"""What the meanings of operations.py call."""


@lru_cache(maxsize=4096)
def _compile(text: str) -> CodeType:
    return compile(text, "<wide instructions>", "exec")


def translate(
    fetch: Callable[[int], Instruction], pc: int, frame: Frame, limit: int, namespace: dict[str, object]
) -> Block:
    """The run that starts at pc, of at most `limit` wide instructions; raises GuestTrap if the first one is refused.

    The namespace has HELPERS, R, G, P and load1..store8.
    """
    lines: list[str] = []
    addresses: list[int] = []
    ended = False
    while not ended and len(addresses) < limit:
        try:
            instruction = fetch(pc)
            writer = _Writer(instruction, len(addresses), pc, frame)
            text, ended = writer.write(last=len(addresses) + 1 == limit)
        except GuestTrap:
            if not addresses:
                raise
            break  # it traps only if the guest really gets there
        lines += text
        addresses.append(pc)
        pc += instruction.length
    if not ended:
        lines.append(f"return {pc:#x}")
    body = "\n    ".join(lines)
    scope: dict[str, Any] = {}
    exec(_compile(f"def run(s, R=R, G=G, P=P):\n    w = s.window\n    {body}\n"), namespace, scope)
    return Block(scope["run"], len(addresses), tuple(addresses), pc)
