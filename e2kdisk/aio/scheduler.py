"""The scheduler: steps a coroutine on the caller's stack until it really blocks, and finishes it later.

A request that never blocks costs one `send(None)`: no task, no future, no loop. Only when a coroutine
parks does it become a `Task`. What wakes tasks again:

    another task   Lock.release, WaitQueue.wake_all       -> wake()
    a thread       an engine's worker finished a call      -> post() (the one thread-safe entry)
    a source       an engine that chooses completions      -> Source.advance(), when nothing else can run
    a timer        call_at(), sleep_until()                -> when the clock gets there

Woken tasks run inside whichever of start(), run(), poll(), wait() is outermost on the owner's stack, so
the owner decides when completions are delivered. Except for post(), one thread owns a scheduler.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import coroutine

from e2kdisk.aio.clock import Clock, HostClock
from e2kdisk.errors import DeadlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")
    Then = Callable[[Any, BaseException | None], None]
    """Called once with (result, None) or (None, error) when a started coroutine ends."""
else:
    Protocol = object


LONGEST_WAIT = 3600.0
"""Seconds after which a wait for a far timer looks again: the host's time limits are smaller than a timer's."""


class Cancelled(BaseException):
    """Thrown into a coroutine at a wait that may be cancelled (Lock, WaitQueue, sleep), never into I/O."""


class Place(Protocol):
    """Something a coroutine can park at."""

    def park(self, task: Task) -> None:
        """Remember the task; wake it later with Scheduler.wake or Scheduler.post."""

    def unpark(self, task: Task) -> bool:
        """Forget the task because it is cancelled; False if this wait cannot be cancelled (I/O in flight)."""


class Source(Protocol):
    """Something that can make progress by itself when everything else waits (a simulated engine)."""

    def advance(self) -> bool:
        """Complete something; False if nothing is in flight here."""


@coroutine
def park(place: Place) -> Generator[Place, Any, Any]:
    """Suspend the running coroutine at a place; returns the value it is woken with."""
    return (yield place)


class Task:
    """A coroutine that has parked at least once."""

    __slots__ = (
        "_coro",
        "_then",
        "cancel_pending",
        "cancelled",
        "done",
        "error",
        "owner",
        "place",
        "result",
        "scheduler",
    )

    def __init__(
        self, scheduler: Scheduler, coro: Coroutine[Place, Any, Any], then: Then | None, owner: object
    ) -> None:
        self.scheduler = scheduler
        self.owner = owner
        self.place: Place | None = None
        self.done = False
        self.cancelled = False
        self.cancel_pending = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._coro = coro
        self._then = then

    def cancel(self) -> None:
        """Throw Cancelled at the next cancellable wait; I/O that is in flight finishes first, always.

        A buffer handed to a kernel call or a thread stays in use until the call returns, so no I/O wait is
        ever cut short: the task goes on and meets the cancellation at its next Lock or WaitQueue.
        """
        if self.done or self.cancelled:
            return
        self.cancelled = True
        self.cancel_pending = not self._throw_cancelled()

    def _throw_cancelled(self) -> bool:
        """Throw Cancelled if the task waits where it can be cancelled."""
        if self.place is None or not self.place.unpark(self):
            return False
        self.place = None
        self.scheduler.wake(self, error=Cancelled())
        return True


class _Timer:
    """A place where a task sleeps; also carries a plain callback."""

    __slots__ = ("call", "task", "when_ns")

    def __init__(self, when_ns: int, call: Callable[[], None] | None = None) -> None:
        self.when_ns = when_ns
        self.call = call
        self.task: Task | None = None

    def park(self, task: Task) -> None:
        self.task = task

    def unpark(self, task: Task) -> bool:
        if self.task is None:
            return False  # the time has come already
        self.task = None
        return True

    def cancel(self) -> None:
        self.call = None
        self.task = None


def _keep(result: Any, error: BaseException | None) -> None:
    """A `then` for whoever looks at task.result and task.error."""


class _Apart:
    """A place where a task waits for another that was made of a coroutine; I/O, as far as cancelling goes."""

    __slots__ = ("_coro", "_scheduler")

    def __init__(self, scheduler: Scheduler, coro: Coroutine[Any, Any, Any]) -> None:
        self._scheduler = scheduler
        self._coro = coro

    def park(self, task: Task) -> None:
        def then(result: Any, error: BaseException | None) -> None:
            self._scheduler.wake(task, result, error)

        child = Task(self._scheduler, self._coro, then, task.owner)
        self._scheduler.tasks.add(child)
        self._scheduler.wake(child)

    def unpark(self, task: Task) -> bool:
        return False


class Scheduler:
    """Runs coroutines; see the module's docstring for who wakes whom."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock if clock is not None else HostClock()
        self.tasks: set[Task] = set()
        self.on_post: Callable[[], None] | None = None
        """Called in the posting thread after post(): lets a foreign loop (asyncio) learn that poll() has work."""
        self._sources: list[Source] = []
        self._ready: deque[tuple[Task, Any, BaseException | None]] = deque()
        self._inbox: SimpleQueue[tuple[Task, Any, BaseException | None]] = SimpleQueue()
        self._outside = 0
        self._timers: list[tuple[int, int, _Timer]] = []
        self._sequence = itertools.count()
        self._running = False
        self._lost_errors: list[BaseException] = []

    # -- starting ---------------------------------------------------------------------------------

    def start(self, coro: Coroutine[Any, Any, Any], then: Then | None = None, owner: object = None) -> Task | None:
        """Step coro now; None if it ended on the spot, else the task that will go on later.

        `then` gets the result or the error exactly once. Without `then`, an error on the spot is raised here
        and a later one by the poll(), wait() or run() that meets it: no error is dropped. `owner` names who
        may drain() the task.
        """
        task = None
        outer = self._running
        self._running = True
        try:
            place = coro.send(None)
        except StopIteration as stop:
            if then is not None:
                then(stop.value, None)
        except BaseException as error:
            if then is None or not isinstance(error, (Exception, Cancelled)):
                raise
            then(None, error)
        else:
            task = self._adopt(coro, place, then, owner)
        finally:
            self._running = outer
        if self._ready and not outer:
            self._run_ready()
        return task

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run coro to its end, blocking the caller, and return its result or raise its error.

        An error of another task that nobody asks for is raised only after that: until coro has ended, the caller's
        buffers are in use. Raises DeadlockError when it waits and nothing is left that could wake it.
        """
        outer = self._running
        self._running = True
        task: Task | None = None
        result: T
        try:
            place = coro.send(None)
        except StopIteration as stop:
            result = stop.value
        else:
            task = self._adopt(coro, place, _keep, self)
        finally:
            self._running = outer
        if self._ready and not outer:
            self._run_ready()
        if task is not None:
            while not task.done:
                if not self._wait(None):
                    raise DeadlockError(f"a request waits at {task.place!r} and nothing can wake it")
            if task.error is not None:
                raise task.error
            result = task.result
        if self._lost_errors and not outer:
            raise self._lost_errors.pop(0)
        return result

    def _adopt(self, coro: Coroutine[Any, Any, Any], place: Place, then: Then | None, owner: object) -> Task:
        """Make a task of a coroutine that has just parked at place."""
        task = Task(self, coro, then, owner)
        self.tasks.add(task)
        task.place = place
        place.park(task)
        return task

    async def apart(self, coro: Coroutine[Any, Any, T]) -> T:
        """Await coro on a stack of its own, for recursion that is as deep as some data says (a chain of images).

        An ordinary await keeps the caller's frames on the interpreter's stack, here they are parked meanwhile.
        """
        result: T = await park(_Apart(self, coro))
        return result

    # -- waking -----------------------------------------------------------------------------------

    def wake(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        """Make a parked task go on (owner's thread only); it runs when control is back in the scheduler."""
        self._ready.append((task, value, error))

    def expect_post(self) -> None:
        """Announce one post() to come, so that wait() knows that there is something to wait for."""
        self._outside += 1

    def post(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        """Make a parked task go on, from any thread; pairs with one expect_post()."""
        self._inbox.put((task, value, error))
        tell = self.on_post
        if tell is not None:
            tell()

    def add_source(self, source: Source) -> None:
        """Register a source that wait() may ask for progress when nothing else can run."""
        self._sources.append(source)

    # -- time -------------------------------------------------------------------------------------

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Callable[[], None]:
        """Call back at a time of the clock (nanoseconds); returns the function that cancels it."""
        timer = _Timer(when_ns, call)
        heapq.heappush(self._timers, (when_ns, next(self._sequence), timer))
        return timer.cancel

    async def sleep_until(self, when_ns: int) -> None:
        """Wait until the clock shows when_ns."""
        if when_ns > self.clock.now_ns():
            timer = _Timer(when_ns)
            heapq.heappush(self._timers, (when_ns, next(self._sequence), timer))
            await park(timer)

    def next_timer_ns(self) -> int | None:
        """The time of the earliest timer, or None."""
        while self._timers and self._timers[0][2].call is None and self._timers[0][2].task is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    # -- delivering -------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Deliver what is done, without blocking; True if anything ran. May be called from inside a task."""
        ran = self._deliver()
        if self._lost_errors:
            raise self._lost_errors.pop(0)
        return ran

    def wait(self, timeout: float | None = None) -> bool:
        """Block until something ran; False if nothing is left that could run, or `timeout` seconds passed."""
        ran = self._wait(timeout)
        if self._lost_errors:
            raise self._lost_errors.pop(0)
        return ran

    def _deliver(self) -> bool:
        ran = False
        while True:
            self._collect_posts()
            self._fire_timers()
            if not self._ready:
                return ran
            self._run_ready()
            ran = True

    def _wait(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._deliver():
            if self._outside == 0 and any(source.advance() for source in self._sources):
                continue
            next_timer = self.next_timer_ns()
            if self._outside == 0:
                if next_timer is None:
                    return False
                if self.clock.skip_to(next_timer):
                    continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if next_timer is not None and self.clock.runs:
                until_timer = max(0, next_timer - self.clock.now_ns()) / 1e9
                left = min(until_timer, LONGEST_WAIT if left is None else left)
            with suppress(Empty):
                self._ready.append(self._inbox.get(timeout=left))
                self._outside -= 1
        return True

    def settle(self) -> None:
        """Block until every call that is out on a thread has been delivered.

        Unlike wait() it never moves the clock and asks no source: how long threads take does not show.
        """
        self.poll()
        while self._outside:
            self._ready.append(self._inbox.get())
            self._outside -= 1
            self.poll()

    def advance(self) -> bool:
        """Let each source complete one thing and deliver it; False if there was nothing."""
        advanced = [source.advance() for source in self._sources]
        self.poll()
        return any(advanced)

    def drain(self, owner: object = None) -> None:
        """Run until no task of this owner (of anybody, without one) is left.

        Raises DeadlockError when tasks are left that nothing can wake.
        """
        while any(owner is None or task.owner is owner for task in self.tasks):
            if not self._wait(None):
                stuck = next(task for task in self.tasks if owner is None or task.owner is owner)
                raise DeadlockError(f"a request waits at {stuck.place!r} and nothing can wake it")
        if self._lost_errors:
            raise self._lost_errors.pop(0)

    def _collect_posts(self) -> None:
        with suppress(Empty):
            while True:
                self._ready.append(self._inbox.get_nowait())
                self._outside -= 1

    def _run_ready(self) -> None:
        outer = self._running
        self._running = True
        try:
            while self._ready:
                task, value, error = self._ready.popleft()
                self._step(task, value, error)
        finally:
            self._running = outer

    def _step(self, task: Task, value: Any, error: BaseException | None) -> None:
        task.place = None
        try:
            place = task._coro.send(value) if error is None else task._coro.throw(error)
        except StopIteration as stop:
            self._finish(task, stop.value, None)
        except (Exception, Cancelled) as raised:
            self._finish(task, None, raised)
        except BaseException as interrupt:  # KeyboardInterrupt, SystemExit: for the owner's caller, at once
            self._finish(task, None, interrupt)
            raise
        else:
            task.place = place
            place.park(task)
            # Thrown once only: what the request does to clean up may wait for a lock in peace.
            if task.cancel_pending:
                task.cancel_pending = not task._throw_cancelled()

    def _finish(self, task: Task, result: Any, error: BaseException | None) -> None:
        task.done = True
        task.result = result
        task.error = error
        self.tasks.discard(task)
        if task._then is not None:
            task._then(result, error)
        elif error is not None and not isinstance(error, Cancelled):
            self._lost_errors.append(error)

    def _fire_timers(self) -> None:
        while True:
            when_ns = self.next_timer_ns()
            if when_ns is None or when_ns > self.clock.now_ns():
                return
            timer = heapq.heappop(self._timers)[2]
            if timer.task is not None:
                task, timer.task = timer.task, None
                self.wake(task)
            elif timer.call is not None:
                timer.call()
