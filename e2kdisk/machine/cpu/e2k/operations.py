"""The table of operations: how each is called and encoded, where it may stand, and what it computes.

Meanings are Python expressions over these names (w is the operation's width in bits, 32 or 64):

    a b c   the sources 1, 2, 3, cut to w bits      A B C   the same, all 64 bits
    m       w ones      h  the sign bit             k       w - 1, the mask of a shift count
    w       the width

They must be pure. The result is in the range of w bits and replaces as many of the destination, or all 64 if wide.
translate.py puts registers in the place of the names; the functions are those of arithmetic.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The shape of an operation's operands."""

    ALU = "src1, src2 -> dst"
    UNARY = "src2 -> dst"
    TERNARY = "src1, src2, src3 -> dst"
    MERGE = "src1, src2 -> dst by a predicate"
    COMPARE = "src1, src2 -> predicate"
    LOAD = "[src1 + src2] -> dst"
    STORE = "dst -> [src1 + src2]"
    CONTROL = "src2 -> ctpr"


@dataclass(frozen=True)
class Operation:
    """One row."""

    name: str
    opcode: int
    kind: Kind
    channels: tuple[int, ...]
    width: int
    """Bits of the operands; of the datum for loads and stores."""
    meaning: str = ""
    wide: bool = False
    """The result replaces all 64 bits whatever the width."""
    opc2: int | None = None
    """The ALES syllable that it needs: its upper byte."""
    condition: int | None = None
    """Of a comparison: the upper bits of its destination byte."""
    traps: bool = False
    """The meaning can end in a GuestTrap, so it must not be computed for an operation predicated off."""


ALL, MOST, MIDDLE, FIFTH = (0, 1, 2, 3, 4, 5), (0, 1, 3, 4), (1, 4), (5,)
LOADS, STORES = (0, 2, 3, 5), (2, 5)
ONE_SOURCE = 0xC0
"""The source 1 byte of operations with one source: a sub-opcode."""
NO_SOURCE_3 = 0xC0
"""The lower byte of an ALES that only extends the opcode."""

BINARY = {
    # name: (opcode of the 32-bit form, meaning); the 64-bit form is the next opcode
    "and": (0x00, "a & b"),
    "andn": (0x02, "a & ~B"),
    "or": (0x04, "a | b"),
    "orn": (0x06, "(A | ~B) & m"),
    "xor": (0x08, "a ^ b"),
    "xorn": (0x0A, "(A ^ ~B) & m"),
    "add": (0x10, "(A + B) & m"),
    "sub": (0x12, "(A - B) & m"),
    "scl": (0x14, "rotate_right(a, -B & k, w)"),
    "scr": (0x16, "rotate_right(a, B, w)"),
    "shl": (0x18, "(A << (B & k)) & m"),
    "shr": (0x1A, "a >> (B & k)"),
    "sar": (0x1C, "((a ^ h) - h >> (B & k)) & m"),
    "getf": (0x1E, "get_field(a, B, w)"),
}

CONDITIONS = (
    ("o", "(A ^ B) & (A ^ (A - B)) & h != 0"),
    ("b", "a < b"),
    ("e", "a == b"),
    ("be", "a <= b"),
    ("s", "(A - B) & h != 0"),
    ("p", "PARITY[(A - B) & 255]"),
    ("l", "(a ^ h) < (b ^ h)"),
    ("le", "(a ^ h) <= (b ^ h)"),
)
AND_CONDITIONS = {
    2: ("e", "A & B & m == 0"),
    4: ("s", "A & B & h != 0"),
    5: ("p", "PARITY[A & B & 255]"),
    7: ("le", "((A & B & m) ^ h) <= h"),
}

MULTIPLIES = {
    # name: (opcode, width, meaning, wide)
    "muls": (0x20, 32, "(A * B) & m", False),
    "muld": (0x21, 64, "(A * B) & m", False),
    "umulx": (0x22, 32, "a * b", True),
    "smulx": (0x23, 32, "signed(a, w) * signed(b, w) & 0xFFFFFFFFFFFFFFFF", True),
    "umulhd": (0x70, 64, "A * B >> 64", False),
    "smulhd": (0x71, 64, "signed(A, w) * signed(B, w) >> 64 & m", False),
}
PACKED = {
    "paddb": (0x08, "packed_add(A, B, 8)"),
    "paddw": (0x0E, "packed_add(A, B, 32)"),
    "paddd": (0x0F, "(A + B) & m"),
    "pcmpeqb": (0x18, "packed_equal(A, B, 8)"),
    "pandd": (0x48, "A & B"),
}
DIVISIONS = (
    ("udivs", 32, "divide(a, b)"),
    ("udivd", 64, "divide(a, b)"),
    ("sdivs", 32, "divide_signed(a, b, w)"),
    ("sdivd", 64, "divide_signed(a, b, w)"),
    ("udivx", 32, "divide_long(A, b, False)"),
    ("umodx", 32, "divide_long(A, b, True)"),
    ("sdivx", 32, "divide_long_signed(A, b, False)"),
    ("smodx", 32, "divide_long_signed(A, b, True)"),
)
BIT_COUNTS = {
    "bitrev": (0x26, MOST, "reverse_bits(b, w)"),
    "lzcnt": (0x64, MIDDLE, "w - b.bit_length()"),
    "popcnt": (0x66, MIDDLE, "b.bit_count()"),
}
INNER = ("and", "andn", "or", "orn", "xor", "xorn", None, None, "add", "sub", "scl", "scr", "shl", "shr", "sar", "getf")
OUTER = {
    # by its number: (name, meaning with the inner result as b and source 3 as a)
    **{number: (name, BINARY[name][1]) for number, name in enumerate(INNER[:6]) if name},
    6: ("rsub", "(B - A) & m"),
    8: ("add", BINARY["add"][1]),
    9: ("sub", BINARY["sub"][1]),
}
COMBINED_OPC2, INSERT_OPC2, EXTENDED_OPC2 = 8, 0x0B, 0x01

SIZES = {"b": 8, "h": 16, "w": 32, "d": 64}
PAIR = (("s", 32), ("d", 64))


def _nested(outer: str, inside: str) -> str:
    names = {"a": "c", "A": "C", "b": inside, "B": inside}
    return re.sub(r"\b[abAB]\b", lambda found: names[found[0]], outer)


def _combined() -> Iterator[Operation]:
    """Destination = source 3 OUTER (source 1 INNER source 2): all pairs, both widths."""
    for outer, (outer_name, outer_meaning) in OUTER.items():
        for inner, inner_name in enumerate(INNER):
            if inner_name is None:
                continue
            inside = f"({BINARY[inner_name][1]})"
            meaning = _nested(outer_meaning, inside)
            for d, (letter, width) in enumerate(PAIR):
                code = (outer & 3) << 5 | inner << 1 | d
                opc2 = COMBINED_OPC2 + (outer >> 2)
                name = f"{inner_name}_{outer_name}{letter}"
                yield Operation(name, code, Kind.TERNARY, MIDDLE, width, meaning, opc2=opc2)


def _operations() -> Iterator[Operation]:
    for d, (letter, width) in enumerate(PAIR):
        for name, (code, meaning) in BINARY.items():
            yield Operation(name + letter, code + d, Kind.ALU, ALL, width, meaning)
        yield Operation(f"merge{letter}", 0x0E + d, Kind.MERGE, ALL, width, "b if MRGC else a")
        for condition, (name, meaning) in enumerate(CONDITIONS):
            yield Operation(f"cmp{name}{letter}b", 0x20 + d, Kind.COMPARE, MOST, width, meaning, condition=condition)
        for condition, (name, meaning) in AND_CONDITIONS.items():
            yield Operation(f"cmpand{name}{letter}b", 0x22 + d, Kind.COMPARE, MOST, width, meaning, condition=condition)
        for name, (code, channels, meaning) in BIT_COUNTS.items():
            yield Operation(name + letter, code + d, Kind.UNARY, channels, width, meaning)
        meaning = "insert_field(a, B, C, w)"
        yield Operation(f"insf{letter}", 0x6C + d, Kind.TERNARY, MOST, width, meaning, opc2=INSERT_OPC2)
    yield Operation("sxt", 0x0C, Kind.ALU, ALL, 32, "sign_extend(A, B)", wide=True)
    for number, (name, width) in enumerate(SIZES.items()):
        yield Operation(f"ld{name}", 0x64 + number, Kind.LOAD, LOADS, width, wide=True)
        yield Operation(f"st{name}", 0x24 + number, Kind.STORE, STORES, width)
    for number, (name, width, meaning) in enumerate(DIVISIONS):
        yield Operation(name, 0x40 + number, Kind.ALU, FIFTH, width, meaning, traps=True)
    for name, (code, width, meaning, wide) in MULTIPLIES.items():
        yield Operation(name, code, Kind.ALU, MOST, width, meaning, wide, EXTENDED_OPC2)
    for name, (code, meaning) in PACKED.items():
        yield Operation(name, code, Kind.ALU, MOST, 64, meaning, opc2=EXTENDED_OPC2)
    yield Operation("fxadddd", 0x41, Kind.ALU, MOST, 64, "add_extended(a, b)")
    yield Operation("movtd", 0x61, Kind.CONTROL, (0,), 64)
    yield from _combined()


OPERATIONS = {operation.name: operation for operation in _operations()}
"""By name."""

FLOATING = range(0x30, 0x64)
"""Opcodes of channels 0, 1, 3, 4 that are floating point on an Elbrus where this table has nothing."""

_LOOKUP: dict[tuple[int, int | None, int, int | None], Operation] = {
    (channel, operation.opc2, operation.opcode, operation.condition): operation
    for operation in OPERATIONS.values()
    for channel in operation.channels
}


def find(channel: int, opcode: int, opc2: int | None, condition: int) -> Operation | None:
    """The operation of an encoding; `condition` counts for comparisons only."""
    found = _LOOKUP.get((channel, opc2, opcode, None))
    return found or _LOOKUP.get((channel, opc2, opcode, condition))
