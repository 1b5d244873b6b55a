"""The server: one loop over all lines; it ends when a client says quit, at a signal, or when nobody is left."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from e2kdisk.exports.qtest.chardev import Line
from e2kdisk.exports.qtest.emulator import Emulator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TURN = 64
"""Messages of one client before the others are looked at."""


class Server:
    """Serves the lines of one emulator; a context manager that takes the signals over."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._signal = 0
        self._wake, self._waker = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Server:
        os.set_blocking(self._waker, False)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for line in self._lines:
            line.close()
        os.close(self._wake)
        os.close(self._waker)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        with suppress(OSError):
            os.write(self._waker, b"!")

    def run(self, emulator: Emulator) -> None:
        """Serve until the end. Lines are open; what has been answered by then is sent."""
        while True:
            busy = [line for line in self._lines if self._serve(line, emulator)]
            if self._signal:
                emulator.end("host-signal")
            if emulator.ended or not any(line.can_come_back() for line in self._lines):
                break
            self._wait(busy)
        for line in self._lines:
            line.flush()

    def _serve(self, line: Line, emulator: Emulator) -> bool:
        """Answer what a client has said, as far as it listens; whether there may be more."""
        line.flush()
        for _ in range(TURN):
            if line.congested or emulator.ended or not line.connected:
                return False
            if line.session is None or not line.session.step():
                line.flush()
                if line.ended and not line.outbox:
                    line.disconnect()
                return False
            line.flush()
        return True

    def _wait(self, busy: Sequence[Line]) -> None:
        """Take what clients say, except from those that have said more than was answered; wait if there are none.

        Also waits for clients to listen again, and for a signal.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        wanted: dict[int, int] = {}
        listening = [line for line in self._lines if line not in busy and not line.congested]
        for line in self._lines:
            source, sink = line.input(), line.output()
            if source is not None and line in listening:
                wanted[source] = wanted.get(source, 0) | select.POLLIN
            if sink is not None and line.outbox:
                wanted[sink] = wanted.get(sink, 0) | select.POLLOUT
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll(0 if busy else None))
        for line in listening:
            source = line.input()
            # A line that is broken polls as such, and says so when it is read.
            if source is not None and ready.get(source, 0) & ~select.POLLOUT:
                line.readable()
