"""The user's terminal as the guest's: raw mode that is always undone, and one key that is ours."""

from __future__ import annotations

import termios
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum

ESCAPE = 0x01
"""Ctrl-A: what follows is for us."""

ESCAPE_HELP = """\
Ctrl-A x       end the emulator
Ctrl-A r       reset the guest
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest
"""


class Key(Enum):
    """What the user wants from us, not from the guest."""

    QUIT = "x"
    RESET = "r"
    HELP = "h"


class EscapeKeys:
    """Takes our keys out of what is typed; a sequence may come in several pieces."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, typed: bytes) -> list[bytes | Key]:
        """What to do in order: bytes for the guest, keys for us."""
        parts: list[bytes | Key] = []
        plain = bytearray()
        for byte in typed:
            if self._escaped:
                self._escaped = False
                key = _KEYS.get(chr(byte).lower())
                if key is not None:
                    if plain:
                        parts.append(bytes(plain))
                        plain.clear()
                    parts.append(key)
                elif byte == ESCAPE:
                    plain.append(byte)
            elif byte == ESCAPE:
                self._escaped = True
            else:
                plain.append(byte)
        if plain:
            parts.append(bytes(plain))
        return parts


_KEYS = {key.value: key for key in Key} | {"?": Key.HELP}


@contextmanager
def raw_mode(fd: int) -> Generator[None, None, None]:
    """Every key goes to the guest, Ctrl-C too; afterwards the terminal is as before."""
    before = termios.tcgetattr(fd)
    raw = termios.tcgetattr(fd)
    raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON)
    # Output processing stays: guests that end their lines with \n alone are readable.
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0

    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, raw)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
