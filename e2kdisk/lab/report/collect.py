"""Collector: the events of a run, as many as a page can show; the latest ones of a long run."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from e2kdisk.lab.events import Event

MOST_STEPS = 10_000
"""Of requests, file calls, decisions, interrupts and what the format does."""
MOST_DETAILS = 8_000
"""Of register accesses and changes of guest memory."""
DETAILS = frozenset({"read", "write", "dma", "ring"})


class Numbered(NamedTuple):
    """An event and its place in the run, counted from 1."""

    number: int
    event: Event


class Collector:
    """A listener of one run."""

    def __init__(self, most_steps: int = MOST_STEPS, most_details: int = MOST_DETAILS) -> None:
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self._steps: deque[Numbered] = deque(maxlen=most_steps)
        self._details: deque[Numbered] = deque(maxlen=most_details)

    def event(self, event: Event) -> None:
        """Keep one, and let the oldest of its sort go when there are too many."""
        self.count += 1
        self.kinds["decision" if event.source == "decision" else event.kind] += 1
        is_detail = event.kind in DETAILS and event.source != "decision"
        (self._details if is_detail else self._steps).append(Numbered(self.count, event))

    @property
    def events(self) -> list[Numbered]:
        """What is kept, in order."""
        return sorted([*self._steps, *self._details], key=lambda item: item.number)

    @property
    def dropped(self) -> int:
        """How many are not shown."""
        return self.count - len(self._steps) - len(self._details)
