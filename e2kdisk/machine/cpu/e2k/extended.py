"""Addition in the 80-bit format: the one floating operation that the recorded instructions reach.

A register of an Elbrus has 16 more bits for the sign and the exponent of such a number. Only other 80-bit operations
read them, and those are refused as unsupported, so the executor keeps the significand, which is what integer
operations and stores see.
"""

from __future__ import annotations

INTEGER_BIT = 1 << 63
QUIET_NAN = 0xC000_0000_0000_0000
EXPONENT, FRACTION = 0x7FF, (1 << 52) - 1
"""Of a 64-bit number (IEEE 754, 3.4)."""
PRECISION = 64
"""Bits of the significand."""


def add_extended(a: int, b: int) -> int:
    """FXADDDD: the significand of the sum of two 64-bit numbers, rounded to nearest, ties to even."""
    for value in (a, b):
        if value >> 52 & EXPONENT == EXPONENT and value & FRACTION:
            return QUIET_NAN | (value & FRACTION) << 11
    if a >> 52 & EXPONENT == EXPONENT or b >> 52 & EXPONENT == EXPONENT:
        both = a >> 52 & EXPONENT == b >> 52 & EXPONENT
        return QUIET_NAN if both and (a ^ b) >> 63 else INTEGER_BIT
    total = abs(_units(a) + _units(b))
    excess = total.bit_length() - PRECISION
    if excess <= 0:
        return total << -excess if total else 0
    low, half = total & (1 << excess) - 1, 1 << excess - 1
    significand = total >> excess
    significand += low > half or (low == half and significand & 1)
    return significand if significand < 1 << PRECISION else INTEGER_BIT


def _units(value: int) -> int:
    """A finite number as a multiple of the smallest one, 2 to the -1074th."""
    exponent, fraction = value >> 52 & EXPONENT, value & FRACTION
    magnitude = (fraction | 1 << 52) << exponent - 1 if exponent else fraction
    return -magnitude if value >> 63 else magnitude
