"""e2kdisk lab: run, replay, shrink and explore scenarios of the laboratory."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from e2kdisk.errors import UsageError
from e2kdisk.tools.arguments import Parser, count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.lab.events import Listener
    from e2kdisk.lab.explore import Found
    from e2kdisk.lab.record import Record
    from e2kdisk.lab.rig import Run
    from e2kdisk.lab.rules import Rules

HELP = """\
Run a guest, a disk controller and an image format together, where every order,
latency, error and power cut is decided by a seed. What fails can be replayed
and made short.

examples:
  $ e2kdisk lab list
  $ e2kdisk lab run guest-arm64 --seed 7
  $ e2kdisk lab explore guest-arm64 --rules power --seeds 1000 --jobs 2
  $ e2kdisk lab shrink failure.json && e2kdisk lab replay failure.json
  $ e2kdisk lab explore guest-arm64 --cuts 4 --seeds 10
  $ e2kdisk lab replay failure.json --report failure.html --timeline trace.json
  $ e2kdisk lab explore my_scenario.py:Mine --orders
"""

STATUS_HELP = """\
exit status:
  0  nothing was found
  1  it cannot be run, and one line says why
  2  a contract was broken: the report says which, and the file has the run
"""
BROKEN = 2
BAR_WIDTH = 30
REPORTS = {
    "run": "write a page about it to FILE.html",
    "replay": "write a page about it to FILE.html",
    "shrink": "write a page about the short run to FILE.html",
    "explore": "write a page about the first failure to FILE.html",
}


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("lab", HELP, STATUS_HELP)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_ActionParser)
    actions.add_parser("list", help="the scenarios that come with e2kdisk, and the rules")
    run = actions.add_parser("run", help="one run")
    explore = actions.add_parser("explore", help="many runs")
    for action in (run, explore):
        action.add_argument("scenario", metavar="SCENARIO", help="a name of `lab list`, or FILE.py:CLASS")
        action.add_argument("--rules", metavar="NAME", help="what is decided; the scenario's own if left out")
        action.add_argument("-o", "--output", metavar="FILE", default="failure.json", help="for a run that fails")
    run.add_argument("--seed", type=int, default=0, help="of the run (default 0)")
    run.add_argument("--record", action="store_true", help="write the run to the file even if it does not fail")
    explore.add_argument("--seeds", type=count("--seeds"), metavar="N", help="how many (default 200; 2 with --cuts)")
    explore.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default 0)")
    explore.add_argument("--orders", action="store_true", help="every possible run instead of seeds")
    explore.add_argument("--prune", action="store_true", help="with --orders: follow each state once")
    explore.add_argument(
        "--cuts", type=count("--cuts"), metavar="N", help="cut the power at every write and flush, N endings each"
    )
    explore.add_argument("--jobs", type=count("--jobs"), default=1, metavar="N", help="processes (default 1)")
    replay = actions.add_parser("replay", help="make a recorded run again")
    shrink = actions.add_parser("shrink", help="find the shortest run that still fails")
    for action in (replay, shrink):
        action.add_argument("file", metavar="FILE")
    for action in (run, replay):
        action.add_argument("--timeline", metavar="FILE", help="write its events: .txt, .jsonl or .json (Perfetto)")
        action.add_argument("--timeline-format", choices=("text", "jsonl", "perfetto"), help="instead of by the name")
    for action in (run, replay, shrink, explore):
        action.add_argument("--report", metavar="FILE", help=REPORTS[action.prog.rpartition(" ")[2]])
    return parser


class _ActionParser(Parser):
    """The Parser of one action; argparse gives the whole name of the program."""

    def __init__(self, prog: str, **_: object) -> None:
        super().__init__(prog.removeprefix("e2kdisk "), "")


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    return ACTIONS[given.action](given)


def _list(given: argparse.Namespace) -> int:
    from e2kdisk.lab.rules import RULES
    from e2kdisk.lab.scenario import BUILT_IN, find_scenario

    for name in BUILT_IN:
        print(f"{name:20} {find_scenario(name).DESCRIPTION}")
    print(f"\nrules: {', '.join(RULES)}")
    return 0


def _rules(given: argparse.Namespace) -> Rules:
    from e2kdisk.lab.rules import RULES
    from e2kdisk.lab.scenario import find_scenario
    from e2kdisk.tools.hints import unknown_name

    if given.rules is None:
        if getattr(given, "cuts", None):
            return RULES["power"]
        return RULES["order"] if getattr(given, "orders", False) else find_scenario(given.scenario).RULES
    if given.rules not in RULES:
        raise unknown_name("rules", given.rules, RULES)
    return RULES[given.rules]


def _run(given: argparse.Namespace) -> int:
    from e2kdisk.lab.decisions import Seeded
    from e2kdisk.lab.explore import local_scenario
    from e2kdisk.lab.record import Record

    rules = _rules(given)
    with _timeline(given) as listeners:
        run = local_scenario(given.scenario).run(Seeded(given.seed), rules, listeners=listeners)
    _report(run)
    record = Record(given.scenario, rules, run.decisions, run.hash, run.violations, given.seed)
    if run.failed or given.record:
        record.save(given.output)
        print(f"the run is in {given.output}: e2kdisk lab replay {given.output}")
        command = ["replay", given.output]
    else:
        command = ["run", given.scenario, f"--seed={given.seed}"] + ([f"--rules={given.rules}"] if given.rules else [])
    _write_report(given, record, command)
    return BROKEN if run.failed else 0


def _replay(given: argparse.Namespace) -> int:
    from e2kdisk.lab.decisions import Replay
    from e2kdisk.lab.explore import local_scenario
    from e2kdisk.lab.record import Record

    record = Record.load(given.file)
    with _timeline(given) as listeners:
        run = local_scenario(record.scenario).run(Replay(record.decisions), record.rules, listeners=listeners)
    _report(run)
    record.violations = run.violations
    _write_report(given, record, ["replay", given.file])
    if run.hash != record.hash:
        raise UsageError(
            f"{given.file}: the run is not the recorded one (hash {run.hash} instead of {record.hash}): "
            "something has changed since"
        )
    return BROKEN if run.failed else 0


def _shrink(given: argparse.Namespace) -> int:
    from e2kdisk.lab.decisions import Replay
    from e2kdisk.lab.explore import local_scenario
    from e2kdisk.lab.record import Record
    from e2kdisk.lab.shrink import shrink, unnatural

    record = Record.load(given.file)
    scenario = local_scenario(record.scenario)
    run = scenario.run(Replay(record.decisions), record.rules)
    if not run.failed:
        raise UsageError(f"{given.file}: the run does not fail, so there is nothing to shrink")
    before = len(unnatural(run.decisions))
    line = _Line()
    best = shrink(scenario, record.rules, run, lambda runs, left: line.show(f"{runs} runs, {left} decisions left"))
    line.end()
    short = Record(record.scenario, record.rules, best.decisions, best.hash, best.violations, record.seed)
    short.save(given.file)
    _report(best)
    _write_report(given, short, ["replay", given.file])
    print(f"{before} decisions became {len(unnatural(best.decisions))}; the shorter run is in {given.file}")
    return BROKEN


def _explore(given: argparse.Namespace) -> int:
    from concurrent.futures import ProcessPoolExecutor

    from e2kdisk.lab.explore import explore_orders, explore_seeds
    from e2kdisk.lab.power_cuts import explore_cuts
    from e2kdisk.lab.pruning import explore_states

    rules = _rules(given)
    began, line = time.perf_counter(), _Line()

    def tell(found: Found) -> None:
        rate = found.runs / (time.perf_counter() - began)
        part = None if given.orders or given.cuts else found.runs / len(seeds)  # of the others nobody knows the end
        line.show(f"{found.runs} runs, {rate:.0f} a second, {len(found.failures)} failures", part)

    found: Found
    seeds = range(given.first, given.first + (given.seeds or (2 if given.cuts else 200)))
    executor = ProcessPoolExecutor(given.jobs) if given.jobs > 1 else None
    try:
        if given.orders and given.prune:
            found = explore_states(given.scenario, rules, tell=tell)
        elif given.orders:
            found = explore_orders(given.scenario, rules, executor, tell=tell)
        elif given.cuts:
            found = explore_cuts(given.scenario, rules, seeds, given.cuts, executor, tell=tell)
        else:
            found = explore_seeds(given.scenario, rules, seeds, executor, tell=tell)
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)
    line.end()
    seconds = time.perf_counter() - began
    kinds = f"{len(found.hashes)} different" + (", every order there is" if found.complete else "")
    print(
        f"{found.runs} runs ({kinds}) in {seconds:.1f} s: {found.runs / seconds:.1f} a second, {found.cuts} power cuts"
    )
    if found.summary():
        print(found.summary())
    if not found.failures:
        return 0
    status = _report_failure(found.failures[0], given.output)
    _write_report(given, found.failures[0], ["replay", given.output])
    return status


def _report_failure(record: Record, output: str) -> int:
    record.save(output)
    for violation in record.violations:
        print(f"broken: {violation}")
    seed = "" if record.seed is None else f" (seed {record.seed})"
    print(f"the run{seed} is in {output}: e2kdisk lab shrink {output}")
    return BROKEN


@contextmanager
def _timeline(given: argparse.Namespace) -> Iterator[list[Listener]]:
    """The listeners of a run that write its timeline, if one is asked for."""
    if given.timeline is None:
        if given.timeline_format is not None:
            raise UsageError("--timeline-format says how to write the file of --timeline, which is missing")
        yield []
        return
    from e2kdisk.lab.timeline import format_of, make_timeline

    format = given.timeline_format or format_of(given.timeline)
    with open(given.timeline, "w", encoding="utf-8") as file:
        timeline = make_timeline(file, format)
        try:
            yield [timeline.event]
        finally:
            timeline.finish()
    print(f"the timeline is in {given.timeline}")


def _write_report(given: argparse.Namespace, record: Record, command: list[str]) -> None:
    """Write the page about a run, if one is asked for; command makes the run again."""
    if given.report is None:
        return
    from e2kdisk.lab.explore import local_scenario
    from e2kdisk.lab.report.write import write_report

    write_report(given.report, local_scenario(record.scenario), record, shlex.join(["e2kdisk", "lab", *command]))
    print(f"the report is in {given.report}")


def _report(run: Run) -> None:
    from e2kdisk.lab.shrink import unnatural

    print(f"{run.events} events, hash {run.hash}{', ended by a power cut' if run.cut else ''}")
    chosen = unnatural(run.decisions)
    print(f"{len(run.decisions)} decisions, {len(chosen)} of them not the natural ones")
    for at in chosen[:20]:
        print(f"  {at:4} {run.decisions[at]}")
    if len(chosen) > 20:
        print(f"  ... and {len(chosen) - 20} more")
    for violation in run.violations:
        print(f"broken: {violation}")


class _Line:
    """One line on the terminal that is written over; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, text: str, part: float | None = None) -> None:
        """Draw the line anew, with a bar where it is known how much of the whole is done."""
        if self._shown:
            bar = "" if part is None else f"[{'#' * round(part * BAR_WIDTH):-<{BAR_WIDTH}}] {part:4.0%}  "
            print(f"\r\x1b[K{bar}{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


ACTIONS = {"list": _list, "run": _run, "replay": _replay, "shrink": _shrink, "explore": _explore}
