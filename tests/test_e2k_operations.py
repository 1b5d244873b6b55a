"""Every e2k operation computes its definition, which is written here a second time, in other words."""

import platform
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.cpu.e2k.extended import add_extended
from e2kdisk.machine.cpu.e2k.operations import COMBINED_OPC2, OPERATIONS, Kind
from e2kdisk.machine.cpu.e2k.trap import Trap
from tests.e2k_lab import DATA, Lab

M64 = (1 << 64) - 1
OLD = 0xAAAA_AAAA_BBBB_BBBB
INTERESTING = (0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, (1 << 63) - 1, M64)
values = st.sampled_from(INTERESTING) | st.integers(0, M64)


def bits(value, width):
    """The bits as a string, highest first."""
    return format(value % (1 << width), f"0{width}b")


def number(text):
    return int(text or "0", 2)


def as_signed(value, width):
    return int.from_bytes((value % (1 << width)).to_bytes(width // 8, "little"), "little", signed=True)


def rotated(value, width, left):
    text = bits(value, width)
    left %= width
    return number(text[left:] + text[:left])


def bitwise(rule):
    def compute(a, b, width):
        table = {f"{x}{y}": str(int(bool(rule(x, y)))) for x in (0, 1) for y in (0, 1)}
        return number("".join(table[x + y] for x, y in zip(bits(a, width), bits(b, width), strict=True)))

    return compute


def shifted_right(a, b, width, fill):
    text = bits(a, width)
    count = b % width
    return number((fill * count + text)[:width])


def field(a, b, width):
    """GETF by bits: control is offset, length, sign flag, byte of the sign."""
    offset, length, sign, byte = b & 63, b >> 6 & 63, b >> 12 & 1, b >> 13 & 7
    length = min(length, width)
    text = bits(rotated(a, width, -offset), width)[width - length :] if length else ""
    place = (8 * byte + (offset + length - 1) % 8) % width
    fill = bits(a, width)[width - 1 - place] if sign else "0"
    return number(text.rjust(width, fill))


def parity(value):
    return bits(value, 8).count("1") % 2 == 0


BINARY = {
    "and": bitwise(lambda x, y: x and y),
    "andn": bitwise(lambda x, y: x and not y),
    "or": bitwise(lambda x, y: x or y),
    "orn": bitwise(lambda x, y: x or not y),
    "xor": bitwise(lambda x, y: x != y),
    "xorn": bitwise(lambda x, y: x == y),
    "add": lambda a, b, width: (a + b) % (1 << width),
    "sub": lambda a, b, width: (a - b) % (1 << width),
    "rsub": lambda a, b, width: (b - a) % (1 << width),
    "scl": lambda a, b, width: rotated(a, width, b % width),
    "scr": lambda a, b, width: rotated(a, width, -(b % width)),
    "shl": lambda a, b, width: number((bits(a, width) + "0" * (b % width))[-width:]),
    "shr": lambda a, b, width: shifted_right(a, b, width, "0"),
    "sar": lambda a, b, width: shifted_right(a, b, width, bits(a, width)[0]),
    "getf": field,
}
CONDITIONS = {
    "o": lambda a, b, width: not -1 << (width - 1) <= as_signed(a, width) - as_signed(b, width) < 1 << (width - 1),
    "b": lambda a, b, width: a % (1 << width) < b % (1 << width),
    "e": lambda a, b, width: bits(a, width) == bits(b, width),
    "be": lambda a, b, width: a % (1 << width) <= b % (1 << width),
    "s": lambda a, b, width: bits(a - b, width)[0] == "1",
    "p": lambda a, b, width: parity(a - b),
    "l": lambda a, b, width: as_signed(a, width) < as_signed(b, width),
    "le": lambda a, b, width: as_signed(a, width) <= as_signed(b, width),
}
AND_CONDITIONS = {
    "e": lambda a, b, width: "1" not in bits(a & b, width),
    "s": lambda a, b, width: bits(a & b, width)[0] == "1",
    "p": lambda a, b, width: parity(a & b),
    "le": lambda a, b, width: as_signed(a & b, width) <= 0,
}
UNARY = {
    "bitrev": lambda b, width: number(bits(b, width)[::-1]),
    "lzcnt": lambda b, width: len(bits(b, width)) - len(bits(b, width).lstrip("0")),
    "popcnt": lambda b, width: bits(b, width).count("1"),
}
LETTERS = {32: "s", 64: "d"}
pairs = [(name, width) for width in LETTERS for name in BINARY if name != "rsub"]


def merged(old, result, width):
    """A 32-bit result replaces the lower half only."""
    return result if width == 64 else old >> 32 << 32 | result


def compute(text, **registers):
    """Run one wide instruction; r3 afterwards."""
    lab = Lab.again(text, r3=OLD, **registers).step()
    return lab["r3"]


def with_registers(name, a, b, c=0, source3="", channel=None):
    head = name if channel is None else f"{name},{channel}"
    return compute(f"{head} r1, r2{source3} -> r3", r1=a, r2=b, r4=c)


@pytest.mark.parametrize(("name", "width"), pairs)
@given(a=values, b=values)
def test_operations_of_two_sources(name, width, a, b):
    assert with_registers(name + LETTERS[width], a, b) == merged(OLD, BINARY[name](a, b, width), width)


@pytest.mark.parametrize("width", LETTERS)
@pytest.mark.parametrize("name", CONDITIONS)
@given(a=values, b=values)
def test_comparisons(name, width, a, b):
    for other in (b, a, a ^ 1 << width - 1):
        lab = Lab.again(f"cmp{name}{LETTERS[width]}b r1, r2 -> p7", r1=a, r2=other, p7=1).step()
        assert lab["p7"] == CONDITIONS[name](a, other, width)


@pytest.mark.parametrize("width", LETTERS)
@pytest.mark.parametrize("name", AND_CONDITIONS)
@given(a=values, b=values)
def test_comparisons_of_an_and(name, width, a, b):
    lab = Lab.again(f"cmpand{name}{LETTERS[width]}b r1, r2 -> p7", r1=a, r2=b, p7=1).step()
    assert lab["p7"] == AND_CONDITIONS[name](a, b, width)


@pytest.mark.parametrize("width", LETTERS)
@pytest.mark.parametrize("name", UNARY)
@given(b=values)
def test_operations_of_one_source(name, width, b):
    assert compute(f"{name}{LETTERS[width]} r2 -> r3", r2=b) == merged(OLD, UNARY[name](b, width), width)


@given(a=values, b=values, inner=st.sampled_from(sorted(set(BINARY) - {"rsub"})), c=values)
@pytest.mark.parametrize("width", LETTERS)
@pytest.mark.parametrize("outer", ["and", "andn", "or", "orn", "xor", "xorn", "rsub", "add", "sub"])
def test_combinations_of_three_sources(outer, width, a, b, c, inner):
    name = f"{inner}_{outer}{LETTERS[width]}"
    expected = BINARY[outer](c, BINARY[inner](a, b, width), width)
    assert with_registers(name, a, b, c, ", r4") == merged(OLD, expected, width)


@given(a=values, b=values)
def test_multiplications(a, b):
    low = [value % (1 << 32) for value in (a, b)]
    signed32, signed64 = [[as_signed(value, width) for value in (a, b)] for width in (32, 64)]
    assert with_registers("muls", a, b) == merged(OLD, low[0] * low[1] % (1 << 32), 32)
    assert with_registers("muld", a, b) == a * b & M64
    assert with_registers("umulx", a, b) == low[0] * low[1]
    assert with_registers("smulx", a, b) == signed32[0] * signed32[1] & M64
    assert with_registers("umulhd", a, b) == (a * b) // (1 << 64)
    assert with_registers("smulhd", a, b) == signed64[0] * signed64[1] // (1 << 64) & M64


@given(a=values, b=values)
def test_divisions_round_towards_zero(a, b):
    for width, letter in LETTERS.items():
        unsigned, other = a % (1 << width), b % (1 << width)
        if not other:
            assert Lab.again(f"udiv{letter} r1, r2 -> r3", r1=a, r2=b).trap() is Trap.DIVISION
            assert Lab.again(f"sdiv{letter} r1, r2 -> r3", r1=a, r2=b).trap() is Trap.DIVISION
            continue
        assert with_registers(f"udiv{letter}", a, b) == merged(OLD, unsigned // other, width)
        x, y = as_signed(a, width), as_signed(b, width)
        quotient = (x - (abs(x) % abs(y)) * (-1 if x < 0 else 1)) // y
        assert with_registers(f"sdiv{letter}", a, b) == merged(OLD, quotient % (1 << width), width)


@given(high=st.integers(0, M64), divisor=st.integers(1, (1 << 32) - 1), quotient=st.integers(0, (1 << 32) - 1))
def test_long_divisions(high, divisor, quotient):
    remainder = high % divisor
    a = quotient * divisor + remainder
    assert with_registers("udivx", a, divisor) == merged(OLD, quotient, 32)
    assert with_registers("umodx", a, divisor) == merged(OLD, remainder, 32)
    if quotient < 1 << 31:
        minus = -a & M64
        if as_signed(minus, 64) == -a:
            assert with_registers("sdivx", minus, divisor) == merged(OLD, -quotient & 0xFFFF_FFFF, 32)
            assert with_registers("smodx", minus, divisor) == merged(OLD, -remainder & 0xFFFF_FFFF, 32)


@given(mode=st.integers(0, 31), value=values)
def test_sxt_by_number_and_by_register(mode, value):
    width = (8, 16, 32, 32)[mode % 4]
    expected = value % (1 << width) if mode & 4 else as_signed(value, width) & M64
    assert compute(f"sxt {mode}, r2 -> r3", r2=value) == expected
    assert compute("sxt r1, r2 -> r3", r1=mode, r2=value) == expected


@given(a=values, b=values, c=values)
@pytest.mark.parametrize("width", LETTERS)
def test_insf(width, a, b, c):
    length = min(b >> 6 & 63, width)
    kept = bits(rotated(a, width, -(b & 63)), width)[: width - length]
    expected = number(kept + bits(c, width)[width - length :])
    assert with_registers(f"insf{LETTERS[width]}", a, b, c, ", r4") == merged(OLD, expected, width)


@given(a=values, b=values)
def test_packed_operations(a, b):
    def by_lane(letter, rule):
        lanes = [
            struct.unpack(f"<{8 // struct.calcsize(letter)}{letter}", value.to_bytes(8, "little")) for value in (a, b)
        ]
        mask = (1 << 8 * struct.calcsize(letter)) - 1
        result = [rule(x, y) & mask for x, y in zip(*lanes, strict=True)]
        return int.from_bytes(struct.pack(f"<{len(result)}{letter}", *result), "little")

    assert with_registers("paddb", a, b) == by_lane("B", lambda x, y: x + y)
    assert with_registers("paddw", a, b) == by_lane("I", lambda x, y: x + y)
    assert with_registers("paddd", a, b) == by_lane("Q", lambda x, y: x + y)
    assert with_registers("pcmpeqb", a, b) == by_lane("B", lambda x, y: -(x == y))
    assert with_registers("pandd", a, b) == BINARY["and"](a, b, 64)


@given(a=values, b=values)
@pytest.mark.parametrize("condition", [0, 1])
def test_merge_takes_source_2_if_the_predicate_holds(condition, a, b):
    for width, letter in LETTERS.items():
        lab = Lab.again(f"merge{letter} r1, r2 -> r3 ? p5", r1=a, r2=b, r3=OLD, p5=condition).step()
        assert lab["r3"] == merged(OLD, (b if condition else a) % (1 << width), width)


@given(value=values, content=st.binary(min_size=16, max_size=16), data=st.data())
@pytest.mark.parametrize("letter", "bhwd")
def test_loads_and_stores_in_both_byte_orders_at_any_address(letter, value, content, data):
    size = {"b": 1, "h": 2, "w": 4, "d": 8}[letter]
    offset = data.draw(st.integers(0, 16 - size))
    for order, flag in (("little", ""), ("big", ",be")):
        lab = Lab.again(f"ld{letter},ua{flag} [r1 + r2] -> r3\nst{letter},ua{flag} r4 -> [r1 + r2]")
        lab.poke(DATA, content)
        for name, number in {"r1": DATA, "r2": offset, "r3": OLD, "r4": value}.items():
            lab.cpu.write_register(name, number)
        lab.step()
        assert lab["r3"] == int.from_bytes(content[offset : offset + size], order)
        lab.step()
        after = bytes(lab.ram.view[DATA - 0x1_0000_0000 :][:16])
        stored = (value % (1 << 8 * size)).to_bytes(size, order)
        assert after == content[:offset] + stored + content[offset + size :]


CASES = [
    (operation, channel)
    for operation in OPERATIONS.values()
    if operation.opc2 is None or operation.opc2 < COMBINED_OPC2
    for channel in operation.channels
]


@pytest.mark.parametrize(("operation", "channel"), CASES, ids=lambda case: getattr(case, "name", case))
def test_an_operation_does_the_same_in_each_of_its_channels(operation, channel):
    def result(channel):
        lab = Lab.again(text.format(channel=channel), r1=DATA, r2=8, r3=OLD, r4=0x55, p7=1, p8=1)
        lab.poke(DATA + 8, bytes(range(1, 9)))
        lab.step()
        return [lab[name] for name in ("r3", "p7", "ctpr1")] + [lab.peek(DATA + 8)]

    shapes = {
        Kind.UNARY: "r2 -> r3",
        Kind.COMPARE: "r1, r2 -> p7",
        Kind.LOAD: "[r1 + r2] -> r3",
        Kind.STORE: "r4 -> [r1 + r2]",
        Kind.CONTROL: "r2 -> ctpr1",
        Kind.MERGE: "r1, r2 -> r3 ? ~p8",
        Kind.ALU: "r1, r2 -> r3",
    }
    text = f"{operation.name},{{channel}} {shapes[operation.kind]}"
    if operation.name in ("udivx", "umodx", "sdivx", "smodx"):
        text = text.replace("r1", "r4")
    assert result(channel) == result(operation.channels[0])


@st.composite
def parallel_operations(draw):
    """Operations for different channels that read and write the same few registers, each register written once."""
    shapes = {
        Kind.ALU: "{0}, {1} -> {t}",
        Kind.UNARY: "{1} -> {t}",
        Kind.TERNARY: "{0}, {1}, {2} -> {t}",
        Kind.COMPARE: "{0}, {1} -> {p}",
        Kind.MERGE: "{0}, {1} -> {t}",
    }
    targets = draw(st.permutations([f"r{n}" for n in range(6)]))
    found = []
    for channel, target in zip(sorted(draw(st.sets(st.integers(0, 5), min_size=2))), targets, strict=False):
        choice = [o for o in OPERATIONS.values() if channel in o.channels and o.kind in shapes and not o.traps]
        operation = draw(st.sampled_from(choice))
        sources = [f"r{draw(st.integers(0, 5))}" for _ in range(3)]
        guarded = operation.kind is Kind.MERGE or draw(st.booleans())
        guard = f" ? {draw(st.sampled_from(['', '~']))}p{draw(st.integers(0, 5))}" if guarded else ""
        text = shapes[operation.kind].format(*sources, t=target, p="p" + target[1:])
        found.append(f"{operation.name},{channel} {text}{guard}")
    return found


@given(operations=parallel_operations(), old=st.lists(values, min_size=6, max_size=6), p=st.integers(0, 63))
def test_operations_side_by_side_do_what_each_does_alone(operations, old, p):
    registers = {f"r{n}": value for n, value in enumerate(old)} | {f"p{n}": p >> n & 1 for n in range(6)}

    def after(text):
        lab = Lab(text, **registers).step()
        return {name: lab[name] for name in registers}

    expected = dict(registers)
    for operation in operations:
        expected |= {name: value for name, value in after(operation).items() if value != registers[name]}
    together = assemble("{ " + "; ".join(operations) + " }")
    assert after(together.code) == expected


doubles = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-1074, 2.0**-1022, 2.0**1023, 2.0**53 + 2])


@given(doubles, doubles)
def test_fxadddd_gives_the_significand_that_the_host_computes(a, b):
    if platform.machine() not in ("x86_64", "i686"):  # the host's long double is another format
        assert add_extended(*(int.from_bytes(struct.pack("<d", x), "little") for x in (1.0, 1.0))) == 1 << 63
        return
    first, second = (int.from_bytes(struct.pack("<d", x), "little") for x in (a, b))
    found = with_registers("fxadddd", first, second)
    with np.errstate(all="ignore"):
        total = np.longdouble(a) + np.longdouble(b)
    if np.isnan(total):
        assert found >> 62 == 3  # a quiet NaN; which one is left open
    else:
        assert found == int.from_bytes(total.tobytes()[:8], "little")
