"""e2k wide instructions as text that the assembler turns into the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache

from e2kdisk.machine.cpu.e2k.bundle import length_of, pack, unpack
from e2kdisk.machine.cpu.e2k.decode import MASK64, Guard
from e2kdisk.machine.cpu.e2k.operations import Kind
from e2kdisk.machine.cpu.e2k.symbolic import LOGICAL_AND, MOVE, CannotEncode, Literal, Op, Operand, Wide, lift
from e2kdisk.machine.cpu.e2k.trap import GuestTrap

MAS_NAMES = {6: "io", 8: "be", 16: "ua"}
LITERAL_PARTS = ("lo", "hi", "w", "d")


def number(value: int) -> str:
    """A number for people."""
    return str(value) if -10 < value < 10 else f"{value:#x}"


def register(byte: int) -> str:
    """The register of an operand byte."""
    if byte < 0x80:
        return f"b{byte}"
    return f"r{byte & 0x3F}" if byte < 0xC0 else f"g{byte & 0x1F}"


def _operand(operand: Operand) -> str:
    if isinstance(operand, Literal):
        text = number(operand.value)
        return text if operand.bits is None else f"lit{operand.bits}({text})"
    if 0xC0 <= operand < 0xE0:
        return f"lts{operand & 3}.{LITERAL_PARTS[operand >> 2 & 3]}"
    return register(operand)


def _source1(operand: Operand) -> str:
    assert isinstance(operand, int)
    return str(operand & 0x1F) if 0xC0 <= operand < 0xE0 else register(operand)


def _guard(guard: Guard) -> str:
    return f"{'~' if guard.inverted else ''}p{guard.predicate}"


def _condition(guards: tuple[Guard, ...]) -> str:
    return f" ? {' | '.join(map(_guard, guards))}" if guards else ""


def mas_names(mas: int) -> list[str]:
    """MAS as the modifiers of a mnemonic."""
    names = []
    for bits, name in MAS_NAMES.items():
        if (bits > 7 and mas & bits) or mas & 7 == bits:
            names.append(name)
            mas &= ~bits
    return [*names, f"mas={mas:#x}"] if mas else names


def _address(first: Operand, second: Operand) -> str:
    if isinstance(first, int) and 0xC0 <= first < 0xE0:
        immediate = first & 0x1F
        if immediate == 0 and isinstance(second, Literal):
            return f"[{_operand(second)}]"
        return f"[{immediate}, {_operand(second)}]"
    assert isinstance(first, int)
    if isinstance(second, Literal) and second.bits is None:
        if second.value == 0:
            return f"[{register(first)}]"
        sign = "-" if second.value < 0 else "+"
        return f"[{register(first)} {sign} {number(abs(second.value))}]"
    return f"[{register(first)} + {_operand(second)}]"


def operation(op: Op) -> str:
    """One operation."""
    kind = op.operation.kind
    modifiers = [op.operation.name]
    if op.channel is not None:
        modifiers.append(str(op.channel))
    if op.speculative:
        modifiers.append("sm")
    head = ",".join(modifiers + mas_names(op.mas))
    target = register(op.target)
    match kind:
        case Kind.LOAD:
            text = f"{_address(*op.sources)} -> {target}"
        case Kind.STORE:
            text = f"{target} -> {_address(*op.sources)}"
        case Kind.UNARY:
            text = f"{_operand(op.sources[0])} -> {target}"
        case Kind.CONTROL:
            text = f"{_operand(op.sources[0])} -> ctpr{op.target}"
        case Kind.COMPARE:
            text = f"{_source1(op.sources[0])}, {_operand(op.sources[1])} -> p{op.target}"
        case _:
            rest = ", ".join(map(_operand, op.sources[1:]))
            text = f"{_source1(op.sources[0])}, {rest} -> {target}"
    return f"{head} {text}{_condition(op.guards)}"


def _control(wide: Wide, address: int) -> Iterator[str]:
    """What happens to pc, the ctprs and the windows."""
    if wide.prepare is not None:
        ctpr, displacement = wide.prepare
        if displacement is None:
            yield f"return ctpr{ctpr}"
        else:
            yield f"disp ctpr{ctpr}, {address + displacement & MASK64:#x}"
    if wide.transfer is not None:
        guard, ctpr, distance, base = wide.transfer
        condition = _condition(() if guard is None else (guard,))
        if base is not None:
            yield f"call ctpr{ctpr}, wbs={base}{condition}"
        elif ctpr:
            yield f"ct ctpr{ctpr}{condition}"
        else:
            yield f"branch {address + distance & MASK64:#x}{condition}"
    if wide.window is not None:
        yield f"setwd wsz={wide.window.pairs}, nfx={int(wide.window.nfx)}, dbl={int(wide.window.doubled)}"
    if wide.base is not None:
        yield f"setbn rbs={wide.base.base}, rsz={wide.base.size}, rcur={wide.base.current}"
    if wide.advance:
        yield "advance"


def _raw(wide: Wide) -> Iterator[str]:
    """Syllables that are written as they are."""
    for name in ("ss", "cs0", "cs1"):
        word = getattr(wide, name)
        if word is not None:
            yield f"{name} {word:#x}"
    for name in ("lts", "pls", "cds"):
        words = getattr(wide, name)
        if words is not None:
            yield f"{name} {', '.join(f'{word:#x}' for word in words)}"


def items(wide: Wide, address: int) -> Iterator[str]:
    """The parts of a wide instruction at an address."""
    yield from map(operation, wide.ops)
    for target, first, second, opcode in wide.predicates:
        if opcode == MOVE:
            yield f"p{target} = {_guard(second)} if {_guard(first)}"
        else:
            yield f"p{target} = {_guard(first)} {'&&' if opcode == LOGICAL_AND else '&'} {_guard(second)}"
    yield from _control(wide, address)
    yield from _raw(wide)
    if wide.nop:
        yield f"nop {wide.nop}"


@lru_cache(maxsize=4096)
def disassemble(code: bytes, address: int = 0) -> str:
    """The wide instruction at the start of `code`, in one line; `.word ...` for what is none."""
    try:
        bundle = unpack(code)
        if pack(bundle) != code[: bundle.length]:
            raise CannotEncode("bits that mean nothing")
        parts = list(items(lift(bundle), address))
    except (GuestTrap, CannotEncode):
        count = min(length_of(code[0]), len(code)) // 4 if code else 0
        return ".word " + ", ".join(f"{word:#010x}" for word in struct.unpack_from(f"<{count}I", code))
    if len(parts) == 1:
        return parts[0]
    return f"{{ {'; '.join(parts)} }}" if parts else "{ }"


def listing(code: bytes, base: int = 0) -> Iterator[tuple[int, bytes, str]]:
    """Address, bytes and text of each wide instruction; what is cut off at the end comes as .byte."""
    at = 0
    while at < len(code):
        length = length_of(code[at])
        part = code[at : at + length]
        if len(part) < length:
            text = ".byte " + ", ".join(f"{byte:#04x}" for byte in part)
        else:
            text = disassemble(part, base + at)
        yield base + at, part, text
        at += length
