"""Power cuts while unmodified U-Boot writes a file: the image checks, what was flushed is there, U-Boot boots again."""

from typing import ClassVar

import pytest

from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.power_cuts import FoundCuts, count_places, cut_runs
from e2kdisk.lab.rig import Rig
from e2kdisk.lab.rules import POWER, TIMING
from e2kdisk.lab.scenario import Scenario
from e2kdisk.qcow2.create import create
from tests import oracles
from tests.uboot import BUILDS, shared_golden, to_prompt

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("u-boot-qemu", "qemu-utils", "dosfstools", "mtools", "fdisk", "e2fsprogs"),
]

ENDINGS = 6
"""Contents that a power cut may leave, for each place."""


class FatWrite(Scenario):
    """U-Boot at its prompt writes files to a FAT partition and lists them."""

    FILES: ClassVar = [("new.bin", 0x9000)]

    def __init__(self, directory, cpu, image):
        self.cpu, self.image = cpu, image
        super().__init__(directory)

    def build(self):
        build = BUILDS[self.cpu]
        rig = Rig(build.board, oracles.uboot(build.name), [self.image], ram=256 << 20, format="qcow2")
        to_prompt(rig.machine)
        rig.machine.console.command("virtio scan")
        return rig

    def act(self, rig):
        address = BUILDS[self.cpu].load_address
        writes = [(f"fatwrite virtio 0:1 {address:#x} {name} {size:#x}", "written") for name, size in self.FILES]
        for command, answer in [*writes, ("fatls virtio 0:1", self.FILES[0][0])]:
            said = rig.machine.console.command(command)
            assert rig.traffic.is_cut or answer in said, said

    def revive(self, rig):
        rig.machine.reset()
        to_prompt(rig.machine)
        assert "small.txt" in rig.machine.console.command("virtio scan; fatls virtio 0:1")


class FatWriteOverPci(FatWrite):
    """The same with the disk behind virtio over PCI."""

    def build(self):
        build = BUILDS[self.cpu]
        bios, options = oracles.uboot(build.name), {"ram": 256 << 20, "format": "qcow2", "interface": "virtio-pci"}
        rig = Rig(build.board, bios, [self.image], **options)
        to_prompt(rig.machine)
        rig.machine.console.command("pci enum; virtio scan")
        return rig

    def revive(self, rig):
        rig.machine.reset()
        to_prompt(rig.machine)
        assert "small.txt" in rig.machine.console.command("pci enum; virtio scan; fatls virtio 0:1")


class FatWriteOverBacking(FatWrite):
    """The same over a backing file and in small clusters, so that each write allocates and copies."""

    FILES: ClassVar = [("new.bin", 0x9000), ("more.bin", 0x3_0400), ("new.bin", 0x1_1000), ("third.bin", 0x600)]

    def build(self):
        overlay = self.directory / "overlay.qcow2"
        create(overlay, None, cluster_size=4096, backing_file=str(self.image), backing_format="raw")
        self.image = overlay
        return super().build()


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="module", params=BUILDS)
def fat_write(request, tmp_path_factory, golden_folder):
    scenario = FatWrite(tmp_path_factory.mktemp("lab"), request.param, shared_golden(golden_folder).qcow2)
    yield scenario
    scenario.close()


def explore(scenario, seeds, rules):
    runs = [scenario.run(Seeded(seed), rules) for seed in seeds]
    assert [run.violations for run in runs if run.failed] == []
    cuts = sum(run.cut for run in runs)
    print(f"{len(runs)} runs, {len({run.hash for run in runs})} different, {cuts} power cuts")
    return cuts


def test_writing_a_file_survives_any_timing(fat_write):
    explore(fat_write, range(3), TIMING)


def test_writing_a_file_survives_power_cuts(fat_write):
    assert explore(fat_write, range(100, 112), POWER) > 0


@pytest.mark.slow
def test_writing_a_file_over_pci_survives_any_timing_and_power_cuts(tmp_path, golden_folder):
    scenario = FatWriteOverPci(tmp_path, "arm64", shared_golden(golden_folder).qcow2)
    explore(scenario, range(5), TIMING)
    assert explore(scenario, range(100, 112), POWER) > 0
    assert scenario.run(Seeded(3), TIMING).hash == scenario.run(Seeded(3), TIMING).hash
    scenario.close()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", BUILDS)
def test_u_boot_boots_again_after_a_power_cut_at_every_write_and_flush_of_a_file(cpu, tmp_path, golden_folder):
    scenario = FatWriteOverBacking(tmp_path, cpu, shared_golden(golden_folder).raw)
    found, contents, seeds = FoundCuts(), set(), (0, 1)
    for seed in seeds:
        places = range(count_places(scenario, POWER, seed))
        for run in cut_runs(scenario, POWER, seed, places, ENDINGS):
            assert run.violations == []
            found.runs += run.cut
            contents.add(run.left)
        found.places += len(places)
    scenario.close()
    print(f"{cpu}: {found.runs} power cuts at {found.places} writes and flushes left {len(contents)} contents")
    assert found.runs == found.places * ENDINGS >= 500
