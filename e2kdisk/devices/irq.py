"""An interrupt line: a level that a device drives and somebody else listens to."""

from __future__ import annotations

from collections.abc import Callable


class IrqLine:
    """One level-triggered wire; the listener is called on changes only."""

    __slots__ = ("_listener", "level")

    def __init__(self, listener: Callable[[bool], None] | None = None) -> None:
        self.level = False
        self._listener = listener

    def set(self, level: bool) -> None:
        """Drive the line."""
        if level != self.level:
            self.level = level
            if self._listener is not None:
                self._listener(level)
