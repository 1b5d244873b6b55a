"""What speaks on a line: a session takes bytes and answers message by message; here those for qtest and consoles."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TextIO

from e2kdisk.exports.qtest.emulator import Emulator
from e2kdisk.exports.qtest.protocol import TRANSFER_MAX, Target, answer
from e2kdisk.machine.console import Console

LINE_MAX = 2 * TRANSFER_MAX + 1000
"""Most bytes of one command: a write of the longest kind."""


class Session(Protocol):
    """One side of a line; the other comes and goes."""

    def opened(self) -> None:
        """Somebody is there."""
        ...

    def closed(self) -> None:
        """Nobody is there any more."""
        ...

    def receive(self, data: bytes) -> None:
        """Keep what has come."""
        ...

    def step(self) -> bool:
        """Answer the next message; False if none is complete."""
        ...


class QtestLog:
    """What -qtest-log writes: every line, with seconds since the start."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._start = time.monotonic()

    def __call__(self, direction: str, line: str) -> None:
        """Write one line: "R" received, "S" sent, "I" what else happens."""
        if self._file is None:
            return
        with suppress(OSError):  # a record that cannot be kept is no reason to end
            print(f"[{direction} +{time.monotonic() - self._start:.6f}] {line}", file=self._file, flush=True)


class QtestSession:
    """One client of the qtest protocol."""

    def __init__(self, emulator: Emulator, log: QtestLog, send: Callable[[bytes], None]) -> None:
        self._emulator = emulator
        self._log = log
        self._send = send
        self._target = Target(emulator.space, emulator.wires, emulator.clock, self._say)
        self._text = bytearray()
        self._looked = 0

    def opened(self) -> None:
        """Session.opened."""
        self._text.clear()
        self._looked = 0
        self._emulator.wires.forget_levels()
        self._log("I", "OPENED")

    def closed(self) -> None:
        """Session.closed."""
        self._log("I", "CLOSED")

    def receive(self, data: bytes) -> None:
        """Session.receive."""
        self._text += data

    def step(self) -> bool:
        """Session.step: one line."""
        end = self._text.find(b"\n", self._looked)
        if end < 0:
            self._looked = len(self._text)
            if self._looked > LINE_MAX:
                self._text.clear()
                self._looked = 0
                self._say("FAIL the line is too long")
            return False
        line = self._text[:end].decode("utf-8", "surrogateescape")
        del self._text[: end + 1]
        self._looked = 0
        self._log("R", line)
        said = answer(self._target, line)
        self._emulator.go_on()
        self._say(said)
        return True

    def _say(self, line: str) -> None:
        self._log("S", line)
        self._send(line.encode("utf-8", "surrogateescape") + b"\n")


class ConsoleSession:
    """A serial port of the board on a line."""

    def __init__(self, console: Console, send: Callable[[bytes], None]) -> None:
        self._console = console
        console.on_output = send

    def opened(self) -> None:
        """Session.opened."""

    def closed(self) -> None:
        """Session.closed."""

    def receive(self, data: bytes) -> None:
        """Session.receive: bytes for the guest."""
        self._console.send(data)

    def step(self) -> bool:
        """Session.step: no messages here."""
        return False
