"""EventLog: the events of one test, to assert on and to show when it fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from e2kdisk.lab.events import Event, EventStream

MOST_EVENTS = 100_000
"""Kept in memory; the hash counts all."""


class EventLog(EventStream):
    """An EventStream that remembers; give it to a Machine or a controller as its trace."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.listeners.append(self.recent.append)

    def select(self, kind: str = "", source: str = "") -> Iterator[Event]:
        """The remembered events of a kind and a source, oldest first; empty takes all."""
        return (event for event in self.recent if kind in ("", event.kind) and source in ("", event.source))

    def tail(self, count: int) -> str:
        """The last events, a line each."""
        lines = []
        for event in list(self.recent)[-count:]:
            fields = " ".join(f"{name}={_value(value)}" for name, value in event.fields.items())
            lines.append(f"{event.ns / 1e9:.6f} {event.source:<12} {event.kind} {fields}".rstrip())
        return "\n".join(lines)


def _value(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
