"""Timelines: the events of a run, written to a file as they come; the format goes by the file's name.

    .txt    text, one aligned line an event
    .jsonl  JSON lines, for programs
    .json   the Trace Event Format, for https://ui.perfetto.dev and chrome://tracing

What the events are (all offsets and lengths in bytes; `request` and `call` count from 1 in each run, request 0 is
work that belongs to nobody's request):

    source       kind                   fields
    a device     read, write            register, value, size, pc
    controller   submit                 request, type, sector, bytes and, by its kind, head or drive
    controller   request                the same, and status: how it ended
    controller   dma                    address, length, direction ("to guest", "from guest"), request
    controller   ring                   address, values, request
    controller   interrupt              level
    controller   message                address, data: an interrupt as a store to memory
    controller   reset                  drives, if not all of it: whose commands it ends
    controller   guest-error            what
    file         call                   call, what, file, offset, length, request: a call begins
    file         file read, ... write   the same: it has ended well
    file         file error             the same, and error
    file         power-cut, fault       at; call, error
    format       allocate, free, ...    file, host, clusters, request: what the format has decided
    decision     (its name)             choice
    lab          violation              what
"""

from __future__ import annotations

import os
from typing import IO, Protocol

from e2kdisk.errors import UsageError
from e2kdisk.lab.events import Event


class Timeline(Protocol):
    """Writes events to a file, one after the other; keeps none."""

    def event(self, event: Event) -> None:
        """Write one."""
        ...

    def finish(self) -> None:
        """Write what comes behind the last."""
        ...


FORMATS = {"text": ".txt", "jsonl": ".jsonl", "perfetto": ".json"}
"""Name -> suffix of the file."""


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file's name stands for. Raises UsageError."""
    suffix = os.path.splitext(path)[1]
    for name, its in FORMATS.items():
        if suffix == its:
            return name
    raise UsageError(f"{os.fspath(path)}: a timeline is called *.txt, *.jsonl or *.json; or say --timeline-format")


def make_timeline(file: IO[str], format: str) -> Timeline:
    """A writer of a format into an open file. Raises UsageError."""
    if format == "text":
        from e2kdisk.lab.timeline_text import TextTimeline

        return TextTimeline(file)
    if format == "jsonl":
        from e2kdisk.lab.timeline_json import JsonTimeline

        return JsonTimeline(file)
    if format == "perfetto":
        from e2kdisk.lab.timeline_perfetto import PerfettoTimeline

        return PerfettoTimeline(file)
    raise UsageError(f"unknown timeline format {format!r}; known are {', '.join(FORMATS)}")


class Slots:
    """Rows for things that overlap in time: each takes the first row that is free, so none hides another."""

    def __init__(self) -> None:
        self._rows: dict[object, int] = {}
        self._used: set[int] = set()

    def take(self, key: object) -> int:
        """The row, counted from 0, of a thing that begins."""
        row = 0
        while row in self._used:
            row += 1
        self._used.add(row)
        self._rows[key] = row
        return row

    def row(self, key: object) -> int | None:
        """Where a thing that goes on is; None if it does not."""
        return self._rows.get(key)

    def give(self, key: object) -> int | None:
        """The row of a thing that ends; None if it never began."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._used.discard(row)
        return row

    def left(self) -> list[object]:
        """What has not ended."""
        return list(self._rows)
