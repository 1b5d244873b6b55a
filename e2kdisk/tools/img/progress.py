"""The progress of -p: percents that overwrite each other; SIGUSR1 asks for them once without -p."""

from __future__ import annotations

import signal
import sys


class Progress:
    """Prints "    (12.50/100%)" and a carriage return when at least a percent was done since the last time."""

    def __init__(self, wanted: bool, least: float = 1.0) -> None:
        self._wanted = wanted
        self._least = least
        self._last = 0.0
        self._now = 0.0
        if not wanted:
            signal.signal(signal.SIGUSR1, self._show_once)
        else:
            self._print(0.0)

    def __call__(self, done: int, whole: int) -> None:
        """So much of the whole is done."""
        self._now = 100.0 * done / whole if whole else 100.0
        if self._wanted and (self._now - self._last >= self._least or self._now >= 100.0):
            self._print(self._now)

    def end(self, *, ok: bool = True) -> None:
        """Print the last line."""
        if self._wanted:
            if ok and self._last != 100.0:
                self._print(100.0)
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _print(self, percent: float) -> None:
        if percent == self._last == 100.0:
            return
        self._last = percent
        sys.stdout.write(f"    ({percent:3.2f}/100%)\r")
        sys.stdout.flush()

    def _show_once(self, number: int, frame: object) -> None:
        sys.stderr.write(f"    ({self._now:3.2f}/100%)\n")
