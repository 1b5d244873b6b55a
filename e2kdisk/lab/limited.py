"""LimitedMachine: a machine for tests, where a guest that hangs ends the test and not the day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.errors import E2kDiskError, UsageError
from e2kdisk.machine.machine import Machine, StopReason
from e2kdisk.machine.state import MachineState


class InstructionLimit(E2kDiskError):
    """The guest has run for longer than the test allows."""


class LimitedMachine(Machine):
    """A Machine whose runs together take a limited number of instructions, counted anew after load()."""

    def __init__(
        self, *arguments: Any, most_instructions: int | None = None, runs: bool = True, **options: Any
    ) -> None:
        """Arguments are Machine's; None is no limit. runs: the CPU may run at all."""
        self.most_instructions = most_instructions
        self.runs = runs
        self._began = 0
        super().__init__(*arguments, **options)

    def run(
        self,
        max_instructions: int | None = None,
        until: Callable[[], bool] | None = None,
        *,
        stop_on_reset: bool = False,
    ) -> StopReason:
        """Machine.run. Raises InstructionLimit, and UsageError if it is not to run at all."""
        if not self.runs:
            raise UsageError("this test is marked e2k_bus: it takes the place of the CPU, so no CPU runs in it")
        if self.most_instructions is None:
            return super().run(max_instructions, until, stop_on_reset=stop_on_reset)
        left = self.most_instructions - (self.instructions - self._began)
        if max_instructions is not None and max_instructions <= left:
            return super().run(max_instructions, until, stop_on_reset=stop_on_reset)
        stop = super().run(max(left, 0), until, stop_on_reset=stop_on_reset)
        if stop is StopReason.LIMIT:
            raise InstructionLimit(
                f"the guest has run for {self.most_instructions} instructions, which is the limit (--e2k-max-insns)"
            )
        return stop

    def load(self, state: MachineState) -> None:
        """Machine.load."""
        super().load(state)
        self._began = self.instructions
