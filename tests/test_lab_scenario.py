"""Scenarios are found by name, and what is none is refused in one line."""

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.lab.scenario import BUILT_IN, Scenario, find_scenario
from e2kdisk.tools.main import main

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from e2kdisk.lab.scenario import Scenario

@dataclass
class Plan:
    name: str

class NoBuild(Scenario):
    pass

class NoAct(Scenario):
    def build(self):
        return None

class Whole(NoAct):
    def act(self, rig):
        pass
"""


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_bundled_ones_are_there(name):
    assert issubclass(find_scenario(name), Scenario)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_file_of_the_user_may_hold_dataclasses(own):
    assert find_scenario(f"{own}:Whole").__name__ == "Whole"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nothing", "unknown scenario 'nothing'"),
        ("OWN:Plan", "Plan is not a Scenario"),
        ("OWN:Missing", "Missing is not a Scenario"),
        ("OWN:NoBuild", "NoBuild has no build()"),
        ("OWN:NoAct", "NoAct has no act()"),
        ("OWN2:Any", "own2.py: SyntaxError: "),
        ("/does/not/exist.py:Any", "is not there"),
    ],
)
def test_what_is_no_scenario_is_refused_in_one_line(own, name, complaint, capsys):
    own.with_name("own2.py").write_text("def (:\n")
    name = name.replace("OWN2", str(own.with_name("own2.py"))).replace("OWN", str(own))
    with pytest.raises(UsageError):
        find_scenario(name)
    assert main(["lab", "run", name]) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["no.such.module:Any", "e2kdisk.lab.rig:Nothing"])
def test_a_module_that_is_not_there_is_refused_too(name, capsys):
    assert main(["lab", "run", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("e2kdisk: ")
    assert "mistake in e2kdisk" not in said
