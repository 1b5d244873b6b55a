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
"""Equal reads of one register in a row that make a guest one that polls."""

Listener = Callable[[Event], None]


class EventStream(Tracer):
    """What devices, bus, volumes and decisions report to; who wants to know listens."""

    def __init__(self) -> None:
        super().__init__(lambda line: None)
        self.listeners: list[Listener] = []
        self.on_polling: Callable[[], None] = lambda: None
        """Called at each further read of the same register, with the same value, at the same place."""
        self._polls = 0
        self._last_read: tuple[str, dict[str, object]] = "", {}
        self._digest = hashlib.blake2b(digest_size=16)

    def begin(self) -> None:
        """A new run."""
        self.events = 0
        self._polls = 0
        self._last_read = "", {}
        self._digest = hashlib.blake2b(digest_size=16)

    def wants(self, source: str) -> bool:
        """Tracer.wants: everything is part of the hash."""
        return True

    def event(self, source: str, kind: str, **fields: object) -> None:
        """Trace.event; a guest that polls a register stands in the stream with its first reads only."""
        if kind != "read":
            self._polls = 0
        elif (source, fields) == self._last_read:
            self._polls += 1
            if self._polls > POLLS:
                self.on_polling()
                return
        else:
            self._polls, self._last_read = 0, (source, fields)
        self.emit(Event(self.now_ns(), source, kind, fields))

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
