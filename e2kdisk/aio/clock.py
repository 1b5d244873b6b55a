"""The two clocks: virtual time that only moves when told, and the host's monotonic time."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Clock(Protocol):
    """Time in nanoseconds since the clock was made."""

    runs: bool
    """Whether it goes on while nothing happens here, so that waiting brings a later time."""

    def now_ns(self) -> int:
        """Nanoseconds since the start."""

    def skip_to(self, when_ns: int) -> bool:
        """Jump to a later time when nothing else can happen before it; False if this clock cannot jump."""


class HostClock:
    """The host's monotonic time: fast and not repeatable."""

    runs = True

    def __init__(self) -> None:
        self._start = time.monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since the clock was made."""
        return time.monotonic_ns() - self._start

    def skip_to(self, when_ns: int) -> bool:
        """Host time cannot jump."""
        return False


class VirtualClock:
    """Time that moves only by `advance`: a run is a function of its inputs."""

    __slots__ = ("_now",)
    runs = False

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns

    def now_ns(self) -> int:
        """Nanoseconds of virtual time."""
        return self._now

    def advance(self, ns: int) -> None:
        """Move forward by ns nanoseconds."""
        if ns < 0:
            raise ValueError(f"virtual time cannot go back by {-ns} ns")
        self._now += ns

    def set(self, when_ns: int) -> None:
        """Show a saved time, earlier or later; timers that are armed by now keep their times."""
        self._now = when_ns

    def skip_to(self, when_ns: int) -> bool:
        """Jump to when_ns if it is in the future."""
        self._now = max(self._now, when_ns)
        return True
