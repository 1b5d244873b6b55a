"""The one stream of events of a run (registers, DMA, interrupts, requests, file I/O, decisions), and its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from e2kdisk.machine.trace import Tracer


class Event(NamedTuple):
    """One thing that happened."""

    ns: int
    """Of the guest's time."""
    source: str
    kind: str
    fields: dict[str, object]


POLLS = 32
"""Reads in a row, each of them made before in this row, that make a guest one that polls."""

PLACES = 8
"""Different reads (of a register, with its value, at a place in the code) that the loop of such a guest may have."""

Listener = Callable[[Event], None]


class EventStream(Tracer):
    """What devices, bus, volumes and decisions report to; who wants to know listens."""

    def __init__(self) -> None:
        super().__init__(lambda line: None)
        self.listeners: list[Listener] = []
        self.on_polling: Callable[[int], None] = lambda polls: None
        """Called at each further read of such a loop, with the number of reads in a row that did not count."""
        self._polls = 0
        self._loop: set[tuple[object, ...]] = set()
        self._digest = hashlib.blake2b(digest_size=16)
        self.current = 0
        """Number of the request whose code runs, 0 if it is nobody's or not known."""
        self.submitted = 0
        """Of the request that has just been taken from the guest and not started yet."""
        self._requests = 0
        self._open: dict[tuple[str, object], int] = {}

    def begin(self) -> None:
        """A new run."""
        self.events = 0
        self._polls = 0
        self._loop.clear()
        self.submitted = self.current = self._requests = 0
        self._open.clear()
        self._digest = hashlib.blake2b(digest_size=16)

    def wants(self, source: str) -> bool:
        """Tracer.wants: everything is part of the hash."""
        return True

    def event(self, source: str, kind: str, **fields: object) -> None:
        """Trace.event; a guest that polls a register stands in the stream with its first reads only."""
        if kind != "read":
            self._loop.clear()
        elif self._polls_again((source, *fields.values())):
            self.on_polling(self._polls - POLLS)
            return
        if kind in ("submit", "request"):
            fields["request"] = self._number(kind, source, fields)
        self.emit(Event(self.now_ns(), source, kind, fields))

    def _polls_again(self, read: tuple[object, ...]) -> bool:
        """Whether this read is one more of a guest that goes round a loop of nothing but such reads."""
        if read in self._loop:
            self._polls += 1
            return self._polls > POLLS
        if len(self._loop) == PLACES:
            self._loop.clear()
        self._loop.add(read)
        self._polls = 0
        return False

    def open_request(self, source: str, key: object) -> int:
        """Number of the request that a controller has under a head (virtio) or for a drive (ATA); 0 for none."""
        return self._open.get((source, key), 0)

    def _number(self, kind: str, source: str, fields: dict[str, object]) -> int:
        """The number of a request, counted from 1 in each run, from its beginning to its end."""
        key = source, fields.get("head", fields.get("drive"))
        if kind == "request":
            return self._open.pop(key, 0)
        self._requests += 1
        self._open[key] = self.submitted = self._requests
        return self._requests

    def emit(self, event: Event) -> None:
        """Count one event into the hash and tell it to the listeners."""
        self.events += 1
        if event.kind != "violation":
            # What somebody thinks of a run is no part of it: pytest words a failed assert differently.
            self._digest.update(repr(event).encode())
        for listener in self.listeners:
            listener(event)

    @property
    def hash(self) -> str:
        """Of all events of the run so far."""
        return self._digest.hexdigest()
