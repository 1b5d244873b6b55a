"""The scheduler: what is stepped where, what wakes whom, and that no error and no request is ever lost."""

import itertools
import random
import threading
import time

import pytest

from e2kdisk.aio import Cancelled, HostClock, Lock, Scheduler, ThreadEngine, VirtualClock, WaitQueue
from e2kdisk.errors import DeadlockError


async def returning(value):
    return value


async def raising(error):
    raise error


async def waiting_at(queue, value=None):
    await queue.wait()
    if isinstance(value, BaseException):
        raise value
    return value


def outcomes(into):
    return lambda result, error: into.append(error if error is not None else result)


@pytest.fixture
def scheduler():
    return Scheduler(VirtualClock())


def test_what_does_not_block_is_finished_on_the_spot_without_a_task(scheduler):
    seen = []
    assert scheduler.start(returning(7), outcomes(seen)) is None
    assert seen == [7]
    assert not scheduler.tasks
    assert scheduler.run(returning(8)) == 8


def test_what_blocks_becomes_a_task_that_ends_when_it_is_woken(scheduler):
    queue, seen = WaitQueue(scheduler), []
    task = scheduler.start(waiting_at(queue, 5), outcomes(seen))
    assert task is not None
    assert not scheduler.poll()
    queue.wake_all()
    assert seen == []
    assert scheduler.poll()
    assert seen == [5]
    assert task.done
    assert task.result == 5
    assert not scheduler.tasks


def test_then_gets_an_error_on_the_spot_and_a_later_one(scheduler):
    queue, seen = WaitQueue(scheduler), []
    scheduler.start(raising(ValueError("now")), outcomes(seen))
    scheduler.start(waiting_at(queue, ValueError("later")), outcomes(seen))
    queue.wake_all()
    scheduler.poll()
    assert [str(error) for error in seen] == ["now", "later"]


def test_without_then_an_error_is_raised_where_it_is_met(scheduler):
    queue = WaitQueue(scheduler)
    with pytest.raises(ValueError, match="now"):
        scheduler.start(raising(ValueError("now")))
    scheduler.start(waiting_at(queue, ValueError("first")))
    scheduler.start(waiting_at(queue, ValueError("second")))
    queue.wake_all()
    for text in ("first", "second"):
        with pytest.raises(ValueError, match=text):
            scheduler.poll()
    assert not scheduler.poll()


@pytest.mark.parametrize("how", ["run", "drain"])
def test_somebody_elses_error_is_raised_only_after_what_was_waited_for_has_ended(scheduler, how):
    first, second, seen = WaitQueue(scheduler), WaitQueue(scheduler), []

    async def mine():
        first.wake_all()
        await scheduler.sleep_until(100)
        second.wake_all()
        await scheduler.sleep_until(200)
        seen.append("mine")

    def by_drain():
        scheduler.start(mine())
        scheduler.drain()

    scheduler.start(waiting_at(first, ValueError("theirs")))
    with pytest.raises(ValueError, match="theirs"):
        by_drain() if how == "drain" else scheduler.run(mine())
    assert seen == ["mine"]


def test_run_inside_a_task_returns_there(scheduler):
    queue = WaitQueue(scheduler)

    async def waker():
        await scheduler.sleep_until(10)
        queue.wake_all()

    async def outer():
        scheduler.start(waker())
        return scheduler.run(waiting_at(queue, "inner")) + " and outer"

    assert scheduler.run(outer()) == "inner and outer"


def test_a_start_inside_a_first_step_leaves_woken_tasks_to_the_outermost(scheduler):
    queue, order = WaitQueue(scheduler), []

    async def woken():
        await queue.wait()
        order.append("woken")

    async def outer():
        queue.wake_all()
        scheduler.start(returning(None))
        order.append("outer still runs alone")

    scheduler.start(woken())
    scheduler.start(outer())
    assert order == ["outer still runs alone", "woken"]


def test_recursion_apart_is_as_deep_as_it_likes(scheduler):
    async def down(depth):
        if not depth:
            raise ValueError("at the bottom")
        try:
            return await scheduler.apart(down(depth - 1))
        finally:
            await scheduler.sleep_until(scheduler.clock.now_ns() + 1)

    with pytest.raises(ValueError, match="at the bottom"):
        scheduler.run(down(3000))
    assert scheduler.clock.now_ns() == 3000
    assert not scheduler.tasks
    assert scheduler.run(scheduler.apart(returning(5))) == 5


def test_a_deadlock_is_reported_and_does_not_hang(scheduler):
    with pytest.raises(DeadlockError, match="WaitQueue"):
        scheduler.run(waiting_at(WaitQueue(scheduler)))
    with pytest.raises(DeadlockError):
        scheduler.drain()
    assert scheduler.wait() is False


def test_drain_waits_for_one_owner_only(scheduler):
    mine, theirs, seen = WaitQueue(scheduler), WaitQueue(scheduler), []
    scheduler.start(waiting_at(mine, "mine"), outcomes(seen), owner="me")
    scheduler.start(waiting_at(theirs, "theirs"), outcomes(seen), owner="them")
    scheduler.call_at(5, mine.wake_all)
    scheduler.drain("me")
    assert seen == ["mine"]
    assert len(scheduler.tasks) == 1


# -- time -----------------------------------------------------------------------------------------


def test_virtual_time_jumps_to_the_next_timer_and_timers_fire_in_order(scheduler):
    seen = []

    async def sleeper(when):
        await scheduler.sleep_until(when)
        seen.append((when, scheduler.clock.now_ns()))

    hour = 3600 * 10**9
    for when in (3 * hour, hour, 2 * hour, hour):
        scheduler.start(sleeper(when))
    scheduler.drain()
    assert seen == [(hour, hour), (hour, hour), (2 * hour, 2 * hour), (3 * hour, 3 * hour)]


def test_virtual_time_stands_still_while_a_thread_works():
    scheduler = Scheduler(VirtualClock())
    engine = ThreadEngine(scheduler)
    loops = itertools.count()
    deliver = scheduler._deliver

    def counted():
        next(loops)
        return deliver()

    scheduler._deliver = counted
    scheduler.call_at(1, lambda: None)
    scheduler.run(engine.call(time.sleep, 0.05))
    engine.close()
    assert scheduler.clock.now_ns() == 0
    assert next(loops) < 20, "waits for the thread, not in a spin for a timer that cannot come"


def test_host_time_passes_while_waiting():
    scheduler = Scheduler(HostClock())
    begin = scheduler.clock.now_ns()
    scheduler.run(scheduler.sleep_until(begin + 20_000_000))
    assert scheduler.clock.now_ns() - begin >= 20_000_000


def test_a_timer_in_the_far_future_does_not_overflow_the_hosts_time_limit():
    scheduler = Scheduler(HostClock())
    engine = ThreadEngine(scheduler)
    scheduler.call_at(10**30, lambda: None)
    assert scheduler.run(engine.call(lambda: 5)) == 5
    engine.close()


def test_a_cancelled_timer_does_not_fire(scheduler):
    seen = []
    cancel = scheduler.call_at(10, lambda: seen.append(10))
    scheduler.call_at(20, lambda: seen.append(20))
    cancel()
    assert scheduler.next_timer_ns() == 20
    scheduler.wait()
    scheduler.clock.advance(100)
    scheduler.poll()
    assert seen == [20]


def test_wait_gives_up_after_its_timeout():
    scheduler = Scheduler(HostClock())
    scheduler.start(scheduler.sleep_until(10**12), outcomes([]))
    begin = time.monotonic()
    assert scheduler.wait(timeout=0.02) is False
    assert 0.015 < time.monotonic() - begin < 5


# -- cancelling -----------------------------------------------------------------------------------


def test_a_sleep_is_cancelled(scheduler):
    seen = []
    task = scheduler.start(scheduler.sleep_until(10**9), outcomes(seen))
    task.cancel()
    scheduler.drain()
    assert isinstance(seen[0], Cancelled)
    assert scheduler.clock.now_ns() == 0


def test_a_sleep_that_is_over_is_not_cancelled_twice(scheduler):
    seen = []

    async def sleeper():
        await scheduler.sleep_until(10)
        return "slept"

    task = scheduler.start(sleeper(), outcomes(seen))
    scheduler.call_at(10, task.cancel)  # after the sleeper's timer has fired, before it has run
    scheduler.drain()
    assert seen == ["slept"]


def test_cancelling_never_cuts_io_short():
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler)
    release, seen, queue = threading.Event(), [], WaitQueue(scheduler)

    async def request():
        await engine.call(release.wait, 10)
        seen.append("I/O is over")
        await queue.wait()

    task = scheduler.start(request(), outcomes(seen))
    task.cancel()
    assert not scheduler.wait(timeout=0.02)
    assert seen == []
    release.set()
    scheduler.drain()
    engine.close()
    assert seen[0] == "I/O is over"
    assert isinstance(seen[1], Cancelled)


def test_cancelled_is_thrown_once_so_that_a_request_can_clean_up(scheduler):
    queue, seen = WaitQueue(scheduler), []

    async def request():
        try:
            await queue.wait()
        finally:
            await scheduler.sleep_until(50)
            seen.append("cleaned up")

    task = scheduler.start(request(), outcomes(seen))
    task.cancel()
    task.cancel()
    scheduler.drain()
    assert seen[0] == "cleaned up"
    assert isinstance(seen[1], Cancelled)


# -- threads --------------------------------------------------------------------------------------


def test_wake_ups_from_threads_are_never_missed():
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler, threads=8)
    rng, seen = random.Random(1), []

    async def request(number):
        for _ in range(5):
            await engine.call(time.sleep, rng.random() / 5000)
        return number

    for number in range(400):
        scheduler.start(request(number), outcomes(seen))
    scheduler.drain()
    engine.close()
    assert sorted(seen) == list(range(400))


def test_an_error_on_a_thread_reaches_the_request():
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler)

    def fail():
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        scheduler.run(engine.call(fail))
    engine.close()


def test_when_no_thread_can_start_the_request_fails_and_does_not_hang(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler)
    with pytest.raises(RuntimeError, match="can't start"):
        scheduler.run(engine.call(time.sleep, 0))


def test_calls_wait_for_each_other_only_when_all_threads_are_busy():
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler, threads=3)
    meeting = threading.Barrier(3)
    for _ in range(20):
        for _ in range(3):
            scheduler.start(engine.call(meeting.wait, 10))
        scheduler.drain()
    engine.close()


def test_an_interrupt_reaches_whoever_polls(scheduler):
    queue = WaitQueue(scheduler)
    scheduler.start(waiting_at(queue, KeyboardInterrupt()), outcomes([]))
    queue.wake_all()
    with pytest.raises(KeyboardInterrupt):
        scheduler.poll()
    assert not scheduler.tasks


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_handed_over_in_order_of_arrival(scheduler):
    lock, order = Lock(scheduler), []

    async def user(number):
        async with lock:
            order.append(number)
            await scheduler.sleep_until(scheduler.clock.now_ns() + 10)
            assert order[-1] == number, "nobody else was inside"

    for number in range(5):
        scheduler.start(user(number))
    scheduler.drain()
    assert order == [0, 1, 2, 3, 4]
    assert not lock.locked


def test_a_cancelled_waiter_is_passed_over(scheduler):
    lock, order = Lock(scheduler), []

    async def user(number):
        async with lock:
            order.append(number)
            await scheduler.sleep_until(scheduler.clock.now_ns() + 10)

    tasks = [scheduler.start(user(number), outcomes([])) for number in range(3)]
    tasks[1].cancel()
    scheduler.drain()
    assert order == [0, 2]
    assert not lock.locked


def test_a_lock_is_not_lost_when_its_new_holder_is_cancelled_after_the_hand_over(scheduler):
    lock, order, tasks = Lock(scheduler), [], []

    async def holder():
        async with lock:
            await scheduler.sleep_until(10)
        tasks[1].cancel()  # it has the lock by now, and has not run yet

    async def user(number):
        async with lock:
            order.append(number)
            await scheduler.sleep_until(scheduler.clock.now_ns() + 10)
            order.append("not reached when cancelled")

    tasks.append(scheduler.start(holder()))
    tasks.append(scheduler.start(user(1), outcomes([])))
    tasks.append(scheduler.start(user(2), outcomes([])))
    scheduler.drain()
    assert order == [1, 2, "not reached when cancelled"]
    assert not lock.locked


def test_a_wait_queue_wakes_one_or_all(scheduler):
    queue, seen = WaitQueue(scheduler), []
    for number in range(3):
        scheduler.start(waiting_at(queue, number), outcomes(seen))
    assert len(queue) == 3
    assert queue.wake_one()
    scheduler.poll()
    assert seen == [0]
    queue.wake_all()
    scheduler.poll()
    assert seen == [0, 1, 2]
    assert not queue.wake_one()
