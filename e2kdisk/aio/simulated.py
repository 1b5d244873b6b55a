"""The simulated engine: completions happen only when chosen, in the order that a chooser decides.

The real system call is made at the moment a request is chosen, so the order of completion is also the
order of effect. Nothing else differs from the other engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from e2kdisk.aio.engine import IoVec, read_fully, write_fully
from e2kdisk.aio.scheduler import Scheduler, Task, park

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class PendingCall:
    """One system call in flight: what it will do when it is chosen."""

    engine: SimulatedEngine
    kind: str
    """read, write, or the name of the called function."""
    offset: int | None
    """Where in the file, in bytes; None for calls without a place."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    task: Task | None = None

    def park(self, task: Task) -> None:
        """Place.park."""
        self.task = task
        self.engine.pending.append(self)

    def unpark(self, task: Task) -> bool:
        """Place.unpark: I/O in flight is never cancelled."""
        return False


Chooser = Callable[[Sequence[PendingCall]], int]
"""Given the calls in flight, oldest first, returns the index of the one that completes next."""


def oldest_first(pending: Sequence[PendingCall]) -> int:
    """The chooser of a disk that keeps order."""
    return 0


class SimulatedEngine:
    """Parks every call; `advance` (called by Scheduler.wait when nothing else can run) completes a chosen one."""

    def __init__(self, scheduler: Scheduler, choose: Chooser = oldest_first) -> None:
        self.scheduler = scheduler
        self.choose = choose
        self.pending: list[PendingCall] = []
        scheduler.add_source(self)

    def try_read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_read: never inline, every read is a decision."""
        return 0

    def try_write(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_write: never inline, every write is a decision."""
        return 0

    async def read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.read."""
        return cast("int", await park(PendingCall(self, "read", offset, read_fully, (fd, iov, offset))))

    async def write(self, fd: int, iov: IoVec, offset: int) -> None:
        """Engine.write."""
        await park(PendingCall(self, "write", offset, write_fully, (fd, iov, offset)))

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Engine.call."""
        name = getattr(function, "__name__", repr(function))
        return cast("T", await park(PendingCall(self, name, None, function, args)))

    def advance(self) -> bool:
        """Source.advance: complete the call that the chooser names."""
        if not self.pending:
            return False
        self.complete(self.pending[self.choose(self.pending)])
        return True

    def complete(self, call: PendingCall) -> None:
        """Make the call now and wake its task."""
        self.pending.remove(call)
        assert call.task is not None
        try:
            value = call.function(*call.args)
        except Exception as error:
            self.scheduler.wake(call.task, error=error)
        else:
            self.scheduler.wake(call.task, value)

    def close(self) -> None:
        """Engine.close."""
        if self.pending:
            raise AssertionError(f"closed with {len(self.pending)} calls in flight")
