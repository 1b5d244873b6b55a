"""Lanes: where each event stands in the picture of a run.

A mark is (lane, row, begin ns, end ns or None for a moment, look, index of its event, request or 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from e2kdisk.lab.events import Event
from e2kdisk.lab.report.collect import ALARMS, Numbered
from e2kdisk.lab.timeline import Slots

KINDS = {"guest-error": "error"}
"""Looks of what a controller reports besides accesses."""


class Mark(NamedTuple):
    """One thing in the picture."""

    lane: int
    row: int
    begin_ns: int
    end_ns: int | None
    look: str
    """A class of colours: read, write, flush, other, error, ..."""
    event: int
    request: int


class Picture:
    """The lanes of a run and what is in them."""

    def __init__(self, events: Sequence[Numbered]) -> None:
        self.names: list[str] = []
        self.rows: list[int] = []
        self.marks: list[Mark] = []
        self.alarms: list[tuple[int, str, int]] = []
        """(ns, kind, index of the event)"""
        self._lanes: dict[str, int] = {}
        self._slots: dict[str, Slots] = {}
        self._begun: dict[tuple[str, object], tuple[int, Event]] = {}
        controllers = sorted({event.source for _, event in events if event.kind == "submit"})
        self._reserve(controllers)
        self._controllers = frozenset(controllers)
        self._last_ns = 0
        for index, (_, event) in enumerate(events):
            self._last_ns = max(self._last_ns, event.ns)
            PLACES.get(event.source, Picture._device)(self, index, event)
        for (lane, key), (index, event) in list(self._begun.items()):
            look = "interrupt" if key == "level" else "unfinished"  # a line may well be high at the end
            self._end(lane, key, self._last_ns, look, index, event)
        self._drop_empty()

    def _reserve(self, controllers: Sequence[str]) -> None:
        """The lanes from top to bottom: from the guest down to the file."""
        names = ["guest CPU"]
        for name in controllers:
            names += [f"{name} registers", f"{name} requests", f"{name} DMA", f"{name} interrupt"]
        for name in [*names, "format", "file calls", "decisions", "alarms"]:
            self._lane(name)

    def _lane(self, name: str) -> int:
        if name not in self._lanes:
            self._lanes[name] = len(self.names)
            self.names.append(name)
            self.rows.append(1)
        return self._lanes[name]

    def _drop_empty(self) -> None:
        used = sorted({mark.lane for mark in self.marks})
        place = {lane: number for number, lane in enumerate(used)}
        self.names, self.rows = [self.names[lane] for lane in used], [self.rows[lane] for lane in used]
        self.marks = [mark._replace(lane=place[mark.lane]) for mark in self.marks]

    # -- events -----------------------------------------------------------------------------------

    def _point(self, lane: str, look: str, index: int, event: Event) -> None:
        self.marks.append(Mark(self._lane(lane), 0, event.ns, None, look, index, _number(event, "request")))

    def _begin(self, lane: str, key: object, index: int, event: Event) -> None:
        if (lane, key) in self._begun:
            self._end(lane, key, event.ns, "unfinished", *self._begun[lane, key])
        self._begun[lane, key] = index, event
        row = self._slots.setdefault(lane, Slots()).take(key)
        self.rows[self._lane(lane)] = max(self.rows[self._lane(lane)], row + 1)

    def _end(self, lane: str, key: object, ns: int, look: str, index: int, event: Event) -> None:
        row = self._slots[lane].give(key) or 0
        del self._begun[lane, key]
        self.marks.append(Mark(self._lane(lane), row, event.ns, ns, look, index, _number(event, "request")))

    def _finish(self, lane: str, key: object, ns: int, look: str) -> None:
        begun = self._begun.get((lane, key))
        if begun is not None:
            self._end(lane, key, ns, look, *begun)

    def _device(self, index: int, event: Event) -> None:
        source, fields = event.source, event.fields
        is_access = event.kind in ("read", "write")
        if is_access:
            self._point("guest CPU", event.kind, index, event)
        if event.kind in ALARMS:
            self._alarm(index, event)
        elif event.kind == "submit":
            self._begin(f"{source} requests", fields.get("request"), index, event)
        elif event.kind == "request":
            begun = self._begun.get((f"{source} requests", fields.get("request")))
            kind = "" if begun is None else str(begun[1].fields.get("type"))
            look = "error" if fields.get("status") else look_of(kind)
            self._finish(f"{source} requests", fields.get("request"), event.ns, look)
        elif event.kind == "reset":
            self._reset(index, event)
        elif event.kind == "message":
            self._point(f"{source} interrupt", "interrupt", index, event)
        elif event.kind == "interrupt":
            if fields.get("level"):
                self._begin(f"{source} interrupt", "level", index, event)
            else:
                self._finish(f"{source} interrupt", "level", event.ns, "interrupt")
        elif event.kind in ("dma", "ring"):
            look = "ring" if event.kind == "ring" else "read" if fields.get("direction") == "to guest" else "write"
            self._point(f"{source} DMA", look, index, event)
        elif source in self._controllers:
            self._point(
                f"{source} registers", event.kind if is_access else KINDS.get(event.kind, "other"), index, event
            )
        elif not is_access:
            self._point("guest CPU", "other", index, event)

    def _reset(self, index: int, event: Event) -> None:
        """A reset ends what a controller, or some drives on its cable, had to do; virtio's requests end later."""
        drives = event.fields.get("drives")
        lane = f"{event.source} requests"
        for its, key in list(self._begun):
            begun = self._begun[its, key]
            if its == lane and isinstance(drives, tuple) and begun[1].fields.get("drive") in drives:
                self._end(lane, key, event.ns, "unfinished", *begun)
        self._point(f"{event.source} registers", "other", index, event)

    def _file(self, index: int, event: Event) -> None:
        if event.kind in ALARMS:
            self._alarm(index, event)
        elif event.kind == "call":
            self._begin("file calls", event.fields.get("call"), index, event)
        else:
            look = "error" if event.kind == "file error" else look_of(event.kind)
            self._finish("file calls", event.fields.get("call"), event.ns, look)

    def _format(self, index: int, event: Event) -> None:
        self._point("format", "error" if event.kind == "refused" else "format", index, event)

    def _decision(self, index: int, event: Event) -> None:
        self._point("decisions", "chosen" if event.fields.get("choice") else "natural", index, event)

    def _alarm(self, index: int, event: Event) -> None:
        self._point("alarms", "error", index, event)
        self.alarms.append((event.ns, event.kind, index))


PLACES: dict[str, Callable[[Picture, int, Event], None]] = {
    "file": Picture._file,
    "format": Picture._format,
    "decision": Picture._decision,
}


def look_of(what: str) -> str:
    """The colours of a request or a call by its name; the controllers and the file have different ones."""
    said = set(what.lower().replace("_", " ").split())
    return next((look for look, words in LOOKS.items() if said & words), "other")


LOOKS = {
    "flush": {"flush"},
    "write": {"write", "out", "zeroes", "discard", "truncate"},
    "read": {"read", "in"},
}


def _number(event: Event, name: str) -> int:
    value = event.fields.get(name)
    return value if isinstance(value, int) else 0
