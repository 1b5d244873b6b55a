"""The power fails at every write and flush below the format, and what it leaves is judged and brought to life."""

from concurrent.futures import ProcessPoolExecutor

import pytest

from e2kdisk.lab.decisions import Replay
from e2kdisk.lab.power_cuts import CutAt, count_places, cut_runs, explore_cuts
from e2kdisk.lab.rules import POWER
from e2kdisk.lab.scenario import find_scenario
from e2kdisk.lab.scenarios import GuestArm64
from e2kdisk.lab.volume import VolumeNode

pytestmark = pytest.mark.guest


class Small(GuestArm64):
    """The bundled guest with little to write: every place can be visited in a moment."""

    OPTIONS = "first=8 sectors=4 inflight=2 rounds=2 wait=interrupt"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    scenario = Small(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


def test_the_power_fails_at_every_write_and_flush_of_the_run(small):
    changes = []
    uncut = CutAt(0)
    small.run(uncut, POWER, listeners=[lambda event: changes.append(event) if is_change(event) else None])
    runs = list(cut_runs(small, POWER, 0, range(uncut.places), 1))
    assert uncut.places == len(changes) > 10
    assert all(run.cut and run.violations == [] for run in runs)
    assert len({run.hash for run in runs}) == uncut.places


def is_change(event):
    return event.source == "file" and event.kind in ("file flush", "file write", "file zeroes", "file truncate")


@pytest.mark.slow
def test_endings_leave_different_contents_and_the_first_is_the_natural_one(small):
    contents = [run.left for run in cut_runs(small, POWER, 0, range(count_places(small, POWER, 0)), 6)]
    by_place = [contents[at : at + 6] for at in range(0, len(contents), 6)]
    assert max(len(set(endings)) for endings in by_place) >= 3


def test_a_cut_run_replays_from_its_decisions(small):
    (run,) = cut_runs(small, POWER, 3, [9], 1)
    again = small.run(Replay(run.decisions), POWER)
    assert (again.hash, again.left, again.cut) == (run.hash, run.left, True)


def test_a_guest_is_brought_to_life_once_for_each_content_of_an_exploration(small, monkeypatch):
    revived = []
    monkeypatch.setattr(small, "revive", lambda rig: revived.append(1))
    contents = [run.left for run in cut_runs(small, POWER, 0, range(8), 3)]
    assert len(revived) == len(set(contents)) < len(contents)


def test_a_file_that_forgets_what_was_flushed_is_found_at_some_place(small, monkeypatch):
    flush = VolumeNode.flush

    async def forget(self):
        durable = self.durable.copy()
        await flush(self)
        self.durable = durable

    monkeypatch.setattr(VolumeNode, "flush", forget)
    failing = [run for run in cut_runs(small, POWER, 0, range(count_places(small, POWER, 0)), 1) if run.failed]
    assert any("neither what was flushed nor anything newer" in run.violations[0] for run in failing)


def test_exploring_in_processes_finds_what_exploring_here_finds():
    with ProcessPoolExecutor(2) as executor:
        there = explore_cuts(f"{__file__}:Small", POWER, [0], 1, executor)
    here = explore_cuts(f"{__file__}:Small", POWER, [0], 1)
    assert (there.runs, there.places, there.hashes) == (here.runs, here.places, here.hashes)
    assert here.runs == here.places == here.cuts > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guest-arm64", "guest-riscv64", "elbrus-ide-dma"])
def test_the_bundled_guest_survives_a_power_cut_at_every_write_and_flush(name, tmp_path):
    scenario = find_scenario(name)(tmp_path)
    runs, places, contents = 0, 0, set()
    for seed in range(2):
        here = count_places(scenario, POWER, seed)
        for run in cut_runs(scenario, POWER, seed, range(here), 3):
            assert run.violations == []
            runs += run.cut
            contents.add(run.left)
        places += here
    scenario.close()
    print(f"{name}: {runs} power cuts at {places} writes and flushes left {len(contents)} contents")
    assert runs == places * 3
