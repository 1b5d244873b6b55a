"""A bridge to asyncio: await the coroutines of a Scheduler from an asyncio program."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from e2kdisk.aio.scheduler import Scheduler

T = TypeVar("T")


class AsyncioBridge:
    """Runs a scheduler inside a running asyncio loop.

    >>> async def main(disk):
    ...     with AsyncioBridge(disk.scheduler) as bridge:
    ...         await bridge.run(disk.read(0, [memoryview(buffer)]))

    A request that does not block is finished before `run` returns to the loop; threads wake the loop.
    Timers of the scheduler are served while a request waits.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> AsyncioBridge:
        self._loop = asyncio.get_running_loop()
        self._scheduler.on_post = self._posted
        return self

    def __exit__(self, *exc: object) -> None:
        self._scheduler.on_post = None
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    async def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Await coro; cancelling this await cancels the request at its next cancellable wait."""
        assert self._loop is not None, "AsyncioBridge is used as a context manager"
        future: asyncio.Future[T] = self._loop.create_future()

        def then(result: T, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            elif isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()

        task = self._scheduler.start(coro, then)
        if task is None:
            return future.result()
        self._posted()
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            task.cancel()
            # The buffers of the request stay in use until it ends, so this await ends only then.
            while not task.done:
                self._posted()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # looked at, so that asyncio does not report it
            raise

    def _posted(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._poll)

    def _poll(self) -> None:
        if self._loop is None:
            return
        try:
            # A wait without time, not a poll: engines that choose completions, and virtual time, go on only in it.
            if self._scheduler.wait(timeout=0) and self._scheduler.tasks:
                self._loop.call_soon(self._poll)
        finally:
            self._arm_timer()

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when_ns = self._scheduler.next_timer_ns()
        if when_ns is not None and self._loop is not None and self._scheduler.clock.runs:
            delay = max(0, when_ns - self._scheduler.clock.now_ns()) / 1e9
            self._timer = self._loop.call_later(delay, self._poll)
