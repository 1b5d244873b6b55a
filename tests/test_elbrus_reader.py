"""A bare-metal arm64 program on the Elbrus board reads its disk in every way, and finds the same bytes each time."""

import random

import pytest

import e2kdisk
from e2kdisk import Machine
from e2kdisk.aio.engine import ThreadEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.machine.boards.board import Drive
from e2kdisk.machine.machine import StopReason
from tests.elbrus_reader import READER, checksums, read

pytestmark = pytest.mark.guest

MIB = 1 << 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """An image of 64 MiB, data and holes, and the checksums of its first MiBs: (path, {MiB: checksum})."""
    path = tmp_path_factory.mktemp("reader") / "disk.qcow2"
    chance = random.Random(5)
    content = bytearray(64 * MIB)
    e2kdisk.create(path, len(content))
    with e2kdisk.open_disk(path) as image:
        for start in range(0, len(content), MIB):
            if chance.random() < 0.8:
                content[start : start + MIB] = chance.randbytes(MIB)
                image.pwrite(start, content[start : start + MIB])
    return path, checksums(content, (1, 4, 64))


def newest_first(pending):
    """The order of completions that surprises most."""
    return len(pending) - 1


def machine(path, **options):
    """A machine whose disk is there twice: behind IDE and behind virtio."""
    drives = [f"file={path},readonly=on,if={kind}" for kind in ("ide", "virtio")]
    return Machine("elbrus", cpu="arm64", bios=READER, drives=drives, **options)


@pytest.mark.parametrize("clock", ["virtual", pytest.param("host", marks=pytest.mark.slow)])
def test_64_mib_by_bus_master_dma_and_by_virtio_have_one_checksum(disk, clock):
    path, expected = disk
    with machine(path, clock=clock) as guest:
        assert [read(guest, way, 64) for way in ("dma", "virtio", "irq")] == [expected[64]] * 3
        guest.console.send("off\n")
        assert guest.run() is StopReason.POWER_OFF


def test_pio_reads_the_same_as_dma(disk):
    path, expected = disk
    with machine(path) as guest:
        assert [read(guest, way, 1) for way in ("pio", "dma")] == [expected[1]] * 2


@pytest.mark.slow
def test_64_mib_by_pio_have_the_same_checksum(disk):
    path, expected = disk
    with machine(path) as guest:
        assert read(guest, "pio", 64) == expected[64]


@pytest.mark.parametrize("make", [ThreadEngine, lambda scheduler: SimulatedEngine(scheduler, newest_first)])
def test_completions_may_come_late_and_in_another_order(disk, make):
    path, expected = disk
    scheduler = Scheduler()
    with (
        e2kdisk.open_disk(path, engine=make(scheduler), read_only=True) as image,
        Machine("elbrus", cpu="arm64", bios=READER, drives=[Drive(image, "ide"), Drive(image, "virtio")]) as guest,
    ):
        assert [read(guest, way, 4) for way in ("irq", "dma", "virtio")] == [expected[4]] * 3


def test_a_machine_saved_between_two_reads_goes_on_in_another(disk):
    path, expected = disk
    with machine(path) as first, machine(path) as second:
        assert read(first, "virtio", 1) == expected[1]
        second.load(first.save())
        assert [read(guest, "irq", 4) for guest in (first, second)] == [expected[4]] * 2
        assert first.instructions == second.instructions
