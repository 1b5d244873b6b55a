"""A run that is left at any place, with requests in flight, and taken up again is the run that was not left."""

import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.lab.decisions import Natural, ReplayError, Seeded
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import POWER, TIMING, US, Rules
from e2kdisk.lab.scenario import find_scenario
from tests.lab_interruptions import IdeInterrupted
from tests.lab_orders import IdeOrders, IdePio, MmioModern, PciMessages
from tests.test_lab_uboot import FatWrite, golden_folder  # noqa: F401  (a fixture)
from tests.uboot import shared_golden

pytestmark = pytest.mark.guest
slow = pytest.mark.slow
SHORT = (MmioModern, IdeOrders, *(pytest.param(kind, marks=slow) for kind in (PciMessages, IdePio, IdeInterrupted)))
QUICK = Rules(latencies_ns=(0, 3 * US, 20 * US), short_reads=True, irq_delays_ns=(0, 5 * US))
"""What the drivers of the short runs have the patience for."""
GUESTS = ("guest-arm64", "guest-riscv64", "elbrus-ide-dma")


def with_checkpoints(scenario, seed, rules, wanted=lambda number: True):
    """A run of a seed and the checkpoints after the events that are wanted, which are counted from 1."""
    taken, rig = [], scenario.rig

    def take(event):
        if rig.running and wanted(rig.events.events):
            taken.append(rig.checkpoint())

    run = scenario.run(Seeded(seed), rules, listeners=[take])
    return run, taken


def same(run, other):
    return (run.hash, run.events, run.decisions, run.violations, run.cut) == (
        other.hash,
        other.events,
        other.decisions,
        other.violations,
        other.cut,
    )


@pytest.mark.parametrize("kind", SHORT, ids=lambda kind: kind.__name__)
def test_every_place_of_a_short_run_can_be_gone_back_to(kind, tmp_path):
    scenario = kind(tmp_path)
    run, taken = with_checkpoints(scenario, 5, QUICK)
    assert same(scenario.run(Seeded(5), QUICK), run), "to take checkpoints has changed the run"
    assert run.violations == []
    assert len(taken) == run.events
    # Registers are written a hundred times in a row with nothing in flight; all of what happens then, a part of those.
    busy = [checkpoint for checkpoint in taken if checkpoint.in_flight]
    for checkpoint in busy + taken[::8]:
        assert same(scenario.resume(checkpoint), run), f"after {checkpoint.events} events"
    scenario.close()
    print(f"{kind.__name__}: gone back to {len(busy)} places with requests in flight of {len(taken)} in all")
    assert len(busy) >= 4


@pytest.fixture(scope="module", params=GUESTS)
def guest(request, tmp_path_factory):
    scenario = find_scenario(request.param)(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


def test_places_of_a_long_run_can_be_gone_back_to(guest):
    whole = guest.run(Seeded(3), TIMING)
    run, taken = with_checkpoints(guest, 3, TIMING, lambda number: number % (whole.events // 9) == 0)
    assert same(run, whole)
    assert sum(checkpoint.in_flight > 0 for checkpoint in taken) >= 3
    for checkpoint in taken:
        assert same(guest.resume(pickle.loads(pickle.dumps(checkpoint))), run)


def test_the_end_with_a_power_cut_is_the_same_too(guest):
    seed = next(seed for seed in range(30) if guest.run(Seeded(seed), POWER).cut)
    run, taken = with_checkpoints(guest, seed, POWER, lambda number: number % 97 == 0)
    assert run.cut
    for checkpoint in taken[-3:]:
        assert same(guest.resume(checkpoint), run)


@pytest.fixture
def short(tmp_path):
    scenario = MmioModern(tmp_path)
    yield scenario
    scenario.close()


def test_a_checkpoint_is_where_other_runs_branch_off(short):
    run, taken = with_checkpoints(short, 3, QUICK)
    checkpoint = [checkpoint for checkpoint in taken if checkpoint.in_flight][5]
    other = short.resume(checkpoint, Natural())
    length = len(checkpoint.decisions)
    assert other.decisions[:length] == run.decisions[:length] == list(checkpoint.decisions)
    assert {decision.choice for decision in other.decisions[length:]} == {0}
    assert other.hash != run.hash
    assert same(short.resume(checkpoint), run)  # the other source has changed nothing in it


def test_a_checkpoint_of_something_else_is_refused(short):
    run, taken = with_checkpoints(short, 3, QUICK, lambda number: number == 40)
    for wrong in (replace(taken[0], hash="0" * 32), replace(taken[0], events=run.events + 1)):
        with pytest.raises(ReplayError, match="is not one of this run"):
            short.resume(wrong)
    assert same(short.resume(taken[0]), run)
    with pytest.raises(UsageError, match="a place inside a run"):
        short.rig.checkpoint()


def resume_elsewhere(name, directory, checkpoints):
    """In another process: the hashes of the runs that go on from there."""
    scenario = find_scenario(name)(directory)
    return [scenario.resume(pickle.loads(checkpoint)).hash for checkpoint in checkpoints]


@slow
def test_another_process_goes_on_from_a_checkpoint(guest, tmp_path):
    name = next(name for name in GUESTS if type(guest) is find_scenario(name))
    run, taken = with_checkpoints(guest, 8, TIMING, lambda number: number % 150 == 0)
    busy = [checkpoint for checkpoint in taken if checkpoint.in_flight] or taken
    data = [pickle.dumps(checkpoint) for checkpoint in busy[:: max(1, len(busy) // 4)]]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        hashes = executor.submit(resume_elsewhere, name, tmp_path, data).result(timeout=100)
    print(f"{name}: {len(data)} checkpoints of {len(data[0])} bytes each taken up in another process")
    assert hashes == [run.hash] * len(data)


def test_pages_of_a_file_are_pickled_with_what_is_below_them(tmp_path):
    content = bytes(5000) + b"x" * 5000 + bytes(9000)
    (tmp_path / "file").write_bytes(content)
    pages = Pages.of_file(tmp_path / "file")
    pages.write(12_000, b"changed")
    other = pickle.loads(pickle.dumps(pages))
    assert other.read(0, 20_000) == pages.read(0, 20_000)
    other.write(0, b"own")
    assert pages.read(0, 3) == bytes(3)
    assert len(pickle.dumps(pages)) < 3 * 4096 + 1000


@slow
@pytest.mark.needs("u-boot-qemu", "qemu-utils", "dosfstools", "mtools", "fdisk", "e2fsprogs")
@pytest.mark.parametrize("cpu", ["arm64", "riscv64"])
def test_going_back_to_the_middle_of_a_write_of_u_boot_is_cheaper_than_booting_it(cpu, tmp_path, golden_folder):  # noqa: F811
    image = shared_golden(golden_folder).qcow2
    began = time.process_time()
    scenario = FatWrite(tmp_path, cpu, image)
    boot = time.process_time() - began
    whole, all_taken = with_checkpoints(scenario, 4, TIMING)
    busy = [checkpoint for checkpoint in all_taken if checkpoint.in_flight]
    checkpoint = busy[len(busy) // 2]
    times = []
    for _ in range(5):
        began = time.process_time()
        run = scenario.resume(checkpoint)
        times.append(time.process_time() - began)
        assert same(run, whole)
    began = time.process_time()
    for _ in range(20):
        scenario.rig.restore(scenario.rig.base)
    restore = (time.process_time() - began) / 20
    scenario.close()
    took = sorted(times)[2]
    print(
        f"{cpu}: boot {boot * 1000:.0f} ms; back to event {checkpoint.events} of {whole.events} and on to the end "
        f"{took * 1000:.1f} ms, {boot / took:.0f} times cheaper; to the base {restore * 1000:.2f} ms, "
        f"{boot / restore:.0f} times"
    )
    assert took < boot / 2
    assert restore < boot / 20
