"""Time as the guest reads it: instructions under the virtual clock, nanoseconds under the host's.

A guest that does nothing but read the time, or look for input, is waiting for it. Under the virtual clock such reads
move time forward by themselves, more with each: a delay of two seconds costs some thousand reads instead of 200 million
instructions, and is still the same in every run.
"""

from __future__ import annotations

from e2kdisk.aio.clock import Clock, VirtualClock
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.machine.cpu.cpu import Cpu

WAITING = 500
"""So few instructions between two reads of the time mean a waiting loop."""
FIRST_STEP_NS = 1_000
LAST_STEP_NS = 50_000
"""By how much a read in a waiting loop moves time: bounds how late a guest's delay ends."""
LOOK_AROUND_NS = 1_000_000
"""After so much of it the slice ends, so that timers and devices get their turn."""


class GuestTime:
    """The time between two calls of advance(), which the machine makes after each slice."""

    def __init__(self, scheduler: Scheduler, cpu: Cpu, ns_per_instruction: int = 10) -> None:
        """ns_per_instruction is how fast virtual time runs."""
        self.ns_per_instruction = ns_per_instruction
        self._scheduler = scheduler
        self._cpu = cpu
        self._clock: Clock = scheduler.clock
        self._virtual = self._clock if isinstance(self._clock, VirtualClock) else None
        self.still = False
        """Reading does not move it: no guest runs that could wait in a loop."""
        self._moved_ns = 0
        self._last_read = 0
        self._step_ns = FIRST_STEP_NS

    @property
    def is_virtual(self) -> bool:
        """Whether time is counted in instructions."""
        return self._virtual is not None

    def now_ns(self) -> int:
        """The time at this instruction."""
        if self._virtual is None:
            return self._clock.now_ns()
        return self._clock.now_ns() + self._cpu.executed() * self.ns_per_instruction + self._moved_ns

    def read_ns(self) -> int:
        """The time for a guest that reads it."""
        if self._virtual is None or self.still:
            return self._clock.now_ns()
        executed = self._cpu.executed()
        if executed - self._last_read > WAITING or self._scheduler.tasks:
            # With a request in flight time must not run away from the disk: the guest may have a time limit on it.
            self._step_ns = FIRST_STEP_NS
        else:
            self._moved_ns += self._step_ns
            self._step_ns = min(2 * self._step_ns, LAST_STEP_NS)
            if self._moved_ns > LOOK_AROUND_NS:
                self._cpu.kick()
        self._last_read = executed
        return self._clock.now_ns() + executed * self.ns_per_instruction + self._moved_ns

    def skip_to(self, when_ns: int) -> None:
        """Move a virtual clock to a later time at once: the guest only waits for it. The slice ends here."""
        ahead = when_ns - self.now_ns()
        if ahead > 0 and self._virtual is not None:
            self._moved_ns += ahead
            self._cpu.kick()

    def advance(self, instructions: int) -> None:
        """The slice is over: the scheduler's clock catches up."""
        if self._virtual is not None:
            self._virtual.advance(instructions * self.ns_per_instruction + self._moved_ns)
        self._moved_ns = 0
        self._last_read -= instructions

    def instructions_until(self, when_ns: int) -> int:
        """How many instructions fit before a time; at least one."""
        return max(1, (when_ns - self._clock.now_ns()) // self.ns_per_instruction)

    def save(self) -> dict[str, int]:
        """Plain data; not during a slice."""
        return {"now_ns": self._clock.now_ns(), "last_read": self._last_read, "step_ns": self._step_ns}

    def load(self, state: dict[str, int]) -> None:
        """Go on at a saved time; the host's clock cannot be set, so there only the guest's past changes."""
        if self._virtual is not None:
            self._virtual.set(state["now_ns"])
        self._moved_ns = 0
        self._last_read, self._step_ns = state["last_read"], state["step_ns"]
