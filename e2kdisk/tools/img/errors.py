"""How a command says what is wrong: one line that begins with the name the program was called by."""

from __future__ import annotations

import os
import sys

_called = ["e2kdisk img"]


def called_as(path: str) -> None:
    """Note the name by which the program was called; a link named qemu-img makes it say qemu-img."""
    _called[0] = os.path.basename(path) or "e2kdisk-img"


def program_name() -> str:
    """The name that messages begin with."""
    return _called[0]


class Failure(Exception):
    """The end of a command: what to say after the program's name, and the exit status."""

    def __init__(self, text: str, status: int = 1, tail: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.tail = tail
        """Printed right after the line, as it is."""


def usage(text: str) -> Failure:
    """A wrong command line: says where the help is."""
    return Failure(text, tail=f"Try '{program_name()} --help' for more information\n")


def write_error(text: str) -> None:
    """Print on the standard error, if there is one."""
    if sys.stderr is None:
        return
    try:
        sys.stdout.flush() if sys.stdout is not None else None
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def report(text: str) -> None:
    """Print one line that begins with the program's name."""
    write_error(f"{program_name()}: {text}\n")
