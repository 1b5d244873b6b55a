"""The bridge: requests of a scheduler awaited from asyncio."""

import asyncio
import threading
import time

import pytest

from e2kdisk.aio import Cancelled, Scheduler, ThreadEngine, VirtualClock, WaitQueue
from e2kdisk.aio.bridge import AsyncioBridge
from e2kdisk.aio.simulated import SimulatedEngine


def in_asyncio(scheduler, program):
    async def main():
        with AsyncioBridge(scheduler) as bridge:
            return await asyncio.wait_for(program(bridge), 20)

    return asyncio.run(main())


@pytest.fixture
def scheduler():
    return Scheduler()


@pytest.fixture
def engine(scheduler):
    engine = ThreadEngine(scheduler)
    yield engine
    engine.close()


async def returning(value):
    return value


async def raising(error):
    raise error


def test_what_does_not_block_is_there_at_once(scheduler):
    assert in_asyncio(scheduler, lambda bridge: bridge.run(returning(3))) == 3


def test_many_requests_on_threads_at_once(scheduler, engine):
    async def request(number):
        await engine.call(time.sleep, 0.001)
        return number

    async def program(bridge):
        return await asyncio.gather(*(bridge.run(request(number)) for number in range(100)))

    assert in_asyncio(scheduler, program) == list(range(100))


def test_errors_arrive_whether_at_once_or_later(scheduler, engine):
    async def program(bridge):
        with pytest.raises(ValueError, match="now"):
            await bridge.run(raising(ValueError("now")))
        with pytest.raises(ZeroDivisionError):
            await bridge.run(engine.call(divmod, 1, 0))

    in_asyncio(scheduler, program)


def test_the_loop_goes_on_while_a_request_waits(scheduler, engine):
    release = threading.Event()

    async def program(bridge):
        waiting = asyncio.ensure_future(bridge.run(engine.call(release.wait, 10)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        release.set()
        return await waiting

    assert in_asyncio(scheduler, program) is True


def test_timers_of_the_scheduler_are_served(scheduler):
    async def program(bridge):
        await bridge.run(scheduler.sleep_until(scheduler.clock.now_ns() + 10_000_000))
        return scheduler.clock.now_ns()

    assert in_asyncio(scheduler, program) >= 10_000_000


def test_virtual_time_and_simulated_engines_go_on(tmp_path):
    scheduler = Scheduler(VirtualClock())
    engine = SimulatedEngine(scheduler)

    async def request():
        for _ in range(3):
            await engine.call(int)
            await scheduler.sleep_until(scheduler.clock.now_ns() + 10**12)
        return scheduler.clock.now_ns()

    assert in_asyncio(scheduler, lambda bridge: bridge.run(request())) == 3 * 10**12


def test_a_cancelled_await_ends_only_when_its_io_has_ended(scheduler, engine):
    release, ended = threading.Event(), []
    queue = WaitQueue(scheduler)

    async def request():
        try:
            await engine.call(release.wait, 10)
            ended.append("I/O")
            await queue.wait()
        except Cancelled:
            ended.append("cancelled")
            raise

    async def program(bridge):
        waiting = asyncio.ensure_future(bridge.run(request()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0.02)
        assert not waiting.done()
        waiting.cancel()  # an impatient caller changes nothing
        await asyncio.sleep(0.01)
        assert not waiting.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended == ["I/O", "cancelled"]

    in_asyncio(scheduler, program)
    assert not scheduler.tasks


def test_a_cancelled_request_that_fails_does_so_silently(scheduler, engine):
    release = threading.Event()

    def fail():
        release.wait(10)
        raise OSError("too late")

    async def program(bridge):
        waiting = asyncio.ensure_future(bridge.run(engine.call(fail)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        asyncio.get_running_loop().call_later(0.01, release.set)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    in_asyncio(scheduler, program)
