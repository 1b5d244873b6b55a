"""Command line arguments: argparse whose errors are one line, and the values that several commands read."""

from __future__ import annotations

import argparse

from e2kdisk.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser for `e2kdisk NAME`: keeps its help as written, says errors in one line."""

    def __init__(self, name: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"e2kdisk {name}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the whole usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def size(option: str, *, least: int = 0) -> Callable[[str], int]:
    """An argparse type for a number of bytes such as 4096, 64K, 256M, 1G."""

    def parse(text: str) -> int:
        from e2kdisk.block.sizes import parse_size

        value = parse_size(option, text)
        if value < least:
            raise UsageError(f"{option}={text}: at least {human(least)} is needed")
        return value

    return parse


def count(option: str) -> Callable[[str], int]:
    """An argparse type for a number above 0; 1_000_000, 5M and 2G (powers of 1000) are read too."""

    def parse(text: str) -> int:
        factors = {"K": 10**3, "M": 10**6, "G": 10**9}
        digits, factor = (text[:-1], factors[text[-1:].upper()]) if text[-1:].upper() in factors else (text, 1)
        digits = digits.replace("_", "")
        if not digits.isascii() or not digits.isdigit() or int(digits) == 0:
            raise UsageError(f"{option} {text}: not a number above 0")
        return int(digits) * factor

    return parse


def human(size_bytes: int) -> str:
    """Return a size for people: "512 B", "64 KiB", "1.5 GiB".

    >>> human(512), human(65536), human(3 << 29)
    ('512 B', '64 KiB', '1.5 GiB')
    """
    value, unit = float(size_bytes), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
