"""Schedule: the decisions of one test, from a seed or from a file, and what is said when its run fails."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from e2kdisk.errors import UsageError
from e2kdisk.lab.decisions import Decisions, Replay, Seeded, Source
from e2kdisk.lab.record import Record
from e2kdisk.lab.rig import Run
from e2kdisk.lab.rules import RULES, Rules
from e2kdisk.lab.scenario import Scenario
from e2kdisk.lab.shrink import shrink, unnatural

SHOWN_DECISIONS = 20


class Scenarios:
    """The scenarios of this process: building one may mean booting a firmware, so it is made once."""

    def __init__(self, make_directory: Callable[[str], Path]) -> None:
        self._make_directory = make_directory
        self._made: dict[type[Scenario], Scenario] = {}

    def of(self, kind: type[Scenario]) -> Scenario:
        """The one of a class."""
        if kind not in self._made:
            self._made[kind] = kind(self._make_directory("e2k-scenario"))
        return self._made[kind]

    def close(self) -> None:
        """Free all."""
        for scenario in self._made.values():
            scenario.close()


def rules_of(rules: str | Rules) -> Rules:
    """Rules by their name on the command line. Raises UsageError."""
    if isinstance(rules, Rules):
        return rules
    if rules not in RULES:
        raise UsageError(f"unknown rules {rules!r}; known are {', '.join(RULES)}")
    return RULES[rules]


def name_of(kind: type[Scenario]) -> str:
    """What `e2kdisk lab` finds the scenario by."""
    return f"{inspect.getfile(kind)}:{kind.__qualname__}"


@dataclass(frozen=True, slots=True)
class Manner:
    """How the schedules of a test run are made."""

    rules: Rules
    seed: int
    record: Record | None = None
    """A run to make again instead."""
    shrinks: bool = False
    """Make a failing run short before it is reported."""
    most_instructions: int | None = None
    """Of one run; then its guest hangs."""


class Schedule:
    """What is decided in one test."""

    def __init__(self, scenarios: Scenarios, manner: Manner, directory: Path, rerun: Callable[[str], str]) -> None:
        """rerun(file) is the command that makes this test alone run with a recorded run."""
        self.rules = manner.rules if manner.record is None else manner.record.rules
        self.seed = manner.seed
        self.runs: list[Run] = []
        """Made so far."""
        self._scenarios = scenarios
        self._manner = manner
        self._directory = directory
        self._rerun = rerun
        self._numbers = count()
        self._decisions = Decisions(Seeded(self.seed))

    def choose(self, name: str, options: int) -> int:
        """A decision of the test's own: a number from 0 to options - 1, the same with the same seed."""
        return self._decisions.choose(name, options)

    def run(self, kind: type[Scenario]) -> Run:
        """Make one run of a scenario with the next decisions; raises AssertionError when a contract was broken."""
        __tracebackhide__ = True
        scenario, seed = self._scenarios.of(kind), self.seed + next(self._numbers)
        scenario.rig.machine.most_instructions = self._manner.most_instructions
        record = self._manner.record
        run = scenario.run(self._source(record, seed, name_of(kind)), self.rules)
        self.runs.append(run)
        if run.failed:
            if self._manner.shrinks:
                run = shrink(scenario, self.rules, run)
            raise AssertionError(
                self._report(scenario, run, Record(name_of(kind), self.rules, run.decisions, run.hash, [], seed))
            )
        return run

    def _source(self, record: Record | None, seed: int, name: str) -> Source:
        if record is None:
            return Seeded(seed)
        if record.scenario != name:
            raise UsageError(f"--e2k-replay: the recorded run is of {record.scenario}, this test runs {name}")
        # Not strict: a run that failed is kept as a test, and the code has been changed so that it no longer does.
        return Replay(record.decisions, strict=False)

    def _write_page(self, scenario: Scenario, record: Record, page: Path, command: str) -> list[str]:
        """The page about a failed run; that it cannot be made must not hide the failure."""
        from e2kdisk.lab.report.write import write_report

        try:
            write_report(page, scenario, record, command)
        except Exception as error:  # the code that is tested here is broken: anything may come out of it
            return [f"report: cannot be made ({type(error).__name__}: {error})"]
        return [f"report: {page}"]

    def _report(self, scenario: Scenario, run: Run, record: Record) -> str:
        record.violations = list(run.violations)
        file = self._directory / f"failure-{len(self.runs)}.json"
        record.save(file)
        chosen = unnatural(run.decisions)
        lines = [*run.violations, f"{len(run.decisions)} decisions, {len(chosen)} of them not the natural ones:"]
        lines += [f"  {at:4} {run.decisions[at]}" for at in chosen[:SHOWN_DECISIONS]]
        if len(chosen) > SHOWN_DECISIONS:
            lines.append(f"  ... and {len(chosen) - SHOWN_DECISIONS} more")
        lines += self._write_page(scenario, record, file.with_suffix(".html"), self._rerun(str(file)))
        lines.append(f"replay: {self._rerun(str(file))}")
        lines.append(f"shrink: e2kdisk lab shrink {shlex.quote(str(file))}")
        return "\n".join(lines)
