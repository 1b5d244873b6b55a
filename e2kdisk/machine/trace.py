"""The trace: what devices report and what the guest does to their registers, as lines of text or of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from typing import IO, Literal

from e2kdisk.errors import UsageError

Format = Literal["text", "json"]


class Tracer:
    """Writes one line an event; a Trace for devices and for the bus."""

    def __init__(
        self,
        target: str | os.PathLike[str] | IO[str] | Callable[[str], None],
        *,
        format: Format = "text",
        only: Collection[str] | None = None,
    ) -> None:
        """Write to a file (by name or open) or a function that takes lines.

        `only` names the sources to keep: "virtio-blk0", "uart0", "bus", ...; None keeps all. A file that was opened
        here is closed by close().
        """
        if format not in ("text", "json"):
            raise UsageError(f"unknown trace format {format!r}; known are text, json")
        self.now_ns: Callable[[], int] = lambda: 0
        """Set by the machine: the time that each line starts with."""
        self.events = 0
        self._only = None if only is None else frozenset(only)
        self._render = _as_json if format == "json" else _as_text
        self._own: IO[str] | None = None
        self._line: Callable[[str], object]
        if callable(target):
            self._line = target
            return
        if isinstance(target, (str, os.PathLike)):
            target = self._own = open(target, "w", encoding="utf-8")  # noqa: SIM115  (closed by close())
        write = target.write
        self._line = lambda line: write(line + "\n")

    def wants(self, source: str) -> bool:
        """Whether events of a source are kept: asked before something expensive is put together."""
        return self._only is None or source in self._only

    def event(self, source: str, kind: str, **fields: object) -> None:
        """Trace.event."""
        if self.wants(source):
            self.events += 1
            self._line(self._render(self.now_ns(), source, kind, fields))

    def close(self) -> None:
        """Close the file if it was opened here."""
        if self._own is not None:
            self._own.close()


def _as_json(now_ns: int, source: str, kind: str, fields: dict[str, object]) -> str:
    return json.dumps({"ns": now_ns, "source": source, "kind": kind, **fields}, default=str)


def _as_text(now_ns: int, source: str, kind: str, fields: dict[str, object]) -> str:
    shown = " ".join(f"{name}={_value(name, value)}" for name, value in fields.items())
    return f"{now_ns / 1e9:.6f} {source:<12} {kind} {shown}".rstrip()


def _value(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f'"{value}"' if isinstance(value, str) and " " in value else str(value)
    return str(value) if name in ("size", "length", "sector", "sectors", "queue") else f"{value:#x}"
