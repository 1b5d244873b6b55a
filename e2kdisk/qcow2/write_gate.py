"""WriteGate: lets one operation have the image for itself while writes of guest data wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from e2kdisk.aio.sync import Lock, WaitQueue
from e2kdisk.qcow2.allocation import Allocator
from e2kdisk.qcow2.inflight import InFlight
from e2kdisk.qcow2.relock import take_back


class WriteGate:
    """Open for many writes at a time, or closed for one operation that changes what many clusters mean."""

    def __init__(self, lock: Lock, allocator: Allocator, inflight: InFlight, on_change: Callable[[], None]) -> None:
        self._lock = lock
        self._allocator = allocator
        self._inflight = inflight
        self._on_change = on_change
        self._exclusive = 0
        self._opened = WaitQueue(inflight.scheduler)

    @property
    def closed(self) -> bool:
        """Whether an exclusive operation runs, or waits for writes to end."""
        return self._exclusive > 0

    async def passing(self) -> None:
        """Wait until writes may begin."""
        while self._exclusive:
            await self._opened.wait()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the metadata lock with no write of guest data on its way and none beginning.

        For what changes the meaning of many clusters at once (snapshots, shrinking, new refcounts): a write
        that began before is in the file, one that comes later sees the new state. Reads go on.
        """
        self._exclusive += 1
        self._on_change()
        try:
            await self._lock.acquire()
            try:
                await self._drain()
                yield
            finally:
                self._lock.release()
        finally:
            self._exclusive -= 1
            self._on_change()
            if not self._exclusive:
                self._opened.wake_all()

    async def _drain(self) -> None:
        """Wait, without the lock, until every write that had begun has ended; then hold it again."""
        while self._allocator.allocations or self._inflight.writes:
            self._lock.release()
            try:
                await self._inflight.no_writes()
                if self._allocator.allocations:
                    await self._allocator.allocations[0].waiters.wait()
            finally:
                await take_back(self._lock)
