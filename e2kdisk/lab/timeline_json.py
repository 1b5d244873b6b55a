"""JsonTimeline: events as JSON lines, {"ns": .., "source": .., "kind": .., "fields": {..}}; see timeline.py."""

from __future__ import annotations

import json
from typing import IO

from e2kdisk.lab.events import Event


class JsonTimeline:
    """Timeline of JSON objects, one a line; ns is the guest's time."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def event(self, event: Event) -> None:
        """Timeline.event."""
        self._file.write(json.dumps(event._asdict(), default=str) + "\n")

    def finish(self) -> None:
        """Timeline.finish: nothing."""
