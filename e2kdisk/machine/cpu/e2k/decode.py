"""Bundle -> Instruction: what a wide instruction does, as typed values; and which bundles are illegal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from e2kdisk.machine.cpu.e2k.bundle import CHANNELS, Bundle
from e2kdisk.machine.cpu.e2k.operations import FLOATING, NO_SOURCE_3, ONE_SOURCE, Kind, Operation, find
from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

MASK64 = (1 << 64) - 1


class Register(NamedTuple):
    """A register by its file: r (window), b (based window), g (global)."""

    file: str
    number: int


Source = Register | int
"""A register, or the 64-bit value of a literal."""


class Guard(NamedTuple):
    """A predicate, or its opposite."""

    predicate: int
    inverted: bool


@dataclass(frozen=True)
class Slot:
    """One operation in its channel."""

    channel: int
    operation: Operation
    speculative: bool
    sources: tuple[Source, ...]
    """Sources 1, 2, 3 as far as there are; the value of a store is the last."""
    target: Register | int | None
    """A register, or the number of a predicate or ctpr."""
    guards: tuple[Guard, ...] = ()
    """Carried out if one of them holds, or there is none."""
    choice: tuple[Guard, ...] = ()
    """What a merge decides by."""
    mas: int = 0


class PredicateStep(NamedTuple):
    """One CLP: inputs are predicates or earlier steps (32 + number)."""

    first: Guard
    second: Guard
    move: bool
    """The target gets `second`, if `first` holds; else it gets both and-ed."""
    target: int | None


class Transfer(NamedTuple):
    """A change of pc: by displacement (ctpr 0) or through a ctpr; a call if it has a window base."""

    guard: Guard | None
    ctpr: int
    displacement: int = 0
    window_base: int | None = None


class Prepare(NamedTuple):
    """What a ctpr gets: a displacement from this bundle, or the return address (None)."""

    ctpr: int
    displacement: int | None


class SetWindow(NamedTuple):
    """SETWD: pairs of registers, and whether 32-bit results clear the upper half."""

    pairs: int
    doubled: bool


class SetBase(NamedTuple):
    """SETBN: where the based window lies, its size less one, and where it begins to count, all in pairs."""

    base: int
    size: int
    current: int


@dataclass(frozen=True)
class Instruction:
    """A wide instruction."""

    length: int
    slots: tuple[Slot, ...]
    predicates: tuple[PredicateStep, ...] = ()
    transfer: Transfer | None = None
    prepare: Prepare | None = None
    window: SetWindow | SetBase | None = None
    advance: bool = False
    """The based window moves by one pair at the end."""


MAS_FIELDS = {0: 21, 2: 14, 3: 7, 5: 0}
MAS_MODE, MAS_BIG_ENDIAN, MAS_UNALIGNED = 7, 8, 16
MAS_MODES = (0, 1, 6)
"""Normal, physical, I/O."""
CONDITION_ALWAYS, CONDITION_TRUE, CONDITION_FALSE = 1, 2, 3
CS1_SETWD, CS1_SETBN, CS1_CALL, CS1_MAS = 0, 4, 5, 6
SS_ADVANCE = 3 << 21
CONFLICTS = ((2, 3), (5, 0))
"""A store in the first channel excludes a load in the second."""
MAX_PAIRS = 112


def register(byte: int) -> Register:
    """The register of an operand byte; raises GuestTrap if it names none."""
    if byte < 0x80:
        return Register("b", byte)
    if byte < 0xC0:
        return Register("r", byte & 0x3F)
    if byte >= 0xE0:
        return Register("g", byte & 0x1F)
    raise GuestTrap(Trap.ILLEGAL, f"operand {byte:#04x} where a register must be")


def source1(byte: int) -> Source:
    """Source 1: a register or 5 bits."""
    return byte & 0x1F if 0xC0 <= byte < 0xE0 else register(byte)


def literal(lts: tuple[int, ...], form: int, index: int) -> int:
    """The literal of an operand byte 0xd0 | form << 2 | index."""
    need = index + (2 if form == 3 else 1)
    if need > min(4, len(lts)) or (form < 2 and index > 1):
        raise GuestTrap(Trap.ILLEGAL, f"no literal {index} of this size")
    word = lts[index]
    if form == 3:
        return lts[index + 1] << 32 | word
    if form == 2:
        return (word ^ 1 << 31) - (1 << 31) & MASK64
    word = word >> 16 * form & 0xFFFF
    return (word ^ 0x8000) - 0x8000 & MASK64


def source2(byte: int, lts: tuple[int, ...]) -> Source:
    """Source 2: a register, 4 bits or a literal."""
    if 0xC0 <= byte < 0xD0:
        return byte & 0xF
    return literal(lts, byte >> 2 & 3, byte & 3) if 0xD0 <= byte < 0xE0 else register(byte)


def operation_of(bundle: Bundle, channel: int) -> Operation:
    """The operation in a channel; raises GuestTrap if there is none such."""
    word, ales = bundle.als[channel], bundle.ales[channel]
    assert word is not None
    opcode, opc2 = word >> 24 & 0x7F, None if ales is None else ales >> 8
    operation = find(channel, opcode, opc2, word >> 5 & 7)
    one_source = operation is not None and operation.kind in (Kind.UNARY, Kind.CONTROL)
    if operation is None or (one_source and word >> 16 & 0xFF != ONE_SOURCE):
        floating = opc2 is None and opcode in FLOATING and channel not in (2, 5)
        raise GuestTrap(
            Trap.UNSUPPORTED if floating else Trap.ILLEGAL,
            f"opcode {opcode:#04x}{'' if opc2 is None else f' with ALES {ales:#06x}'} in channel {channel}",
        )
    if opc2 is not None and operation.kind is not Kind.TERNARY and ales is not None and ales & 0xFF != NO_SOURCE_3:
        raise GuestTrap(Trap.ILLEGAL, f"ALES {ales:#06x} in channel {channel}")
    return operation


def slot_of(bundle: Bundle, channel: int, guards: _Guards, mas: int) -> Slot:
    """What a channel does."""
    word = bundle.als[channel]
    assert word is not None
    operation = operation_of(bundle, channel)
    sources: tuple[Source, ...] = (source2(word >> 8 & 0xFF, bundle.lts),)
    if operation.kind not in (Kind.UNARY, Kind.CONTROL):
        sources = (source1(word >> 16 & 0xFF), *sources)
    if operation.kind is Kind.TERNARY:
        sources = (*sources, register((bundle.ales[channel] or 0) & 0xFF))
    target: Register | int | None
    byte = word & 0xFF
    if operation.kind is Kind.COMPARE:
        target = byte & 0x1F
    elif operation.kind is Kind.CONTROL:
        target = byte & 0xF
        if byte not in (0xD1, 0xD2, 0xD3):
            raise GuestTrap(Trap.UNSUPPORTED, f"state register {byte:#04x}")
    elif operation.kind is Kind.STORE:
        sources, target = (*sources, register(byte)), None
    else:
        target = register(byte)
    if operation.kind is Kind.MERGE and not guards.choices[channel]:
        raise GuestTrap(Trap.ILLEGAL, "merge without a predicate")
    if operation.kind not in (Kind.LOAD, Kind.STORE):
        mas = 0
    elif mas & MAS_MODE not in MAS_MODES:
        raise GuestTrap(Trap.UNSUPPORTED, f"MAS {mas:#04x}")
    return Slot(
        channel,
        operation,
        bool(word >> 31),
        sources,
        target,
        tuple(guards.guards[channel]),
        tuple(guards.choices[channel]),
        mas,
    )


class _Guards:
    """The RLPs of a bundle: two in each CDS, lower half first."""

    def __init__(self, cds: tuple[int, ...]) -> None:
        self.guards: list[list[Guard]] = [[] for _ in range(CHANNELS)]
        self.choices: list[list[Guard]] = [[] for _ in range(CHANNELS)]
        for word in cds:
            for half in (word & 0xFFFF, word >> 16):
                if half:
                    self._add(half)

    def _add(self, half: int) -> None:
        if half >> 5 & 3 != 3 or half >> 13 & 1:
            raise GuestTrap(Trap.UNSUPPORTED, f"condition {half:#06x} of an operation")
        by_channel = self.choices if half >> 15 else self.guards
        for index in range(3):
            if half >> 10 + index & 1:
                channel = index + 3 * (half >> 14 & 1)
                by_channel[channel].append(Guard(half & 0x1F, bool(half >> 7 + index & 1)))


def predicate_steps(pls: tuple[int, ...]) -> Iterator[PredicateStep]:
    """The steps of the predicate unit, one a PLS."""
    pairs = [byte for word in pls[:2] for byte in (word >> 24, word >> 16 & 0xFF)]

    def place(selector: int, step: int) -> int:
        if selector < len(pairs) and selector < 4:
            if pairs[selector] >> 5 != 3:
                raise GuestTrap(Trap.UNSUPPORTED, f"predicate source {pairs[selector]:#04x}")
            return pairs[selector] & 0x1F
        if 4 <= selector < 4 + step:
            return 32 + selector - 4
        raise GuestTrap(Trap.ILLEGAL, f"predicate input {selector}")

    for step, word in enumerate(pls):
        if not word & 0xFFFF:
            continue
        opcode = word >> 14 & 3
        if opcode == 2 or (step == 2 and word >> 16):
            raise GuestTrap(Trap.UNSUPPORTED, f"predicate operation {word:#010x}")
        first = Guard(place(word >> 10 & 7, step), bool(word >> 13 & 1))
        second = Guard(place(word >> 6 & 7, step), bool(word >> 9 & 1))
        yield PredicateStep(first, second, opcode == 3, word & 0x1F if word >> 5 & 1 else None)


def _transfer(bundle: Bundle) -> Transfer | None:
    """The branch, jump or call of a bundle."""
    ss, cs0 = bundle.ss, bundle.cs0
    branches = cs0 is not None and cs0 >> 28 == 0
    calls = bundle.cs1 is not None and bundle.cs1 >> 28 == CS1_CALL
    condition = 0 if ss is None else ss >> 5 & 15
    ctpr = 0 if ss is None else ss >> 10 & 3
    if not condition:
        if branches or ctpr or calls:
            raise GuestTrap(Trap.ILLEGAL, "a branch without a condition")
        return None
    if condition > CONDITION_FALSE:
        raise GuestTrap(Trap.UNSUPPORTED, f"branch condition {condition}")
    if branches == bool(ctpr):
        raise GuestTrap(Trap.ILLEGAL, "a condition without one branch")
    assert ss is not None
    guard = None if condition == CONDITION_ALWAYS else Guard(ss & 0x1F, condition == CONDITION_FALSE)
    if calls:
        if not ctpr:
            raise GuestTrap(Trap.ILLEGAL, "a call without a ctpr")
        return Transfer(guard, ctpr, 0, (bundle.cs1 or 0) & 0x7F)
    return Transfer(guard, ctpr, 0 if ctpr else displacement(cs0 or 0))


def displacement(cs0: int) -> int:
    """Bytes from the bundle's own address."""
    return ((cs0 & 0xFFF_FFFF ^ 1 << 27) - (1 << 27)) * 8


def _prepare(cs0: int | None) -> Prepare | None:
    if cs0 is None or cs0 >> 28 == 0:
        return None
    match cs0 >> 28 & 3, cs0 >> 30:
        case 0, ctpr:
            return Prepare(ctpr, displacement(cs0))
        case 3, 3 if cs0 == 0xF000_0000:
            return Prepare(3, None)
    raise GuestTrap(Trap.UNSUPPORTED, f"CS0 {cs0:#010x}")


def _window(bundle: Bundle) -> SetWindow | SetBase | None:
    cs1 = bundle.cs1
    match None if cs1 is None else cs1 >> 28:
        case None | 6 | 5:  # the others ask for these
            return None
        case 0 if cs1 == 0:
            value = literal(bundle.lts, 2, 0)
            return SetWindow(value >> 5 & 0x7F, bool(value >> 3 & 1))
        case 4 if cs1 is not None and cs1 >> 26 & 3 == 1 and not cs1 & 0x03FC_0000:
            return SetBase(cs1 & 0x3F, cs1 >> 6 & 0x3F, cs1 >> 12 & 0x3F)
    raise GuestTrap(Trap.ILLEGAL, f"CS1 {cs1:#010x}")


def decode(bundle: Bundle) -> Instruction:
    """What a bundle does; raises GuestTrap if it does nothing legal or nothing that is known here."""
    if bundle.ss is not None and bundle.ss & ~(SS_ADVANCE | 0xDFF):
        raise GuestTrap(Trap.UNSUPPORTED, f"SS {bundle.ss:#010x}")
    advance = (bundle.ss or 0) & SS_ADVANCE
    if advance not in (0, SS_ADVANCE):
        raise GuestTrap(Trap.UNSUPPORTED, f"SS {bundle.ss:#010x}")
    guards = _Guards(bundle.cds)
    mas = bundle.cs1 if bundle.cs1 is not None and bundle.cs1 >> 28 == CS1_MAS else 0
    slots = []
    for channel in range(CHANNELS):
        if bundle.als[channel] is not None:
            own_mas = mas >> MAS_FIELDS[channel] & 0x7F if channel in MAS_FIELDS else 0
            slots.append(slot_of(bundle, channel, guards, own_mas))
        elif bundle.ales[channel] is not None:
            raise GuestTrap(Trap.ILLEGAL, f"ALES without an operation in channel {channel}")
    kinds = {slot.channel: slot.operation.kind for slot in slots}
    for store, load in CONFLICTS:
        if kinds.get(store) is Kind.STORE and kinds.get(load) is Kind.LOAD:
            raise GuestTrap(Trap.ILLEGAL, f"store in channel {store} with load in channel {load}")
    return Instruction(
        bundle.length,
        tuple(slots),
        tuple(predicate_steps(bundle.pls)),
        _transfer(bundle),
        _prepare(bundle.cs0),
        _window(bundle),
        bool(advance),
    )
