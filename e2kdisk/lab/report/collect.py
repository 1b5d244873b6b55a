"""Collector: the events of a run that a page has room for: those around the first failure, or the last ones."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from e2kdisk.lab.events import Event

MOST_STEPS = 10_000
"""Of requests, file calls, decisions, interrupts and what the format does."""
MOST_DETAILS = 8_000
"""Of register accesses and changes of guest memory."""
DETAILS = frozenset({"read", "write", "dma", "ring"})
MOST_ALARMS = 200
ALARMS = ("violation", "power-cut", "fault")
"""Always kept, however far from the end."""
ENDS = ("violation", "power-cut")
"""What a long run is looked at for."""


class Numbered(NamedTuple):
    """An event and its place in the run, counted from 1."""

    number: int
    event: Event


class _Window:
    """The latest items, or when something went wrong: those before it, and for a quarter of the room those after."""

    def __init__(self, most: int) -> None:
        self.items: deque[Numbered] = deque(maxlen=most)
        self._room: int | None = None

    def settle(self) -> None:
        """What comes from now on may take a quarter of the room."""
        if self._room is None:
            self._room = (self.items.maxlen or 0) // 4

    def add(self, item: Numbered) -> None:
        """Keep one, and let the oldest go if need be."""
        if self._room is not None:
            if self._room == 0:
                return
            self._room -= 1
        self.items.append(item)


class Collector:
    """A listener of one run."""

    def __init__(self, most_steps: int = MOST_STEPS, most_details: int = MOST_DETAILS) -> None:
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self._steps = _Window(most_steps)
        self._details = _Window(most_details)
        self._alarms: list[Numbered] = []

    def event(self, event: Event) -> None:
        """Keep one if it is near enough to what matters."""
        self.count += 1
        is_decision = event.source == "decision"
        self.kinds["decision" if is_decision else event.kind] += 1
        item = Numbered(self.count, event)
        if not is_decision and event.kind in ALARMS and len(self._alarms) < MOST_ALARMS:
            self._alarms.append(item)
            if event.kind in ENDS:
                self._steps.settle()
                self._details.settle()
        elif not is_decision and event.kind in DETAILS:
            self._details.add(item)
        else:
            self._steps.add(item)

    @property
    def events(self) -> list[Numbered]:
        """What is kept, in order."""
        return sorted([*self._steps.items, *self._details.items, *self._alarms], key=lambda item: item.number)

    @property
    def dropped(self) -> int:
        """How many are not shown."""
        return self.count - len(self.events)
