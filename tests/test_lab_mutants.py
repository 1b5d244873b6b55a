"""Every deliberately broken copy of our own code is found by exploring, shrunk to a short list, and replayed."""

import json
import os
import subprocess
import sys

import pytest

from tests.lab_mutants import MUTANTS, Mutant

pytestmark = [pytest.mark.guest, pytest.mark.slow]
SHORT = 12
"""Decisions that differ from the plainest run, at most, in a list that has been shrunk."""


def lab(directory, *arguments):
    """Run e2kdisk lab of the copy in a directory."""
    environment = os.environ | {"PYTHONPATH": f"{directory}{os.pathsep}{os.path.dirname(os.path.dirname(__file__))}"}
    command = [sys.executable, "-m", "e2kdisk", "lab", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=directory, timeout=120
    )


def test_there_are_at_least_twenty_and_their_names_differ():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_broken_copy_is_found_shrunk_and_replayed(mutant: Mutant, tmp_path):
    directory = mutant.build(tmp_path)
    rules = ["--rules", mutant.rules] if mutant.rules else []
    found = lab(directory, "explore", mutant.scenario, "--seeds", mutant.seeds, *rules, "-o", "failure.json")
    assert found.returncode == 2, f"not found in {mutant.seeds} seeds: {found.stdout}{found.stderr}"
    assert mutant.finds in found.stdout
    shrunk = lab(directory, "shrink", "failure.json")
    assert shrunk.returncode == 2, shrunk.stdout + shrunk.stderr
    record = json.loads((directory / "failure.json").read_text())
    left = sum(1 for _, _, choice in record["decisions"] if choice)
    replayed = lab(directory, "replay", "failure.json")
    assert replayed.returncode == 2, replayed.stdout + replayed.stderr
    assert record["hash"] in replayed.stdout
    print(f"{mutant.name}: {found.stdout.splitlines()[0]}; {left} decisions left; {record['violations'][0]}")
    assert left <= SHORT
