"""Promises of gather: all run at once, results in order, errors and cancellations wait for the others."""

from __future__ import annotations

import pytest

from e2kdisk.aio.engine import ThreadEngine
from e2kdisk.aio.gather import gather
from e2kdisk.aio.scheduler import Cancelled, Scheduler
from e2kdisk.aio.sync import WaitQueue


async def number(value: int, queue: WaitQueue | None = None, log: list[int] | None = None) -> int:
    if queue is not None:
        await queue.wait()
    if log is not None:
        log.append(value)
    return value


def test_results_come_in_the_order_of_the_coroutines() -> None:
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler)
    assert scheduler.run(gather(scheduler, [engine.call(int, str(n)) for n in range(20)])) == list(range(20))
    assert scheduler.run(gather(scheduler, [])) == []
    engine.close()


def test_an_error_is_raised_after_all_have_ended() -> None:
    scheduler = Scheduler()
    queue, log = WaitQueue(scheduler), []

    async def fails() -> int:
        raise OSError("first")

    outcome: list[BaseException | None] = []
    scheduler.start(gather(scheduler, [fails(), number(1, queue, log)]), lambda result, error: outcome.append(error))
    assert not outcome and not log
    queue.wake_all()
    scheduler.poll()
    assert log == [1] and isinstance(outcome[0], OSError)


def test_a_cancellation_waits_for_the_others() -> None:
    scheduler = Scheduler()
    queue, log = WaitQueue(scheduler), []
    outcome: list[BaseException | None] = []
    task = scheduler.start(
        gather(scheduler, [number(1, queue, log), number(2, queue, log)]),
        lambda result, error: outcome.append(error),
    )
    assert task is not None
    task.cancel()
    scheduler.poll()
    assert not outcome, "the buffers of the two are still in use"
    queue.wake_all()
    scheduler.poll()
    assert log == [1, 2] and isinstance(outcome[0], Cancelled)


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_that_ends_at_once_needs_a_wait(count: int) -> None:
    scheduler = Scheduler()
    assert scheduler.run(gather(scheduler, [number(n) for n in range(count)])) == list(range(count))
    assert not scheduler.tasks
