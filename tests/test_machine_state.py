"""Machine.save and Machine.load: the guest cannot tell that it was away, in this process or in another."""

import pickle
import time

import pytest

from e2kdisk import Machine
from e2kdisk.block.open import open_disk
from e2kdisk.errors import UsageError
from e2kdisk.machine.bundled import find_guest
from e2kdisk.machine.machine import StopReason
from e2kdisk.machine.ram import CHUNK, GuestRam
from e2kdisk.qcow2.create import create
from tests import oracles
from tests.uboot import BUILDS, to_prompt

pytestmark = pytest.mark.guest
BOARDS = ("virt-arm64", "virt-riscv64")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.qcow2"
    create(path, 4 << 20)
    with open_disk(path) as disk:
        disk.pwrite(0, b"e2kdisk-guest first=8 sectors=200 inflight=4 wait=interrupt".ljust(512, b"\0"))
    return path


def guest(board, image):
    return Machine(board, bios=find_guest(board), ram=16 << 20, drives=[f"{image},format=qcow2"])


def ending(machine):
    reason = machine.run(max_instructions=100_000_000)
    return reason, machine.instructions, machine.time.now_ns(), machine.console.transcript


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("instructions", [1, 2_000, 60_000, 150_001])
def test_a_guest_goes_on_from_a_saved_state_as_if_nothing_had_happened(board, instructions, image):
    with guest(board, image) as machine:
        machine.run(max_instructions=instructions)
        state = pickle.loads(pickle.dumps(machine.save()))
        expected = ending(machine)
        assert expected[0] is StopReason.POWER_OFF
        assert "PASS" in expected[3]
        # The disk has been written since, but with what will be written again.
        machine.load(state)
        assert ending(machine) == expected
    with guest(board, image) as other:
        other.load(state)
        assert ending(other) == expected


def test_a_state_of_another_machine_is_refused(image):
    with guest("virt-arm64", image) as arm, guest("virt-riscv64", _copy(image)) as riscv:
        state = arm.save()
        with pytest.raises(UsageError, match="board virt-arm64"):
            riscv.load(state)
        with pytest.raises(UsageError, match="version 99"):
            arm.load(state | {"version": 99})
        with pytest.raises(UsageError, match="ram_size"):
            arm.load(state | {"ram_size": 4096})


def _copy(image):
    other = image.with_name("other.qcow2")
    other.write_bytes(image.read_bytes())
    return other


@pytest.mark.needs("u-boot-qemu")
@pytest.mark.parametrize("cpu", ["arm64", "riscv64"])
def test_restoring_uboot_at_its_prompt_is_far_cheaper_than_booting_it(cpu):
    build = BUILDS[cpu]
    began = time.process_time()
    with Machine(build.board, bios=oracles.uboot(build.name)) as machine:
        to_prompt(machine)
        booting = time.process_time() - began
        state = machine.save()
        answers = set()
        restoring = []
        for _ in range(5):
            began = time.process_time()
            machine.load(state)
            restoring.append(time.process_time() - began)
            answers.add((machine.console.command("version"), machine.instructions, machine.time.now_ns()))
        assert len(answers) == 1
        # The goal is 20 times, about 100 are usual; in a quarter of the goal's time it cannot be luck.
        assert min(restoring) * 20 < booting


def test_ram_comes_back_with_zeros_where_there_were_zeros():
    ram = GuestRam(8 * CHUNK)
    ram.view[CHUNK + 5] = 7
    ram.view[6 * CHUNK : 6 * CHUNK + 3] = b"abc"
    saved = ram.save()
    assert sorted(saved) == [CHUNK, 6 * CHUNK]
    before = bytes(ram.view)
    ram.view[:] = bytes([0xFF]) * (8 * CHUNK)
    changed = list(ram.load(saved))
    assert changed[0] == (0, CHUNK)
    assert bytes(ram.view) == before
    unchanged = set(range(8)) - {start // CHUNK for start, end in ram.load(saved) for start in range(start, end, CHUNK)}
    assert unchanged == {1, 6}  # their translated code stays
