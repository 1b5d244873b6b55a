"""The progress of -p: a bar on a terminal, else percents as qemu-img prints them; SIGUSR1 asks for one without -p."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from e2kdisk.tools.img.sizes import human

BAR_WIDTH = 40
REDRAW_S = 0.1
"""A terminal is slow, and nobody reads faster."""
TOO_SOON_S = 0.5
"""The time that is left is not guessed before so many seconds."""


class Progress:
    """What is told of one operation while it goes on."""

    def __init__(self, wanted: bool, least: float = 1.0) -> None:
        """least: percents between two prints where it is no bar."""
        self._wanted = wanted
        self._least = least
        self._last = 0.0
        self._now = 0.0
        self._bar = Bar() if wanted and sys.stdout.isatty() else None
        if not wanted:
            signal.signal(signal.SIGUSR1, self._show_once)
        else:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            if self._bar is None:
                self._print(0.0)

    def __call__(self, done: int, whole: int) -> None:
        """So many bytes of the whole are done."""
        self._now = 100.0 * done / whole if whole else 100.0
        if self._bar is not None:
            self._bar.show(done, whole)
        elif self._wanted and (self._now - self._last >= self._least or self._now >= 100.0):
            self._print(self._now)

    def end(self, *, ok: bool = True) -> None:
        """Print the last line."""
        if self._bar is not None:
            self._bar.end(ok=ok)
        elif self._wanted:
            if ok and self._last != 100.0:
                self._print(100.0)
            _write("\n")

    def _print(self, percent: float) -> None:
        if percent == self._last == 100.0:
            return
        self._last = percent
        _write(f"    ({percent:3.2f}/100%)\r")

    def _show_once(self, number: int, frame: object) -> None:
        sys.stderr.write(f"    ({self._now:3.2f}/100%)\n")
        sys.stderr.flush()


class Bar:
    """One line of a terminal that is drawn anew: [######----]  60.0%  1.2 GiB of 2 GiB, 640 MiB/s, 2 s left."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._drawn = 0.0
        self._done, self._whole = 0, 0
        self._open = False

    def show(self, done: int, whole: int) -> None:
        """Draw the state, if the last one has been there for a moment."""
        self._done, self._whole = done, whole
        now = time.monotonic()
        if now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._draw(now - self._begun)

    def end(self, *, ok: bool) -> None:
        """Draw the last state and leave the line."""
        if ok:
            self._done = self._whole
        if ok or self._open:
            self._draw(time.monotonic() - self._begun)
            _write("\n")

    def _draw(self, seconds: float) -> None:
        share = self._done / self._whole if self._whole else 1.0
        full = int(share * BAR_WIDTH)
        text = f"[{'#' * full}{'-' * (BAR_WIDTH - full)}] {100 * share:5.1f}%"
        if self._whole:
            text += f"  {human(self._done)} of {human(self._whole)}"
        if seconds > TOO_SOON_S and self._done:
            text += f", {human(int(self._done / seconds))}/s"
            left = seconds / share - seconds
            text += f", {left:.0f} s left" if self._done < self._whole else f", {seconds:.1f} s"
        # A line that wraps could not be drawn over.
        _write(f"\r{text[: _columns() - 1]}\x1b[K")
        self._open = True


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def _write(text: str) -> None:
    """Print; when nobody reads any more, the work goes on."""
    with suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()
