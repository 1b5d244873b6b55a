"""Exploring: many runs of one scenario, by seeds or in every order, in this process or in many.

Work goes to any concurrent.futures Executor as (scenario name, rules, what to run), so other machines can take it.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from dataclasses import dataclass, field
from pathlib import Path

from e2kdisk.lab.decisions import Decision, Seeded, Source, every_run
from e2kdisk.lab.record import Record
from e2kdisk.lab.rules import Rules
from e2kdisk.lab.scenario import Scenario, find_scenario

BATCH = 16
"""Seeds that one task of an executor runs."""


@dataclass(slots=True)
class Found:
    """What a number of runs have shown."""

    runs: int = 0
    cuts: int = 0
    """Runs that ended with a power cut."""
    decisions: int = 0
    hashes: set[str] = field(default_factory=set)
    """Of different runs."""
    failures: list[Record] = field(default_factory=list)
    complete: bool = False
    """Every possible run was made."""

    def summary(self) -> str:
        """What there is to say besides runs; "" for nothing."""
        return ""

    def add(self, other: Found) -> None:
        """Count other runs in."""
        self.runs += other.runs
        self.cuts += other.cuts
        self.decisions += other.decisions
        self.hashes |= other.hashes
        self.failures += other.failures


_scenarios: dict[str, Scenario] = {}


def local_scenario(name: str) -> Scenario:
    """The scenario of this process: building one may mean booting a firmware, so it is made once."""
    if name not in _scenarios:
        directory = tempfile.TemporaryDirectory(prefix="e2kdisk-lab-")
        atexit.register(directory.cleanup)
        _scenarios[name] = find_scenario(name)(Path(directory.name))
    return _scenarios[name]


def run_seeds(name: str, rules: Rules, seeds: Sequence[int], stop_after: int = 1) -> Found:
    """One task: a run for each seed, until so many fail."""
    scenario, found = local_scenario(name), Found()
    for seed in seeds:
        if len(found.failures) == stop_after:
            break
        _count(found, name, rules, scenario, Seeded(seed), seed)
    return found


def run_orders(name: str, rules: Rules, begin: Sequence[Decision], most: int) -> Found:
    """One task: every run that begins with these decisions, at most so many."""
    scenario, found = local_scenario(name), Found()
    runs = every_run(lambda source: _count(found, name, rules, scenario, source, None), begin)
    for _ in runs:
        if found.runs == most:
            return found
    found.complete = True
    return found


def _count(
    found: Found, name: str, rules: Rules, scenario: Scenario, source: Source, seed: int | None
) -> Sequence[Decision]:
    run = scenario.run(source, rules)
    found.runs += 1
    found.cuts += run.cut
    found.decisions += len(run.decisions)
    found.hashes.add(run.hash)
    if run.failed:
        found.failures.append(Record(name, rules, run.decisions, run.hash, run.violations, seed))
    return run.decisions


def explore_seeds(
    name: str,
    rules: Rules,
    seeds: Sequence[int],
    executor: Executor | None = None,
    *,
    tell: Callable[[Found], None] = lambda found: None,
    stop_after: int = 1,
) -> Found:
    """Run many seeds, until so many failures are found; `tell` hears of each batch."""
    batches = [seeds[first : first + BATCH] for first in range(0, len(seeds), BATCH)]
    total = Found()
    for part in results_of(executor, [(run_seeds, (name, rules, batch, stop_after)) for batch in batches]):
        total.add(part)
        tell(total)
        if len(total.failures) >= stop_after:
            break
    total.failures.sort(key=lambda record: record.seed or 0)
    return total


def explore_orders(
    name: str,
    rules: Rules,
    executor: Executor | None = None,
    *,
    most: int = 1_000_000,
    tell: Callable[[Found], None] = lambda found: None,
) -> Found:
    """Make every run there is, at most so many for each option of the first decision; Found.complete says if all."""
    first = local_scenario(name).run(Seeded(0), rules).decisions[:1]
    begins = [[first[0]._replace(choice=choice)] for choice in range(first[0].options)] if first else [[]]
    total, complete = Found(), True
    for part in results_of(executor, [(run_orders, (name, rules, begin, most)) for begin in begins]):
        total.add(part)
        complete &= part.complete
        tell(total)
    total.complete = complete
    return total


def results_of(
    executor: Executor | None, tasks: Sequence[tuple[Callable[..., Found], tuple[object, ...]]]
) -> Iterator[Found]:
    """What tasks have found, as they end: one after the other here without an executor."""
    if executor is None:
        for function, arguments in tasks:
            yield function(*arguments)
        return
    waiting = {executor.submit(function, *arguments) for function, arguments in tasks}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()
