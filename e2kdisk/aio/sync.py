"""Lock and WaitQueue for coroutines of one scheduler: first come, first served."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from e2kdisk.aio.scheduler import Scheduler, Task, park


class WaitQueue:
    """Tasks that wait for something to change; they look again when woken (reference: CoQueue)."""

    __slots__ = ("_scheduler", "_waiting")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[Task] = deque()

    async def wait(self) -> None:
        """Park until wake_all or wake_one; the caller must test its condition again."""
        await park(self)

    def wake_all(self) -> None:
        """Wake everyone who waits now."""
        while self._waiting:
            self._scheduler.wake(self._waiting.popleft())

    def wake_one(self) -> bool:
        """Wake the one who has waited longest; False if nobody waits."""
        if not self._waiting:
            return False
        self._scheduler.wake(self._waiting.popleft())
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    def park(self, task: Task) -> None:
        """Place.park."""
        self._waiting.append(task)

    def unpark(self, task: Task) -> bool:
        """Place.unpark: a queue wait can be cancelled; False if the task has been woken already."""
        try:
            self._waiting.remove(task)
        except ValueError:
            return False
        return True


class Lock:
    """Mutual exclusion between coroutines, handed over in order of arrival (reference: CoMutex).

    Release hands the lock straight to the longest waiter, so that a busy holder cannot starve others. If that
    waiter is cancelled after the hand-over, Cancelled finds it only at its next wait: the lock is not lost.
    """

    __slots__ = ("_scheduler", "_waiting", "locked")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[Task] = deque()
        self.locked = False

    async def acquire(self) -> None:
        """Take the lock, waiting behind everyone who came earlier."""
        if self.locked:
            await park(self)
        else:
            self.locked = True

    def release(self) -> None:
        """Hand the lock to the next waiter, or free it."""
        if self._waiting:
            self._scheduler.wake(self._waiting.popleft())
        else:
            self.locked = False

    async def __aenter__(self) -> None:
        if self.locked:
            await park(self)
        else:
            self.locked = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def park(self, task: Task) -> None:
        """Place.park."""
        self._waiting.append(task)

    def unpark(self, task: Task) -> bool:
        """Place.unpark: waiting for a lock can be cancelled; False if the lock has been handed over already."""
        try:
            self._waiting.remove(task)
        except ValueError:
            return False
        return True
