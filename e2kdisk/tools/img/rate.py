"""A limit of bytes per second, as -r sets it."""

from __future__ import annotations

from e2kdisk.aio.scheduler import Scheduler

BURST_NS = 100_000_000
"""So much time may be saved up: what a moment was too slow for comes later at once."""


class RateLimit:
    """Lets bytes pass at a rate, measured by the scheduler's clock."""

    def __init__(self, scheduler: Scheduler, bytes_per_second: int) -> None:
        """0: no limit."""
        self._scheduler = scheduler
        self._rate = bytes_per_second
        self._free_at = 0
        """When everything that has passed is paid for, in nanoseconds of the clock."""

    async def passing(self, length: int) -> None:
        """Wait until length more bytes may pass."""
        if not self._rate:
            return
        now = self._scheduler.clock.now_ns()
        start = max(self._free_at, now - BURST_NS)
        self._free_at = start + length * 1_000_000_000 // self._rate
        # The bytes go first and are paid for afterwards: whoever comes next waits for them.
        if start > now:
            await self._scheduler.sleep_until(start)
