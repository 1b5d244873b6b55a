"""Power cuts at every place of a run: each write and flush of the file below the format, with several endings each.

A cut run is an ordinary run whose decisions say where the power fails and what was on the disk then, so it is replayed
and shrunk like any other. Guests are functions of what they find: equal contents are brought to life once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from e2kdisk.lab.explore import Found, local_scenario, results_of
from e2kdisk.lab.record import Record
from e2kdisk.lab.rig import Run
from e2kdisk.lab.rules import Rules
from e2kdisk.lab.scenario import Scenario
from e2kdisk.lab.volume import POWER_DECISION

SHARES = 8
"""Tasks of an executor for each seed; a task brings equal contents to life once, so many small ones would do more."""


class CutAt:
    """Latencies and orders of a seed, and the power fails at one place; without a place it never does."""

    def __init__(self, seed: int, place: int | None = None, ending: int = 0) -> None:
        """`place` counts the writes and flushes of the run from 0; `ending` chooses what the cut leaves."""
        self._timing = random.Random(seed)
        self._ending = random.Random(f"{seed} {place} {ending}")
        self._natural_ending = ending == 0
        self._place = place
        self.places = 0
        """Where the power could have failed so far."""
        self._is_cut = False

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick."""
        if name.endswith(POWER_DECISION):
            self._is_cut = self.places == self._place
            self.places += 1
            return int(self._is_cut)
        if self._is_cut:
            return 0 if self._natural_ending else self._ending.randrange(options)
        return 0 if rare else self._timing.randrange(options)


@dataclass(slots=True)
class FoundCuts(Found):
    """What power cuts have shown."""

    places: int = 0
    """Writes and flushes at which the power failed, of all seeds together."""
    contents: set[bytes] = field(default_factory=set)
    """Digests of what was on the disks then."""

    def summary(self) -> str:
        """Found.summary."""
        return f"the power was cut at {self.places} places, which left {len(self.contents)} different contents"

    def add(self, other: Found) -> None:
        """Found.add."""
        Found.add(self, other)
        if isinstance(other, FoundCuts):
            self.places += other.places
            self.contents |= other.contents


def count_places(scenario: Scenario, rules: Rules, seed: int) -> int:
    """How often the power can fail in the run of a seed. Raises AssertionError if that run fails without any cut."""
    source = CutAt(seed)
    run = scenario.run(source, rules)
    assert not run.violations, f"without a power cut: {run.violations[0]}"
    return source.places


def cut_runs(scenario: Scenario, rules: Rules, seed: int, places: Sequence[int], endings: int) -> Iterator[Run]:
    """A run for each place and each ending; the first ending is the natural one: what had completed is there."""
    with scenario.each_content_once():
        for place in places:
            for ending in range(endings):
                yield scenario.run(CutAt(seed, place, ending), rules)


def run_cuts(name: str, rules: Rules, seed: int, share: int, endings: int, stop_after: int) -> FoundCuts:
    """One task: every SHARES-th place of a seed."""
    scenario, found = local_scenario(name), FoundCuts()
    places = range(share, count_places(scenario, rules, seed), SHARES)
    found.places = len(places)
    for run in cut_runs(scenario, rules, seed, places, endings):
        found.runs += 1
        found.cuts += run.cut
        found.decisions += len(run.decisions)
        found.hashes.add(run.hash)
        found.contents.add(run.left)
        if run.failed:
            found.failures.append(Record(name, rules, run.decisions, run.hash, run.violations, seed))
            if len(found.failures) == stop_after:
                break
    return found


def explore_cuts(
    name: str,
    rules: Rules,
    seeds: Sequence[int],
    endings: int = 4,
    executor: Executor | None = None,
    *,
    tell: Callable[[Found], None] = lambda found: None,
    stop_after: int = 1,
) -> FoundCuts:
    """Cut the power at every place of the run of each seed, `endings` times each."""
    tasks = [(run_cuts, (name, rules, seed, share, endings, stop_after)) for seed in seeds for share in range(SHARES)]
    total = FoundCuts()
    for part in results_of(executor, tasks):
        total.add(part)
        tell(total)
        if len(total.failures) >= stop_after:
            break
    return total
