"""How the output looks: colours and lines where a person reads them on a terminal, plain text everywhere else."""

from __future__ import annotations

import os
from typing import TextIO


class Style:
    """Decorates text for one output stream."""

    def __init__(self, stream: TextIO | None) -> None:
        terminal = stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colours = terminal and not os.environ.get("NO_COLOR")
        try:
            "│↓↑".encode((stream.encoding if stream is not None else None) or "ascii")
            lines = True
        except (UnicodeEncodeError, LookupError):
            lines = False
        self.line = "│" if lines else "|"
        self.down = "↓" if lines else "v"
        self.up = "↑" if lines else "^"

    def _code(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and text else text

    def title(self, text: str) -> str:
        """A heading."""
        return self._code("1", text)

    def faint(self, text: str) -> str:
        """What need not be read at first."""
        return self._code("2", text)

    def name(self, text: str) -> str:
        """A name in a table."""
        return self._code("36", text)

    def good(self, text: str) -> str:
        """What is as it should be."""
        return self._code("32", text)

    def bad(self, text: str) -> str:
        """What is not."""
        return self._code("1;31", text)
