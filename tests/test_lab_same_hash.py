"""A seed is a run wherever it is made: here, in other processes, in workers of xdist, on a busy host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.rules import RULES
from e2kdisk.lab.scenario import find_scenario

pytestmark = [pytest.mark.guest, pytest.mark.slow]
ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ("guest-arm64", "guest-riscv64", "elbrus-ide-dma")
SEEDS = (1, 2, 3)
RULE_NAMES = ("timing", "order")

RUNS = f"""
import os, pytest
from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.rules import RULES
from e2kdisk.lab.scenario import find_scenario

@pytest.mark.parametrize("seed", {SEEDS})
@pytest.mark.parametrize("rules", {RULE_NAMES})
@pytest.mark.parametrize("name", {SCENARIOS})
def test_run(name, rules, seed, tmp_path):
    scenario = find_scenario(name)(tmp_path)
    made = scenario.run(Seeded(seed), RULES[rules])
    scenario.close()
    with open(os.environ["HASHES"], "a") as file:
        file.write(f"{{name}} {{rules}} {{seed}} {{made.hash}} {{os.getpid()}}\\n")
"""


@pytest.fixture(scope="module")
def hashes(tmp_path_factory):
    """Of the runs in this process, each made twice: by name, rules and seed."""
    found = {}
    for name in SCENARIOS:
        scenario = find_scenario(name)(tmp_path_factory.mktemp("lab"))
        for rules in RULE_NAMES:
            for seed in SEEDS:
                found[name, rules, str(seed)] = scenario.run(Seeded(seed), RULES[rules]).hash
                assert scenario.run(Seeded(seed), RULES[rules]).hash == found[name, rules, str(seed)]
        scenario.close()
    return found


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def busy_processes(count):
    """Processes that do nothing but take time."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]


@pytest.mark.parametrize(("workers", "busy"), [(0, 0), (2, 0), (2, 2)], ids=["alone", "xdist", "xdist under load"])
def test_pytest_makes_the_same_runs_however_it_spreads_them(hashes, tmp_path, workers, busy):
    (tmp_path / "test_it.py").write_text(RUNS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers), "test_it.py"]
    others = busy_processes(busy)
    try:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(HASHES=str(tmp_path / "hashes"), PYTHONHASHSEED=str(workers + busy)),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in (tmp_path / "hashes").read_text().splitlines()]
    assert {tuple(line[:3]): line[3] for line in lines} == hashes
    processes = {line[4] for line in lines}
    print(f"{len(lines)} runs in {len(processes)} processes beside {busy} busy ones: the hashes of this process")
    assert len(processes) == max(1, workers)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_command_line_makes_the_same_run_in_processes_of_different_hash_seeds(hashes, name, tmp_path):
    for number in ("0", "12345"):
        command = [sys.executable, "-m", "e2kdisk", "lab", "run", name, "--seed", "2", "--rules", "timing"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=environment(PYTHONHASHSEED=number),
            timeout=100,
        )
        assert re.search(r"hash (\w+)", done.stdout)[1] == hashes[name, "timing", "2"]
