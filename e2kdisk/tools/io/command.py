"""Command: one entry in the table of commands, and how the words of a line become its arguments."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.tools.io.getopt import OptionError, short_options
from e2kdisk.tools.io.session import Session, UsageMistake
from e2kdisk.tools.io.values import ValueProblem, parse_pattern, parse_size

Options = dict[str, str]


class Command:
    """One command."""

    def __init__(
        self,
        name: str,
        run: Callable[[Session, Command, list[str]], None],
        least: int = 0,
        most: int = -1,
        arguments: str = "",
        what: str = "",
        short: str = "",
        needs_image: bool = True,
        writes: bool = False,
        help: str = "",
    ) -> None:
        self.name = name
        self.run = run
        self.least = least
        """Fewest words after the name."""
        self.most = most
        """Most words after the name; -1 for any number."""
        self.arguments = arguments
        """How they are written, for the line of usage."""
        self.what = what
        """What the command does, in a few words."""
        self.short = short
        """A shorter name."""
        self.needs_image = needs_image
        self.writes = writes
        """Refused on an image that is open for reading only."""
        self.help = help

    @property
    def usage(self) -> str:
        """The line of usage."""
        return f"{self.name} {self.arguments} -- {self.what}" if self.arguments else f"{self.name} -- {self.what}"

    def options(self, session: Session, words: list[str], spec: str) -> tuple[Options, list[str]]:
        """Split the words into options and the rest; the last of two equal options counts. Raises UsageMistake."""
        try:
            found, rest = short_options(words, spec)
        except OptionError as error:
            session.complain(f"{self.name}: {error}")
            raise UsageMistake from None
        return dict(found), rest

    def count_problem(self, name: str, number: int) -> str | None:
        """What is wrong with the number of words, None if it is right."""
        if self.least <= number and (self.most < 0 or number <= self.most):
            return None
        if self.most < 0:
            expected = f"at least {self.least}"
        elif self.least == self.most:
            expected = f"{self.least}"
        else:
            expected = f"between {self.least} and {self.most}"
        return f"bad argument count {number} to {name}, expected {expected} arguments"


def size(session: Session, text: str) -> int:
    """A number of bytes from a command's words. Raises ValueProblem."""
    hexadecimal: list[str] = []
    value = parse_size(text, hexadecimal)
    for word in hexadecimal:
        session.warn(f"Using a multiplier suffix on hex numbers is deprecated: {word}")
    return value


def pattern(options: Options, default: int) -> int:
    """The byte that -P gives. Raises ValueProblem."""
    return parse_pattern(options["P"]) if "P" in options else default


def sector_aligned(value: int, what: str) -> int:
    """Return value. Raises ValueProblem if it is no whole number of sectors."""
    if value % 512:
        raise ValueProblem(f"{value} is not a sector-aligned value for '{what}'")
    return value
