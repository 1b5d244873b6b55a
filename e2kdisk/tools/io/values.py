"""Numbers in and out: sizes and patterns as commands take them, sizes and rates as reports print them."""

from __future__ import annotations

import re

MAX_REQUEST = 2147483136
"""Most bytes that one request may have: 2 GiB less a sector."""

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SIZE = re.compile(r"\+?(?:(?P<hex>0x[0-9a-f]+)|(?P<whole>\d+)(?:\.(?P<fraction>\d*))?)(?P<unit>[bkmgtpe]?)", re.I)
_NAMES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class ValueProblem(Exception):
    """An argument that is no value; the text is printed as it is."""


def parse_size(text: str, warn_hex: list[str] | None = None) -> int:
    """Read a number of bytes: 512, 64k, 1.5M, 0x200. Raises ValueProblem.

    A hexadecimal number with a unit is put on warn_hex: "b" and "e" in it are digits, which surprises people.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueProblem(f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}")
    unit = found["unit"].lower()
    shift = _UNITS[unit]
    if found["hex"]:
        value = int(found["hex"], 16) << shift
        if unit and warn_hex is not None:
            warn_hex.append(text)
    else:
        value = int(found["whole"]) << shift
        tenths = found["fraction"] or ""
        if tenths.strip("0"):
            if not shift:
                raise ValueProblem(f"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}")
            value += (int(tenths) << shift) // 10 ** len(tenths)
    if value >= 1 << 63:
        raise ValueProblem(f"Parsing error: argument too large -- {text}")
    return value


def parse_number(text: str) -> int | None:
    """Read what C's strtol with base 0 reads, all of it; None if it is none."""
    found = re.fullmatch(r"\s*([+-]?)(0x[0-9a-f]+|\d+)", text, re.I)
    if found is None:
        return None
    digits = found[2].lower()
    try:
        base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") and len(digits) > 1 else 10
        value = int(digits, base)
    except ValueError:
        return None
    return -value if found[1] == "-" else value


def parse_pattern(text: str) -> int:
    """Read a byte. Raises ValueProblem."""
    value = parse_number(text)
    if value is None or not 0 <= value <= 255:
        raise ValueProblem(f"{text} is not a valid pattern byte")
    return value


def human(value: float) -> str:
    """A size as reports have it.

    >>> human(512), human(65536), human(1536)
    ('512 bytes', '64 KiB', '1.500 KiB')
    """
    for power in range(len(_NAMES), 0, -1):
        unit = 1 << 10 * power
        if value >= unit:
            return f"{_cut(value, unit)} {_NAMES[power - 1]}"
    return f"{int(value)} bytes" if value == int(value) else f"{value:f} bytes"


def _cut(value: float, unit: int) -> str:
    text = f"{value / unit:.3f}"
    return text.removesuffix(".000")


def duration(seconds: float) -> str:
    """A time as reports have it: "00.01 sec", or with minutes and hours "0:01:02.50"."""
    if seconds < 60:
        return f"{seconds:05.2f} sec"
    return clock(seconds)


def clock(seconds: float) -> str:
    """The same, always with hours and minutes."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:05.2f}"


def report(verb: str, offset: int, length: int, seconds: float, *, machine: bool = False) -> str:
    """The lines after a request that was done: for people two, for programs (-C) one."""
    seconds = max(seconds, 1e-9)
    rate, operations = length / seconds, 1 / seconds
    if machine:
        return f"{length},1,{clock(seconds)},{rate:.3f},{operations:.3f}"
    return (
        f"{verb} {length}/{length} bytes at offset {offset}\n"
        f"{human(length)}, 1 ops; {duration(seconds)} ({human(rate)}/sec and {operations:.4f} ops/sec)"
    )


def dump(data: bytes | bytearray, offset: int) -> str:
    """Bytes in hexadecimal and as text, sixteen a line."""
    lines = []
    for start in range(0, len(data), 16):
        line = data[start : start + 16]
        numbers = "".join(f"{byte:02x} " for byte in line)
        text = "".join(chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else "." for byte in line)
        lines.append(f"{offset + start:08x}:  {numbers} {text}")
    return "\n".join(lines)
