"""Numbers of bytes as people write them: 65536, 64K, 1G."""

from __future__ import annotations

from e2kdisk.errors import UsageError

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(key: str, text: str) -> int:
    """Read a number of bytes such as 65536, 64K, 1M, 2G, 1T. Raises UsageError."""
    number, unit = (text[:-1], text[-1]) if text[-1:].upper() in _UNITS else (text, "")
    if not number.isascii() or not number.isdigit():
        raise UsageError(f"{key}={text}: not a size; write bytes, or a number with K, M, G or T")
    return int(number) << _UNITS.get(unit.upper(), 0)
