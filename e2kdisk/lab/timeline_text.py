"""TextTimeline: events as aligned lines of text.

time/us       source       kind          fields
3.370000      virtio-blk0  write         register=Status value=0x0 size=4 pc=0x17dc
"""

from __future__ import annotations

import json
from typing import IO

from e2kdisk.lab.events import Event

DECIMAL = frozenset(
    {
        "size",
        "length",
        "bytes",
        "sector",
        "request",
        "call",
        "clusters",
        "choice",
        "head",
        "level",
        "drive",
        "index",
        "entries",
        "copied",
    }
)
"""Fields that are counted; other numbers are addresses and bits, in hexadecimal."""


class TextTimeline:
    """Timeline of lines."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def event(self, event: Event) -> None:
        """Timeline.event."""
        self._file.write(line_of(event) + "\n")

    def finish(self) -> None:
        """Timeline.finish: nothing."""


def line_of(event: Event) -> str:
    """One event, always one line, whatever its strings hold."""
    if event.source == "decision":
        kind, fields = "decided", f"{value_text('', event.kind)} = {event.fields.get('choice')}"
    else:
        kind, fields = event.kind, fields_text(event.fields)
    return f"{event.ns / 1000:14.3f}  {value_text('', event.source):<12} {value_text('', kind):<12} {fields}".rstrip()


def fields_text(fields: dict[str, object]) -> str:
    """name=value, with spaces between."""
    return " ".join(f"{value_text('', name)}={value_text(name, value)}" for name, value in fields.items())


def value_text(name: str, value: object) -> str:
    """A value for a reader: control characters are escaped, and a string with spaces in a field is quoted."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if name in DECIMAL else hex(value)
    if isinstance(value, tuple):
        return ",".join(value_text(name, item) for item in value)
    text = str(value)
    if not text.isprintable() or (name and (" " in text or not text)):
        return json.dumps(text)
    return text
