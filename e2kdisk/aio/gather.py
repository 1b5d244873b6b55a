"""Several coroutines of one scheduler at once, their results in order."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable

from e2kdisk.aio.scheduler import Cancelled, Scheduler
from e2kdisk.aio.sync import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")


async def gather(scheduler: Scheduler, coros: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Start all, wait for all, return their results; if any failed, raise the error of the first of them.

    A cancellation waits for them too: their buffers are the caller's.
    """
    outcomes: list[tuple[Any, BaseException | None] | None] = []
    waiting = WaitQueue(scheduler)
    left = 0

    def start(index: int, coro: Coroutine[Any, Any, T]) -> None:
        def then(result: T, error: BaseException | None) -> None:
            nonlocal left
            outcomes[index] = (result, error)
            left -= 1
            if not left:
                waiting.wake_all()

        scheduler.start(coro, then)

    pending = list(coros)
    outcomes = [None] * len(pending)
    left = len(pending)
    for index, coro in enumerate(pending):
        start(index, coro)
    cancelled: Cancelled | None = None
    while left:
        try:
            await waiting.wait()
        except Cancelled as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    results: list[T] = []
    for outcome in outcomes:
        assert outcome is not None
        if outcome[1] is not None:
            raise outcome[1]
        results.append(outcome[0])
    return results
