"""Sizes as QEMU's programs read and write them."""

from __future__ import annotations

from e2kdisk.tools.img.errors import Failure, report

MAX_SIZE = (1 << 63) - 1
_UNITS = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


def read_size(text: str) -> int | None:
    """Bytes of "1.5G", "0x1000", "64k"; None for what is no size. Not bounded."""
    number, unit = text.lstrip(), 0
    if number[:2].lower() == "0x":
        return _integer(number, 16)
    if number[-1:].upper() in _UNITS and number[-1:]:
        unit = _UNITS[number[-1].upper()]
        number = number[:-1]
    whole, dot, fraction = number.partition(".")
    if not _digits(whole) or (fraction and not _digits(fraction)):
        return None
    value = int(whole) << unit
    if dot and fraction:
        if unit == 0 and int(fraction):
            return None
        value += (int(fraction) << unit) // 10 ** len(fraction)
    return value


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _integer(text: str, base: int) -> int | None:
    try:
        return int(text, base) if "_" not in text else None
    except ValueError:
        return None


def size_argument(what: str, text: str, least: int = 0, most: int = MAX_SIZE) -> int:
    """The value of an argument that is a size. Raises Failure, worded as qemu-img does."""
    value = read_size(text)
    if value is None:
        report(f"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for")
        raise Failure("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
    if not least <= value <= most:
        raise Failure(f"Invalid {what} specified. Must be between {least} and {most}.")
    return value


def human(size: int) -> str:
    """A size for people with three digits: "512 B", "1 MiB", "2.19 MiB".

    >>> human(512), human(655872), human(2297856), human(1023 * 1024)
    ('512 B', '640 KiB', '2.19 MiB', '0.999 MiB')
    """
    unit = 0
    # The next unit from 1000 on, so that there are never more than three digits before the point.
    while unit < 6 and size / (1 << 10 * unit) >= 1000:
        unit += 1
    return f"{size / (1 << 10 * unit):0.3g} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[unit]}B"
