"""Power cuts while unmodified U-Boot writes a file: the image checks, what was flushed is there, U-Boot boots again."""

import pytest

from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.rig import Rig
from e2kdisk.lab.rules import POWER, TIMING
from e2kdisk.lab.scenario import Scenario
from tests import oracles
from tests.uboot import BUILDS, shared_golden, to_prompt

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("u-boot-qemu", "qemu-utils", "dosfstools", "mtools", "fdisk", "e2fsprogs"),
]


class FatWrite(Scenario):
    """U-Boot at its prompt writes a file to a FAT partition and lists it."""

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
        for command, answer in (
            (f"fatwrite virtio 0:1 {address:#x} new.bin 0x9000", "written"),
            ("fatls virtio 0:1", "new.bin"),
        ):
            said = rig.machine.console.command(command)
            assert rig.traffic.is_cut or answer in said, said

    def revive(self, rig):
        rig.machine.reset()
        to_prompt(rig.machine)
        assert "small.txt" in rig.machine.console.command("virtio scan; fatls virtio 0:1")


@pytest.fixture(scope="module", params=["arm64", "riscv64"])
def fat_write(request, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    golden = shared_golden(base.parent if base.name.startswith("popen-") else base)
    scenario = FatWrite(tmp_path_factory.mktemp("lab"), request.param, golden.qcow2)
    yield scenario
    scenario.close()


def explore(scenario, seeds, rules):
    runs = [scenario.run(Seeded(seed), rules) for seed in seeds]
    assert [run.violations for run in runs if run.failed] == []
    cuts = sum(run.cut for run in runs)
    print(f"{len(runs)} runs, {len({run.hash for run in runs})} different, {cuts} power cuts")
    return cuts


def test_writing_a_file_survives_any_timing(fat_write):
    explore(fat_write, range(5), TIMING)


def test_writing_a_file_survives_power_cuts(fat_write):
    assert explore(fat_write, range(100, 112), POWER) > 0


@pytest.mark.slow
def test_writing_a_file_survives_many_power_cuts(fat_write):
    assert explore(fat_write, range(1000, 1300), POWER) > 60
