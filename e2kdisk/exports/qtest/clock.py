"""The virtual clock in the hands of a test: it stands still until it is told to move, timers run in order."""

from __future__ import annotations

from e2kdisk.aio.scheduler import Scheduler


class SteppedClock:
    """Moves a scheduler's virtual clock; nanoseconds."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    @property
    def now_ns(self) -> int:
        """The time."""
        return self._scheduler.clock.now_ns()

    def step(self, ns: int) -> int:
        """Move on by some time; what it is then."""
        return self.move_to(self.now_ns + ns)

    def step_to_next_timer(self) -> int:
        """Move on until a timer is due, if there is one; what it is then."""
        due = self._scheduler.next_timer_ns()
        return self.move_to(self.now_ns if due is None else due)

    def move_to(self, ns: int) -> int:
        """Move on to a time, never back; what it is then.

        Requests that are out on a thread come back first: to the guest they take no time.
        """
        scheduler = self._scheduler
        scheduler.settle()
        while (due := scheduler.next_timer_ns()) is not None and due <= ns:
            scheduler.clock.skip_to(due)
            scheduler.settle()
        scheduler.clock.skip_to(ns)
        scheduler.settle()
        return self.now_ns
