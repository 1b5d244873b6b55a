"""Runs of the laboratory are functions of their decisions, find what is broken, and become short."""

import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.devices.virtio import blk_commands
from e2kdisk.lab.decisions import Replay, Seeded
from e2kdisk.lab.explore import Found, explore_seeds
from e2kdisk.lab.record import Record
from e2kdisk.lab.rules import FAULTS, ORDER, POWER, RULES, TIMING
from e2kdisk.lab.scenario import BUILT_IN, find_scenario
from e2kdisk.lab.shrink import shrink, unnatural
from e2kdisk.lab.volume import VolumeNode

pytestmark = pytest.mark.guest
SLOW = ("elbrus-ide-pio", "elbrus-virtio")
SCENARIOS = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BUILT_IN]


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request, tmp_path_factory):
    scenario = find_scenario(request.param)(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_seed_gives_the_same_run_again_and_another_seed_another_run(scenario, rules):
    first = scenario.run(Seeded(3), rules)
    again = scenario.run(Seeded(3), rules)
    assert (first.hash, first.decisions, first.violations) == (again.hash, again.decisions, [])
    if first.decisions:  # a controller with one request at a time leaves no order to choose
        assert scenario.run(Seeded(4), rules).hash != first.hash


def test_a_run_replays_from_its_decisions_in_a_fresh_machine(scenario, tmp_path):
    run = scenario.run(Seeded(11), TIMING)
    other = type(scenario)(tmp_path)
    try:
        assert other.run(Replay(run.decisions), TIMING).hash == run.hash
    finally:
        other.close()


@pytest.mark.parametrize("name", SCENARIOS)
def test_another_process_makes_the_same_run_from_a_file(name, tmp_path):
    scenario = find_scenario(name)(tmp_path)
    run = scenario.run(Seeded(5), TIMING)
    scenario.close()
    Record(name, TIMING, run.decisions, run.hash, run.violations, 5).save(tmp_path / "run.json")
    command = [sys.executable, "-m", "e2kdisk", "lab", "replay", str(tmp_path / "run.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"hash {run.hash}" in done.stdout


@pytest.mark.parametrize("rules", [TIMING, FAULTS, ORDER, POWER], ids=["timing", "faults", "order", "power"])
def test_the_code_as_it_is_keeps_its_contracts(scenario, rules):
    keeps_its_contracts(scenario, rules, range(12 if rules.power_cut else 4))


@pytest.mark.slow
@pytest.mark.parametrize("rules", [TIMING, FAULTS, ORDER, POWER], ids=["timing", "faults", "order", "power"])
def test_more_seeds_of_the_code_as_it_is_keep_its_contracts(scenario, rules):
    keeps_its_contracts(scenario, rules, range(12, 30))


def keeps_its_contracts(scenario, rules, seeds):
    found = Found()
    for seed in seeds:
        run = scenario.run(Seeded(seed), rules)
        found.cuts += run.cut
        assert run.violations == []
    assert found.cuts > 0 or not rules.power_cut


async def early_flush(device, request):
    return 0  # VIRTIO_BLK_S_OK, and nothing is durable


@pytest.mark.parametrize("scenario", ["guest-arm64", "guest-riscv64"], indirect=True)
def test_a_flush_that_returns_early_is_found_shrunk_and_replayed(scenario, monkeypatch):
    table = dict(scenario.rig.machine.board.controllers[0].device.commands)
    number = next(number for number, command in table.items() if command.name == "FLUSH")
    broken = {**table, number: _with_run(table[number], early_flush)}
    monkeypatch.setattr(scenario.rig.machine.board.controllers[0].device, "commands", broken)
    failing = next(run for seed in range(30) if (run := scenario.run(Seeded(seed), TIMING)).failed)
    assert any("FlushIsDurable" in violation for violation in failing.violations)
    short = shrink(scenario, TIMING, failing)
    assert len(unnatural(short.decisions)) == 0  # it is wrong in the plainest run
    replayed = scenario.run(Replay(short.decisions), TIMING)
    assert (replayed.hash, replayed.violations) == (short.hash, short.violations)


def _with_run(command, run):
    from dataclasses import replace

    return replace(command, run=run)


@pytest.mark.parametrize("scenario", ["guest-arm64", "guest-riscv64"], indirect=True)
def test_a_file_that_loses_what_was_flushed_is_found_after_the_cut(scenario, monkeypatch):
    flush = VolumeNode.flush

    async def forget(self):
        durable = self.durable.copy()
        await flush(self)
        self.durable = durable

    monkeypatch.setattr(VolumeNode, "flush", forget)
    lost = "neither what was flushed nor anything newer"
    runs = (scenario.run(Seeded(seed), POWER) for seed in range(40))
    found = next(run for run in runs if any(lost in violation for violation in run.violations))
    assert found.cut


@pytest.mark.slow
def test_exploring_in_processes_finds_what_exploring_here_finds():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        there = explore_seeds("guest-arm64", POWER, range(20, 50), executor)
    here = explore_seeds("guest-arm64", POWER, range(20, 50))
    assert (there.runs, there.cuts, there.hashes, there.failures) == (here.runs, here.cuts, here.hashes, [])
    assert here.cuts > 0


def test_commands_of_the_table_are_what_the_laboratory_thinks_they_are():
    assert {"FLUSH", "IN", "OUT"} <= {command.name for command in blk_commands.COMMANDS.values()}
