"""Guest data on its way to or from clusters of the file: space there must not be given to anybody else yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.sync import WaitQueue


class InFlight:
    """Host byte ranges that a data transfer is using right now.

    A discard may unmap a cluster while an older read or write of it still runs on a thread. The cluster stays
    allocated until that transfer has ended; otherwise it could land in what became somebody else's cluster.
    """

    __slots__ = ("_ranges", "_written", "scheduler", "writes")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._ranges: list[tuple[int, int]] = []
        self._written = WaitQueue(scheduler)
        self.writes = 0
        """How many of the transfers write."""

    def enter(self, start: int, length: int) -> tuple[int, int]:
        """Note a read; give the result to leave()."""
        item = (start, start + length)
        self._ranges.append(item)
        return item

    def leave(self, item: tuple[int, int]) -> None:
        """The read has ended."""
        self._ranges.remove(item)

    def enter_write(self, start: int, length: int) -> tuple[int, int]:
        """Note a write; give the result to leave_write()."""
        self.writes += 1
        item = (start, start + length)
        self._ranges.append(item)
        return item

    def leave_write(self, item: tuple[int, int]) -> None:
        """The write has ended."""
        self._ranges.remove(item)
        self.writes -= 1
        if not self.writes:
            self._written.wake_all()

    @contextmanager
    def reading(self, start: int, length: int) -> Iterator[None]:
        """Note a read for the length of a block."""
        item = self.enter(start, length)
        try:
            yield
        finally:
            self.leave(item)

    def overlaps(self, start: int, length: int) -> bool:
        """True if a transfer touches these bytes."""
        end = start + length
        return any(first < end and start < last for first, last in self._ranges)

    async def no_writes(self) -> None:
        """Wait until no write is on its way; new ones may come while waiting for anything else."""
        while self.writes:
            await self._written.wait()
