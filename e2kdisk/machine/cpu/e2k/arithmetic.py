"""What some operations compute, where one Python expression would not say it clearly. Values are unsigned."""

from __future__ import annotations

from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

PARITY = tuple(not value.bit_count() & 1 for value in range(256))
"""Whether a byte has an even number of ones."""


def signed(value: int, width: int) -> int:
    """The number that the low `width` bits mean in two's complement."""
    half = 1 << width - 1
    return (value & (1 << width) - 1 ^ half) - half


def sign_extend(mode: int, value: int) -> int:
    """SXT: modes 0, 1, 2 (and 3) extend 8, 16, 32 bits with their sign, 4 more with zeros."""
    width = (8, 16, 32, 32)[mode & 3]
    value &= (1 << width) - 1
    return value if mode & 4 else signed(value, width) & 0xFFFF_FFFF_FFFF_FFFF


def rotate_right(value: int, count: int, width: int) -> int:
    """Rotate; counts are modulo the width."""
    count &= width - 1
    return (value >> count | value << width - count) & (1 << width) - 1


def get_field(value: int, control: int, width: int) -> int:
    """GETF. Control: [5:0] offset, [11:6] length, [12] extend the sign, [15:13] the source byte with the sign bit.

    The place of the sign bit in that byte is the place of the field's last bit in its byte.
    """
    length = min(control >> 6 & 63, width)
    mask = (1 << length) - 1
    field = rotate_right(value, control, width) & mask
    sign = 8 * (control >> 13 & 7) + ((control & 63) + length - 1 & 7)
    if control >> 12 & 1 and value >> sign % width & 1:
        field |= ~mask & (1 << width) - 1
    return field


def insert_field(value: int, control: int, field: int, width: int) -> int:
    """INSF: rotate value right by control[5:0], then replace its low control[11:6] bits by those of field."""
    mask = (1 << min(control >> 6 & 63, width)) - 1
    return rotate_right(value, control, width) & ~mask | field & mask


def reverse_bits(value: int, width: int) -> int:
    """BITREV."""
    return int(f"{value:0{width}b}"[::-1], 2)


def divide(value: int, divisor: int) -> int:
    """UDIV."""
    if not divisor:
        raise GuestTrap(Trap.DIVISION, "by zero")
    return value // divisor


def divide_signed(value: int, divisor: int, width: int) -> int:
    """SDIV: rounds towards zero; the one overflow wraps."""
    value, divisor = signed(value, width), signed(divisor, width)
    quotient = divide(abs(value), abs(divisor))
    return (quotient if (value < 0) == (divisor < 0) else -quotient) & (1 << width) - 1


def divide_long(value: int, divisor: int, remainder: bool) -> int:
    """UDIVX, UMODX: 64 bits by 32, whose quotient must fit 32 bits."""
    quotient = divide(value, divisor)
    if quotient >> 32:
        raise GuestTrap(Trap.DIVISION, "quotient above 32 bits")
    return value - quotient * divisor if remainder else quotient


def divide_long_signed(value: int, divisor: int, remainder: bool) -> int:
    """SDIVX, SMODX: a signed 64-bit number by an unsigned one of 32 bits, as recorded; rounds towards zero."""
    value = signed(value, 64)
    quotient = divide(abs(value), divisor)
    quotient = -quotient if value < 0 else quotient
    if not -(1 << 31) <= quotient < 1 << 31:
        raise GuestTrap(Trap.DIVISION, "quotient above 32 bits")
    return (value - quotient * divisor if remainder else quotient) & 0xFFFF_FFFF


def lanes(value: int, width: int) -> list[int]:
    """The parts of a packed 64-bit value, lowest first."""
    return [value >> at & (1 << width) - 1 for at in range(0, 64, width)]


def packed_add(a: int, b: int, width: int) -> int:
    """PADD: each lane wraps by itself."""
    mask = (1 << width) - 1
    pairs = zip(lanes(a, width), lanes(b, width), strict=True)
    return sum((x + y & mask) << width * i for i, (x, y) in enumerate(pairs))


def packed_equal(a: int, b: int, width: int) -> int:
    """PCMPEQ: ones where the lanes agree."""
    pairs = zip(lanes(a, width), lanes(b, width), strict=True)
    return sum(((1 << width) - 1) << width * i for i, (x, y) in enumerate(pairs) if x == y)
