"""Following: which request a piece of work belongs to, so that a file call can be told from another's in the trace."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from e2kdisk.aio.scheduler import Scheduler, Task

if TYPE_CHECKING:
    from e2kdisk.aio.scheduler import Then
    from e2kdisk.lab.events import EventStream


class FollowingScheduler(Scheduler):
    """A Scheduler that names the running request to a stream of events.

    A coroutine carries the number of its request wherever it parks; what it starts inherits it.
    """

    def __init__(self, clock: Any, events: EventStream) -> None:
        super().__init__(clock)
        self.events = events

    def start(self, coro: Coroutine[Any, Any, Any], then: Then | None = None, owner: object = None) -> Task | None:
        """Scheduler.start."""
        number = self._request_of(owner)
        if not number:
            return super().start(coro, then, owner)
        return super().start(self._follow(coro, number), then and self._follow_end(then, number), owner)

    def _follow_end(self, then: Then, number: int) -> Then:
        """What a request does at its end, with the request named: its status, its place in the ring."""

        def ended(result: Any, error: BaseException | None) -> None:
            outer, self.events.current = self.events.current, number
            try:
                then(result, error)
            finally:
                self.events.current = outer

        return ended

    def _request_of(self, owner: object) -> int:
        channel = getattr(owner, "channel", None)
        if channel is not None:  # a drive on a cable has one command, and starts each step of it later
            return self.events.open_request(channel.name, owner.place)  # type: ignore[attr-defined]
        number, self.events.submitted = self.events.submitted, 0
        return number or self.events.current

    @types.coroutine
    def _follow(self, coro: Coroutine[Any, Any, Any], number: int) -> Generator[Any, Any, Any]:
        """Run a coroutine with its request named during each of its steps."""
        events, step, value = self.events, coro.send, None
        while True:
            outer, events.current = events.current, number
            try:
                place = step(value)
            except StopIteration as stop:
                return stop.value
            finally:
                events.current = outer
            try:
                value, step = (yield place), coro.send
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as error:
                value, step = error, coro.throw
