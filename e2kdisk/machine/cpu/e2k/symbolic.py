"""A wide instruction as an assembler sees it: operations without syllables, literals without places.

build() gives the bundle of a wide instruction, lift() the wide instruction of a bundle. Where a bundle is not what
build() would make of it, some of its syllables stay `raw`, so that build(lift(bundle)) == bundle always.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from e2kdisk.machine.cpu.e2k.arithmetic import signed
from e2kdisk.machine.cpu.e2k.bundle import CHANNELS, Bundle
from e2kdisk.machine.cpu.e2k.decode import (
    CONDITION_ALWAYS,
    CONDITION_FALSE,
    CONDITION_TRUE,
    CONFLICTS,
    CS1_CALL,
    CS1_MAS,
    CS1_SETBN,
    MAS_FIELDS,
    MASK64,
    SS_ADVANCE,
    Guard,
    Prepare,
    SetBase,
    Transfer,
    decode,
    literal,
    operation_of,
)
from e2kdisk.machine.cpu.e2k.operations import NO_SOURCE_3, ONE_SOURCE, Kind, Operation

CONTROL_REGISTER = 0xD0
AND, LOGICAL_AND, MOVE = 0, 1, 3
FORM_BITS = (16, 16, 32, 64)


class Literal(NamedTuple):
    """A number in the place of source 2; bits says how it is encoded (4, 16, 32, 64), None: as short as may be."""

    value: int
    bits: int | None = None


Operand = int | Literal
"""An operand byte, or a literal that has none yet."""


@dataclass(frozen=True)
class Op:
    """One operation."""

    operation: Operation
    channel: int | None
    sources: tuple[Operand, ...]
    """Bytes; source 2 may be a Literal. UNARY and CONTROL have one; TERNARY has source 3 last."""
    target: int
    """A byte; a predicate of COMPARE; a ctpr of CONTROL; the value of STORE."""
    speculative: bool = False
    guards: tuple[Guard, ...] = ()
    mas: int = 0


class PredicateOp(NamedTuple):
    """target = first & second, or second if first."""

    target: int
    first: Guard
    second: Guard
    opcode: int


class Window(NamedTuple):
    """SETWD as written."""

    pairs: int
    nfx: bool
    doubled: bool


@dataclass(frozen=True)
class Wide:
    """A wide instruction; a raw syllable replaces what would be made of the rest."""

    ops: tuple[Op, ...] = ()
    predicates: tuple[PredicateOp, ...] = ()
    transfer: Transfer | None = None
    prepare: Prepare | None = None
    window: Window | None = None
    base: SetBase | None = None
    advance: bool = False
    nop: int = 0
    ss: int | None = None
    cs0: int | None = None
    cs1: int | None = None
    lts: tuple[int, ...] | None = None
    pls: tuple[int, ...] | None = None
    cds: tuple[int, ...] | None = None


class CannotEncode(ValueError):
    """What was asked for does not fit a wide instruction; says why."""


class _Literals:
    """Places for literals: the first one that is free or already holds the value."""

    def __init__(self) -> None:
        self._halves: list[int | None] = [None] * 8

    def place(self, value: int, bits: int) -> int:
        """The operand byte for a value."""
        value &= (1 << bits) - 1
        count = bits // 16
        halves = [value >> 16 * i & 0xFFFF for i in range(count)]
        # 16 bits: LTS0 and 1; 32: LTS0..3; 64: pairs that begin at LTS0..2.
        starts = range(4) if bits == 16 else range(0, 8 - count + 1, 2)
        for start in starts:
            present = self._halves[start : start + count]
            if all(old is None or old == new for old, new in zip(present, halves, strict=True)):
                self._halves[start : start + count] = halves
                form = {16: start & 1, 32: 2, 64: 3}[bits]
                return 0xD0 | form << 2 | start // 2
        raise CannotEncode(f"no room for the literal {value:#x}: a wide instruction has four literal words")

    def words(self) -> tuple[int, ...]:
        """LTS0 upwards, as far as they are used."""
        pairs = zip(self._halves[::2], self._halves[1::2], strict=True)
        words = [None if low is high is None else (high or 0) << 16 | (low or 0) for low, high in pairs]
        while words and words[-1] is None:
            words.pop()
        return tuple(word or 0 for word in words)


def _bits(found: Literal, width: int) -> int:
    if found.bits is not None:
        least, most = (0, 15) if found.bits == 4 else (-1 << found.bits - 1, (1 << found.bits) - 1)
        if not least <= found.value <= most:
            raise CannotEncode(f"{found.value:#x} does not fit a literal of {found.bits} bits")
        return found.bits
    value = found.value
    if not -1 << 63 <= value <= MASK64:
        raise CannotEncode(f"{value:#x} does not fit 64 bits")
    if 0 <= value < 16:
        return 4
    if -1 << 31 <= signed(value, 64) < 1 << 31 or (width == 32 and 0 <= value < 1 << 32):
        return 32
    return 64


def _channels(ops: tuple[Op, ...]) -> list[int]:
    """A channel for each operation: as written, else the lowest that is free."""
    taken = {op.channel for op in ops if op.channel is not None}
    if len(taken) < sum(op.channel is not None for op in ops):
        raise CannotEncode("two operations in one channel")
    kinds = {op.channel: op.operation.kind for op in ops}
    chosen: dict[int, int] = {}

    def possible(kind: Kind, channel: int) -> bool:
        return channel not in taken and not any(
            (kind is Kind.STORE and channel == store and kinds.get(load) is Kind.LOAD)
            or (kind is Kind.LOAD and channel == load and kinds.get(store) is Kind.STORE)
            for store, load in CONFLICTS
        )

    for index, op in sorted(enumerate(ops), key=lambda item: len(item[1].operation.channels)):
        if op.channel is not None:
            if op.channel not in op.operation.channels:
                able = ", ".join(map(str, op.operation.channels))
                raise CannotEncode(f"{op.operation.name} is not possible in channel {op.channel}, only in {able}")
            chosen[index] = op.channel
            continue
        free = [channel for channel in op.operation.channels if possible(op.operation.kind, channel)]
        if not free:
            raise CannotEncode(f"no channel is left for {op.operation.name}")
        chosen[index] = free[0]
        taken.add(free[0])
        kinds[free[0]] = op.operation.kind
    return [chosen[index] for index in range(len(ops))]


class _Builder:
    """Collects the syllables of one wide instruction."""

    def __init__(self, wide: Wide) -> None:
        self.wide = wide
        self.literals = _Literals()
        self.als: list[int | None] = [None] * CHANNELS
        self.ales: list[int | None] = [None] * CHANNELS
        self.cs1: int | None = None
        self.rlp: dict[tuple[int, int, int], int] = {}

    def build(self) -> Bundle:
        wide = self.wide
        if wide.window is not None:
            pairs, nfx, doubled = wide.window
            self._set_cs1(0)
            self.literals.place(pairs << 5 | nfx << 4 | doubled << 3, 32)
        if wide.base is not None:
            base, size, current = wide.base
            if not all(0 <= value < 64 for value in wide.base):
                raise CannotEncode("setbn: rbs, rsz and rcur are 0..63")
            self._set_cs1(CS1_SETBN << 28 | 1 << 26 | current << 12 | size << 6 | base)
        channels = _channels(wide.ops)
        places = self._place_literals()
        for op, channel, place in zip(wide.ops, channels, places, strict=True):
            self._operation(op, channel, place)
        ss, cs0 = self._control()
        lts = self.literals.words() if wide.lts is None else wide.lts
        return Bundle(
            tuple(self.als),
            tuple(self.ales),
            ss if wide.ss is None else wide.ss,
            cs0 if wide.cs0 is None else wide.cs0,
            self.cs1 if wide.cs1 is None else wide.cs1,
            lts,
            self._pls() if wide.pls is None else wide.pls,
            self._cds() if wide.cds is None else wide.cds,
            wide.nop,
        ).padded()

    def _set_cs1(self, value: int) -> None:
        if self.cs1 is not None:
            raise CannotEncode("only one of setwd, setbn, call and I/O or byte order fits a wide instruction")
        self.cs1 = value

    def _place_literals(self) -> list[int]:
        """Source 2 bytes: those with the fewest places are placed first."""
        bytes_: dict[int, int] = {}
        wanted: list[tuple[int, int, int]] = []
        for index, op in enumerate(self.wide.ops):
            source = op.sources[0 if len(op.sources) == 1 else 1]
            if not isinstance(source, Literal):
                bytes_[index] = source
                continue
            bits = _bits(source, op.operation.width if op.operation.kind is not Kind.STORE else 64)
            if bits == 4:
                bytes_[index] = 0xC0 | source.value
            elif self.wide.lts is not None:
                raise CannotEncode("literals must be written as lts0.w and the like beside lts")
            else:
                wanted.append((bits, index, source.value))
        for bits, index, value in sorted(wanted, key=lambda item: ((16, 64, 32).index(item[0]), item[1])):
            bytes_[index] = self.literals.place(value, bits)
        return [bytes_[index] for index in range(len(self.wide.ops))]

    def _operation(self, op: Op, channel: int, source2: int) -> None:
        operation, kind = op.operation, op.operation.kind
        target = op.target
        if kind is Kind.COMPARE:
            target |= (operation.condition or 0) << 5
        elif kind is Kind.CONTROL:
            target |= CONTROL_REGISTER
        source1 = ONE_SOURCE if len(op.sources) == 1 else op.sources[0]
        assert isinstance(source1, int)
        self.als[channel] = op.speculative << 31 | operation.opcode << 24 | source1 << 16 | source2 << 8 | target
        if operation.opc2 is not None:
            source3 = op.sources[2] if kind is Kind.TERNARY else NO_SOURCE_3
            assert isinstance(source3, int)
            self.ales[channel] = operation.opc2 << 8 | source3
        if op.mas:
            self.cs1 = CS1_MAS << 28 if self.cs1 is None else self.cs1
            if self.cs1 >> 28 != CS1_MAS:
                self._set_cs1(0)
            self.cs1 |= op.mas << MAS_FIELDS[channel]
        for guard in op.guards:
            key = (kind is Kind.MERGE, channel // 3, guard.predicate)
            bit = channel % 3
            self.rlp[key] = self.rlp.get(key, 0) | 1 << 10 + bit | guard.inverted << 7 + bit

    def _control(self) -> tuple[int | None, int | None]:
        wide = self.wide
        ss = SS_ADVANCE if wide.advance else None
        cs0: int | None = None
        if wide.prepare is not None:
            cs0 = 0xF000_0000 if wide.prepare.displacement is None else wide.prepare.ctpr << 30
            cs0 |= self._distance(wide.prepare.displacement or 0)
        if wide.transfer is not None:
            guard, ctpr, displacement, base = wide.transfer
            condition = CONDITION_ALWAYS
            if guard is not None:
                condition = CONDITION_FALSE if guard.inverted else CONDITION_TRUE
            ss = (ss or 0) | (guard.predicate if guard else 0) | condition << 5 | ctpr << 10
            if not ctpr:
                if cs0 is not None:
                    raise CannotEncode("a branch and the preparation of a ctpr share one syllable")
                cs0 = self._distance(displacement)
            if base is not None:
                self._set_cs1(CS1_CALL << 28 | base)
        return ss, cs0

    @staticmethod
    def _distance(displacement: int) -> int:
        if displacement % 8 or not -(1 << 30) <= displacement < 1 << 30:
            raise CannotEncode(f"a branch over {displacement} bytes: must be a multiple of 8 within 1 GiB")
        return displacement // 8 & 0xFFF_FFFF

    def _pls(self) -> tuple[int, ...]:
        if len(self.wide.predicates) > 2:
            raise CannotEncode("two predicate operations at most fit")
        words = []
        for number, (target, first, second, opcode) in enumerate(self.wide.predicates):
            pair = 0x6060_0000 | first.predicate << 24 | second.predicate << 16
            step = opcode << 14 | first.inverted << 13 | 2 * number << 10 | second.inverted << 9 | (2 * number + 1) << 6
            words.append(pair | step | 1 << 5 | target)
        return tuple(words)

    def _cds(self) -> tuple[int, ...]:
        halves = []
        for (merge, cluster, predicate), bits in self.rlp.items():
            halves.append(merge << 15 | cluster << 14 | bits | 3 << 5 | predicate)
        halves += [0] * (len(halves) % 2)
        if len(halves) > 6:
            raise CannotEncode("conditions of six kinds at most fit")
        return tuple(low | high << 16 for low, high in zip(halves[::2], halves[1::2], strict=True))


def build(wide: Wide) -> Bundle:
    """The bundle of a wide instruction; raises CannotEncode."""
    return _Builder(wide).build()


def _lift_op(bundle: Bundle, channel: int, raw: frozenset[str]) -> Op:
    word = bundle.als[channel]
    assert word is not None
    operation = operation_of(bundle, channel)
    byte = word >> 8 & 0xFF
    second: Operand = byte
    if 0xC0 <= byte < 0xD0:
        second = Literal(byte & 15)
    elif 0xD0 <= byte < 0xE0 and "lts" not in raw:
        form = byte >> 2 & 3
        found = Literal(signed(literal(bundle.lts, form, byte & 3), 64))
        bits = FORM_BITS[form]
        second = found if _bits(found, 64) == bits else found._replace(bits=bits)
    sources: tuple[Operand, ...] = (second,)
    if operation.kind not in (Kind.UNARY, Kind.CONTROL):
        sources = (word >> 16 & 0xFF, second)
    if operation.kind is Kind.TERNARY:
        sources = (*sources, (bundle.ales[channel] or 0) & 0xFF)
    target = word & 0xFF
    if operation.kind is Kind.COMPARE:
        target &= 0x1F
    elif operation.kind is Kind.CONTROL:
        target &= 0xF
    return Op(operation, channel, sources, target, bool(word >> 31))


def _lift(bundle: Bundle, raw: frozenset[str]) -> Wide:
    """The wide instruction, with these syllables raw; what decode() refuses raises GuestTrap."""
    meaning = decode(bundle)
    guards = {slot.channel: slot.choice or slot.guards for slot in meaning.slots}
    mas = {slot.channel: slot.mas for slot in meaning.slots}
    ops = []
    for channel in range(CHANNELS):
        if bundle.als[channel] is not None:
            op = _lift_op(bundle, channel, raw)
            own_mas = 0 if "cs1" in raw else mas[channel]
            ops.append(replace(op, guards=() if "cds" in raw else guards[channel], mas=own_mas))
    wide = Wide(tuple(ops), nop=bundle.nop)
    if "pls" not in raw:
        steps = enumerate(meaning.predicates)
        wide = replace(
            wide,
            predicates=tuple(
                PredicateOp(step.target or 0, step.first, step.second, bundle.pls[i] >> 14 & 3) for i, step in steps
            ),
        )
    if "ss" not in raw and "cs0" not in raw and "cs1" not in raw:
        wide = replace(wide, transfer=meaning.transfer, advance=meaning.advance)
    if "cs0" not in raw:
        wide = replace(wide, prepare=meaning.prepare)
    if "cs1" not in raw and "lts" not in raw:
        if bundle.cs1 == 0:
            value = bundle.lts[0]
            wide = replace(wide, window=Window(value >> 5 & 0x7F, bool(value >> 4 & 1), bool(value >> 3 & 1)))
        elif isinstance(meaning.window, SetBase):
            wide = replace(wide, base=meaning.window)
    kept = {name: getattr(bundle, name) for name in raw if getattr(bundle, name) not in (None, ())}
    if "lts" in raw and bundle.cs1 == 0:
        kept["cs1"] = 0
    return replace(wide, **kept)


RAW_CHOICES = (
    (),
    ("lts",),
    ("cds",),
    ("pls",),
    ("ss", "cs0", "cs1"),
    ("lts", "cds"),
    ("lts", "cds", "pls"),
    ("lts", "cds", "pls", "ss", "cs0", "cs1"),
)


def lift(bundle: Bundle) -> Wide:
    """The wide instruction of a bundle, as readable as may be; raises GuestTrap for an illegal one."""
    for choice in RAW_CHOICES:
        raw = frozenset(choice)
        try:
            wide = _lift(bundle, raw)
            if build(wide) == bundle:
                return wide
        except CannotEncode:
            pass
    raise CannotEncode("padding that no assembler makes")
