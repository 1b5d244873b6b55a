"""PerfettoTimeline: events in the Trace Event Format, so that a run can be looked at in a browser.

A process for the guest, each controller, the files, the format and the laboratory; in it a track for each kind of
event. Requests and file calls overlap, and slices of one track may only nest, so each goes to the first free of some
tracks. Arrows lead from a request to its file calls. Times are the guest's, in microseconds.

Source: "Trace Event Format" of the Chromium project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, Any

from e2kdisk.lab.events import Event
from e2kdisk.lab.timeline import Slots
from e2kdisk.lab.timeline_text import value_text

GUEST, FILES, FORMAT, LAB = "guest", "files", "format", "laboratory"


class PerfettoTimeline:
    """Timeline of one JSON object; the file is whole after finish()."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._separator = '{"displayTimeUnit": "ns", "traceEvents": [\n'
        self._ts = 0.0
        self._processes: dict[str, int] = {}
        self._tracks: dict[tuple[str, str], int] = {}
        self._requests: dict[str, Slots] = {}
        self._sources: dict[object, str] = {}
        """Controllers of the requests that have not ended."""
        self._drives: dict[object, object] = {}
        """Drives on a cable that these are for."""
        self._calls = Slots()
        self._raised: set[str] = set()

    # -- Timeline ---------------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """Timeline.event."""
        self._ts = max(self._ts, event.ns / 1000)
        if event.source == "decision":
            self._mark(LAB, "decisions", event.kind, event.fields)
        elif event.source == "format":
            self._mark(FORMAT, str(event.fields.get("file")), event.kind, event.fields)
        elif event.kind == "call" or (event.source == "file" and event.kind.startswith("file ")):
            self._file_call(event)
        else:
            KINDS.get(event.kind, _other)(self, event)

    def finish(self) -> None:
        """Timeline.finish: end what has not ended, where the run did."""
        for source, slots in self._requests.items():
            for key in slots.left():
                self._end(slots, key, source, "requests", {"outcome": "not ended"})
        for key in self._calls.left():
            self._end(self._calls, key, FILES, "calls", {"outcome": "not ended"})
        for source in self._raised:
            self._slice("E", source, "interrupt", "", {})
        self._file.write("]}\n" if self._separator == ",\n" else self._separator + "]}\n")

    # -- events -----------------------------------------------------------------------------------

    def _access(self, event: Event) -> None:
        register, pc = str(event.fields.get("register")), event.fields.get("pc")
        self._mark(event.source, "registers", f"{event.kind} {register}", event.fields)
        if pc is not None:
            self._mark(GUEST, "CPU", f"{pc:#x}" if isinstance(pc, int) else str(pc), {"access": register})

    def _submit(self, event: Event) -> None:
        slots = self._requests.setdefault(event.source, Slots())
        number = event.fields.get("request")
        self._sources[number] = event.source
        self._end(slots, number, event.source, "requests", {"outcome": "lost"})
        self._drives[number] = event.fields.get("drive")
        row = slots.take(number)
        self._slice("B", event.source, f"requests {row}", f"{event.fields.get('type')} #{number}", event.fields)

    def _request(self, event: Event) -> None:
        number = event.fields.get("request")
        self._sources.pop(number, None)
        self._drives.pop(number, None)
        slots = self._requests.get(event.source)
        if slots is not None:
            self._end(slots, number, event.source, "requests", {"status": event.fields.get("status")})

    def _file_call(self, event: Event) -> None:
        number = event.fields.get("call")
        if event.kind != "call":
            self._end(self._calls, number, FILES, "calls", {"outcome": event.fields.get("error", "done")})
            return
        self._end(self._calls, number, FILES, "calls", {"outcome": "lost"})
        request = event.fields.get("request")
        source = self._sources.get(request)
        come_from = None if source is None else self._requests[source].row(request)
        if source is not None and come_from is not None:
            self._emit("s", source, f"requests {come_from}", name="call", cat="flow", id=number)
        row = self._calls.take(number)
        what = f"{event.fields.get('file')} {event.fields.get('what')}"
        self._slice("B", FILES, f"calls {row}", what, event.fields)
        if come_from is not None:
            self._emit("f", FILES, f"calls {row}", name="call", cat="flow", id=number, bp="e")

    def _interrupt(self, event: Event) -> None:
        level = bool(event.fields.get("level"))
        if level and event.source not in self._raised:
            self._raised.add(event.source)
            self._slice("B", event.source, "interrupt", "raised", {})
        elif not level and event.source in self._raised:
            self._raised.discard(event.source)
            self._slice("E", event.source, "interrupt", "", {})

    def _reset(self, event: Event) -> None:
        drives, slots = event.fields.get("drives"), self._requests.get(event.source, Slots())
        ended = drives if isinstance(drives, tuple) else ()
        for number in slots.left():
            if self._drives.get(number) in ended:
                self._end(slots, number, event.source, "requests", {"outcome": "ended by a reset"})
        self._other(event)

    def _message(self, event: Event) -> None:
        self._mark(event.source, "messages", "message", event.fields)

    def _memory(self, event: Event) -> None:
        name = event.kind if event.kind == "ring" else f"{event.kind} {event.fields.get('direction')}"
        self._mark(event.source, "guest memory", name, event.fields)

    def _alarm(self, event: Event) -> None:
        self._mark(LAB, "alarms", event.kind, event.fields, scope="g")

    def _other(self, event: Event) -> None:
        self._mark(event.source, "other", event.kind, event.fields)

    # -- writing ----------------------------------------------------------------------------------

    def _mark(self, process: str, track: str, name: str, fields: dict[str, object], scope: str = "t") -> None:
        self._emit("i", process, track, name=name, s=scope, cat=process, args=_shown(fields))

    def _slice(self, phase: str, process: str, track: str, name: str, fields: dict[str, object]) -> None:
        more = {"name": name, "cat": process} if phase == "B" else {}
        self._emit(phase, process, track, **more, args=_shown(fields))

    def _end(self, slots: Slots, key: object, process: str, tracks: str, fields: dict[str, object]) -> None:
        """End the slice of something that has a row; of what has none, nothing is known."""
        row = slots.give(key)
        if row is not None:
            self._slice("E", process, f"{tracks} {row}", "", fields)

    def _emit(self, phase: str, process: str, track: str, **more: Any) -> None:
        pid = self._processes.get(process, 0)
        if not pid:
            pid = self._processes[process] = len(self._processes) + 1
            self._write({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": process}})
        tid = self._tracks.get((process, track), 0)
        if not tid:
            tid = self._tracks[process, track] = len(self._tracks) + 1
            self._write({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": track}})
        self._write({"ph": phase, "ts": self._ts, "pid": pid, "tid": tid, **more})

    def _write(self, item: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(item))
        self._separator = ",\n"


_other: Callable[[PerfettoTimeline, Event], None] = PerfettoTimeline._other

KINDS: dict[str, Callable[[PerfettoTimeline, Event], None]] = {
    "read": PerfettoTimeline._access,
    "write": PerfettoTimeline._access,
    "submit": PerfettoTimeline._submit,
    "request": PerfettoTimeline._request,
    "interrupt": PerfettoTimeline._interrupt,
    "reset": PerfettoTimeline._reset,
    "message": PerfettoTimeline._message,
    "dma": PerfettoTimeline._memory,
    "ring": PerfettoTimeline._memory,
    "violation": PerfettoTimeline._alarm,
    "power-cut": PerfettoTimeline._alarm,
    "fault": PerfettoTimeline._alarm,
}


def _shown(fields: dict[str, object]) -> dict[str, str]:
    return {name: value_text(name, value) for name, value in fields.items()}
