"""Shrinking: the shortest list of decisions that still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from e2kdisk.lab.decisions import Decision, Replay
from e2kdisk.lab.rig import Run
from e2kdisk.lab.rules import Rules
from e2kdisk.lab.scenario import Scenario

MOST_RUNS = 150


def kind_of(violation: str) -> str:
    """The class of a violation: what stands before its details."""
    return violation.partition(":")[0]


def shrink(
    scenario: Scenario, rules: Rules, failing: Run, tell: Callable[[int, int], None] = lambda runs, left: None
) -> Run:
    """Make runs with fewer and more natural decisions as long as they fail like `failing`; the last that did.

    First the tail goes, by halves; then what is left is made natural in ever smaller groups. tell() gets the number
    of runs so far and of unnatural decisions left.
    """
    wanted = {kind_of(violation) for violation in failing.violations}
    best, runs = failing, 0

    def attempt(decisions: Sequence[Decision]) -> bool:
        nonlocal best, runs
        runs += 1
        run = scenario.run(Replay(decisions, strict=False), rules)
        if not wanted & {kind_of(violation) for violation in run.violations}:
            return False
        best = run
        tell(runs, len(unnatural(run.decisions)))
        return True

    low, high = 0, len(failing.decisions)
    while low < high and runs < MOST_RUNS:
        middle = (low + high) // 2
        if attempt(failing.decisions[:middle]):
            high = middle
        else:
            low = middle + 1
    size = max(1, len(unnatural(best.decisions)) // 2)
    while runs < MOST_RUNS:
        chosen = unnatural(best.decisions)
        for first in range(0, len(chosen), size):
            group = set(chosen[first : first + size])
            trial = [d._replace(choice=0) if at in group else d for at, d in enumerate(best.decisions)]
            if attempt(trial) or runs >= MOST_RUNS:
                break  # positions have changed
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return best


def unnatural(decisions: Sequence[Decision]) -> list[int]:
    """Positions of the decisions that make a run differ from the plainest one."""
    return [at for at, decision in enumerate(decisions) if decision.choice]
