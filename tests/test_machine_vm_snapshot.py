"""savevm, loadvm, delvm: a machine and its disks come back together, judged by qemu-img and by the guest."""

import json

import pytest

from e2kdisk import Machine
from e2kdisk.block.open import open_disk
from e2kdisk.errors import E2kDiskError, ImageError, UsageError
from e2kdisk.machine.bundled import find_guest
from e2kdisk.machine.state_file import pack_state, unpack_state
from e2kdisk.qcow2.create import create
from tests import oracles

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-utils")]
OPTIONS = b"e2kdisk-guest first=8 sectors=200 inflight=4 rounds=3"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.qcow2"
    create(path, 4 << 20)
    with open_disk(path) as disk:
        disk.pwrite(0, OPTIONS.ljust(512, b"\0"))
    return path


def guest(*drives, board="virt-arm64"):
    return Machine(board, bios=find_guest(board), ram=16 << 20, drives=[f"{drive},format=qcow2" for drive in drives])


def outcome(machine):
    machine.run(max_instructions=100_000_000)
    return machine.power_off, machine.instructions, machine.time.now_ns(), machine.console.transcript


def listed(path):
    return json.loads(oracles.qemu_img("info", "--output=json", path)).get("snapshots", [])


@pytest.mark.parametrize("board", ["virt-arm64", "virt-riscv64"])
def test_machine_and_disk_come_back_together_even_in_another_process(board, image):
    with guest(image, board=board) as machine:
        machine.run(max_instructions=60_000)
        at_save = machine.disks[0].pread(0, 1 << 20)
        machine.savevm("in the middle")
        expected = outcome(machine)
        assert "PASS" in expected[3]
        at_end = machine.disks[0].pread(0, 1 << 20)
        assert at_end != at_save
        machine.loadvm("in the middle")
        assert machine.disks[0].pread(0, 1 << 20) == at_save
        assert outcome(machine) == expected
    oracles.qemu_img("check", image)
    (entry,) = listed(image)
    assert entry["name"] == "in the middle"
    assert entry["vm-state-size"] > 10_000
    assert entry["vm-clock-nsec"] + 10**9 * entry["vm-clock-sec"] > 0
    with guest(image, board=board) as other:
        other.loadvm("in the middle")
        assert outcome(other) == expected
        assert other.disks[0].pread(0, 1 << 20) == at_end
        other.delvm("in the middle")
    assert listed(image) == []
    oracles.qemu_img("check", image)


def test_a_name_is_replaced_and_lists_show_machines_only(image):
    oracles.qemu_img("snapshot", "-c", "of the disk alone", image)
    with guest(image) as machine:
        machine.savevm("a")
        machine.run(max_instructions=1000)
        machine.savevm("a")
        machine.savevm("b")
        assert [snapshot.name for snapshot in machine.vm_snapshots()] == ["a", "b"]
        machine.loadvm("a")
        assert machine.instructions == 1000
        with pytest.raises(UsageError, match="one of the disk alone"):
            machine.loadvm("of the disk alone")
        with pytest.raises(ImageError, match="nowhere"):
            machine.loadvm("nowhere")
        with pytest.raises(ImageError, match="nowhere"):
            machine.delvm("nowhere")
        assert machine.instructions == 1000


def test_every_disk_takes_part_and_a_raw_one_is_refused(image, tmp_path):
    second, raw = tmp_path / "second.qcow2", tmp_path / "disk.raw"
    create(second, 1 << 20)
    raw.write_bytes(bytes(1 << 20))
    with guest(image, second) as machine:
        machine.savevm("both")
        machine.disks[1].pwrite(0, b"changed")
        machine.loadvm("both")
        assert machine.disks[1].pread(0, 7) == bytes(7)
    assert [entry["name"] for entry in listed(second)] == ["both"]
    with Machine("virt-arm64", bios=find_guest("virt-arm64"), ram=16 << 20, drives=[f"{raw},format=raw"]) as machine:
        with pytest.raises(UsageError, match=r"disk\.raw: is not a qcow2 image"):
            machine.savevm("x")
        assert machine.instructions == 0
    with Machine("virt-arm64", bios=find_guest("virt-arm64"), ram=16 << 20) as machine, pytest.raises(UsageError):
        machine.savevm("x")


def test_states_survive_as_bytes_and_damaged_ones_are_one_line(image):
    with guest(image) as machine:
        machine.run(max_instructions=5000)
        state = machine.save()
    data = pack_state(state)
    assert unpack_state(data, "x") == state
    for at in range(0, len(data), max(1, len(data) // 200)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]):
            said = complaint(damaged)
            assert said == "" or said.startswith(COMPLAINTS)
            assert "\n" not in said
    assert complaint(data[:-1]) == "disk.qcow2: the saved machine is damaged (the end is missing)"


COMPLAINTS = (
    "disk.qcow2: holds no machine that e2kdisk saved",
    "disk.qcow2: holds a machine saved in format ",
    "disk.qcow2: the saved machine is damaged (",
)


def complaint(data):
    """What is said of damaged bytes, "" when the damage does not show (it is in what nobody reads)."""
    try:
        unpack_state(data, "disk.qcow2")
    except E2kDiskError as error:
        return str(error)
    return ""
