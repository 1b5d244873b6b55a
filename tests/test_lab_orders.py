"""Every order of completion of the requests that each controller can have in flight at once."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from e2kdisk.devices.ata.transfer import STEPS
from e2kdisk.errors import UsageError
from e2kdisk.lab.decisions import Replay, every_run
from e2kdisk.lab.explore import explore_orders, local_scenario
from e2kdisk.lab.pruning import explore_states
from e2kdisk.lab.rules import ORDER
from tests.lab_orders import EVERY_CONTROLLER, IdeLonger, IdeOrders, MmioModern, PciMessages, TwoControllers

pytestmark = pytest.mark.guest
LAB = Path(__file__).with_name("lab_orders.py")
LEAST = {"IdeOrders": 38, "IdePio": 20, "PlatformOrders": 4, "TwoControllers": 38}
"""Orders that there are at least: a channel has one command at a time, a ring has four requests."""


FAST = (MmioModern, TwoControllers, PciMessages, IdeOrders)


@pytest.fixture(
    params=[pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in EVERY_CONTROLLER],
    ids=lambda scenario: scenario.__name__,
)
def scenario(request, tmp_path):
    scenario = request.param(tmp_path)
    yield scenario
    scenario.close()


def test_every_order_of_completion_gives_each_request_its_own_answer(scenario):
    hashes = []

    def run(source):
        made = scenario.run(source, ORDER)
        assert made.violations == []
        hashes.append(made.hash)
        return made.decisions

    runs = list(every_run(run))
    print(f"{type(scenario).__name__}: {len(runs)} orders of {len(scenario.MIXES)} mixes of requests, all of them")
    assert len(set(hashes)) == len(runs) >= LEAST.get(type(scenario).__name__, 64)


@pytest.mark.parametrize("kind", [IdeOrders, TwoControllers], ids=lambda kind: kind.__name__)
def test_events_name_the_drive_that_they_are_about(kind, tmp_path):
    scenario, seen = kind(tmp_path), {}
    scenario.rig.run(scenario.act, rules=ORDER, listeners=[lambda event: seen.setdefault(drive_of(scenario, event))])
    scenario.close()
    assert {name for name in seen if name} == {f"disk{number}" for number in range(kind.DISKS)}


def drive_of(scenario, event):
    drive = scenario.rig.drive_of(event) if event.kind == "submit" else None
    return drive and drive.name


def outcome(scenario, run):
    """What is left of a run: the disks, and what was found wrong."""
    return tuple(drive.volume.content.digest() for drive in scenario.rig.drives), tuple(run.violations)


@pytest.mark.parametrize(
    "kind", [IdeLonger, pytest.param(MmioModern, marks=pytest.mark.slow)], ids=lambda kind: kind.__name__
)
def test_pruning_leaves_out_runs_and_no_outcome(kind, tmp_path, monkeypatch):
    name = f"{LAB}:{kind.__name__}"
    scenario, outcomes = local_scenario(name), ([], [])
    run = scenario.run

    def watched(into):
        def watched(*arguments, **options):
            made = run(*arguments, **options)
            if not made.known:
                into.append(outcome(scenario, made))
            return made

        return watched

    monkeypatch.setattr(scenario, "run", watched(outcomes[0]))
    every = explore_orders(name, ORDER)
    monkeypatch.setattr(scenario, "run", watched(outcomes[1]))
    pruned = explore_states(name, ORDER)
    states = len(pruned.search.states)
    print(f"{kind.__name__}: {states} states stand for {pruned.search.orders} orders, {pruned.runs} runs")
    assert pruned.complete
    assert pruned.search.orders == every.runs
    assert pruned.runs < every.runs or kind is MmioModern  # its used ring keeps the order, so no two states are one
    assert set(outcomes[1]) == set(outcomes[0])


def test_pruning_needs_a_scenario_that_says_what_it_holds():
    name = f"{Path(__file__).with_name('lab_scenarios.py')}:FourInFlight"
    with pytest.raises(UsageError, match=r"FourInFlight does not say what its own state is"):
        explore_states(name, ORDER)


def test_pruning_finds_what_is_broken(monkeypatch):
    async def nothing(drive):
        return 0

    name = f"{LAB}:IdeLonger"
    monkeypatch.setitem(STEPS, "read_dma", replace(STEPS["read_dma"], run=nothing))
    found = explore_states(name, ORDER)
    assert "ended a read of 4096 bytes with 0 of them in memory" in found.failures[0].violations[0]
    again = local_scenario(name).run(Replay(found.failures[0].decisions), ORDER)
    assert (again.hash, again.violations) == (found.failures[0].hash, found.failures[0].violations)


@pytest.mark.slow
def test_the_command_prunes_and_says_how_many_states_there_are():
    command = [sys.executable, "-m", "e2kdisk", "lab", "explore", f"{LAB}:IdeLonger", "--orders", "--prune"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=LAB.parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"\d+ states stand for 25 runs, every order there is", done.stdout)
