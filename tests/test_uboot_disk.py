"""Debian's unmodified U-Boot finds, reads and writes disks through our controller."""

import hashlib
import shutil

import pytest

from e2kdisk import OpenPolicy, open_disk
from e2kdisk.machine.console import ConsoleTimeout
from e2kdisk.machine.machine import StopReason
from tests import oracles
from tests.uboot import (
    BIG_SIZE,
    BUILDS,
    MIB,
    NEEDS,
    SMALL,
    assert_filesystems_clean,
    golden,
    loaded_crc,
    partition,
    read_back,
    to_prompt,
    uboot,
)

__all__ = ["golden"]  # a fixture

pytestmark = [pytest.mark.guest, pytest.mark.needs(*NEEDS)]
slow = pytest.mark.slow
BOTH_CPUS = pytest.mark.parametrize("cpu", BUILDS)
ONE_FAST = pytest.mark.parametrize("cpu", ["riscv64", pytest.param("arm64", marks=slow)])
# One of each in the fast tier: both CPUs, both versions of virtio-mmio.
CPU_AND_VERSION = pytest.mark.parametrize(
    ("cpu", "version"),
    [("arm64", 2), ("riscv64", 1), pytest.param("arm64", 1, marks=slow), pytest.param("riscv64", 2, marks=slow)],
)


@pytest.fixture
def overlay(golden, make_image):
    return make_image(backing=golden.qcow2, name="overlay.qcow2")


@CPU_AND_VERSION
def test_it_reaches_its_prompt_lists_the_disk_and_loads_64_mib(golden, overlay, assert_clean, cpu, version):
    with uboot(cpu, overlay, virtio_version=version) as machine:
        command = machine.console.command
        assert "error" not in command("virtio scan").lower()
        assert "Capacity: 160.0 MB" in command("virtio info")
        table = command("part list virtio 0")
        assert "0c" in table and "83" in table
        for number in (1, 2):
            listing = command(f"ls virtio 0:{number}")
            assert str(BIG_SIZE) in listing and "big.bin" in listing and "small.txt" in listing
        assert loaded_crc(machine, cpu, "big.bin", 1) == (BIG_SIZE, golden.big_crc)
        machine.console.send("poweroff\n")
        assert machine.run(100_000_000) is StopReason.POWER_OFF
    assert_clean(overlay)


@slow
@BOTH_CPUS
@pytest.mark.parametrize("part", [1, 2], ids=["fat", "ext4"])
@pytest.mark.parametrize("chain", ["qcow2", "raw", "compressed", "qcow2-qcow2-raw"])
def test_64_mib_have_the_hosts_crc_through_every_chain_of_images(golden, make_image, cpu, part, chain):
    match chain:
        case "qcow2":
            drive = f"file={golden.qcow2},readonly=on"
        case "raw":
            drive = f"file={golden.raw},format=raw,readonly=on"
        case "compressed":
            drive = f"file={golden.compressed},readonly=on"
        case _:
            middle = make_image(backing=golden.raw, backing_format="raw")
            drive = make_image(backing=middle)
    with uboot(cpu, drive) as machine:
        assert loaded_crc(machine, cpu, "big.bin", part) == (BIG_SIZE, golden.big_crc)


@slow
@BOTH_CPUS
@pytest.mark.parametrize("engine", ["auto", "threads"])
@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_the_engine_and_the_clock_make_no_difference_to_the_data(golden, overlay, cpu, engine, clock):
    with (
        open_disk(overlay, engine=engine, policy=OpenPolicy.permissive()) as disk,
        uboot(cpu, disk, clock=clock) as machine,
    ):
        assert loaded_crc(machine, cpu, "big.bin", 2) == (BIG_SIZE, golden.big_crc)


@pytest.mark.parametrize(
    ("cpu", "version"),
    [
        ("arm64", 2),
        *[pytest.param(cpu, version, marks=slow) for cpu, version in (("arm64", 1), ("riscv64", 1), ("riscv64", 2))],
    ],
)
def test_what_it_writes_is_on_the_disk_and_everything_is_consistent(
    golden, make_image, assert_clean, tmp_path, cpu, version
):
    before = hashlib.sha256(golden.raw.read_bytes()).digest()
    middle = make_image(backing=golden.raw, backing_format="raw", name="middle.qcow2")
    image = make_image(backing=middle, name="top.qcow2")
    address = BUILDS[cpu].load_address
    with uboot(cpu, image, virtio_version=version) as machine:
        command = machine.console.command
        command(f"load virtio 0:2 {address:#x} big.bin")
        assert "1048576 bytes written" in command(f"fatwrite virtio 0:1 {address:#x} written.bin 100000")
        # Sectors behind the table and before the first partition belong to nobody.
        assert "written" in command(f"virtio write {address + MIB:#x} 100 80")
        machine.console.send("poweroff\n")
        assert machine.run(200_000_000) is StopReason.POWER_OFF
    for path in (image, middle):
        assert_clean(path)
    raw = read_back(image, tmp_path)
    original = read_back(golden.raw, tmp_path, "raw")
    oracles.run("mcopy", "-i", partition(original, 1), "::big.bin", tmp_path / "big.bin")
    big = (tmp_path / "big.bin").read_bytes()
    oracles.run("mcopy", "-i", partition(raw, 1), "::written.bin", tmp_path / "written.bin")
    assert (tmp_path / "written.bin").read_bytes() == big[:MIB]
    with raw.open("rb") as disk:
        disk.seek(0x100 * 512)
        assert disk.read(0x80 * 512) == big[MIB : MIB + 0x80 * 512]
    assert_filesystems_clean(raw)
    assert hashlib.sha256(golden.raw.read_bytes()).digest() == before


@slow
@BOTH_CPUS
@pytest.mark.parametrize("version", [1, 2])
def test_a_write_into_a_compressed_image_leaves_it_consistent(golden, assert_clean, tmp_path, cpu, version):
    image = tmp_path / "compressed.qcow2"
    shutil.copyfile(golden.compressed, image)
    address = BUILDS[cpu].load_address
    with uboot(cpu, image, virtio_version=version) as machine:
        size = loaded_crc(machine, cpu, "small.txt", 2)[0]
        assert f"{size} bytes written" in machine.console.command(f"fatwrite virtio 0:1 {address:#x} copy.txt {size:x}")
    assert_clean(image)
    raw = read_back(image, tmp_path)
    oracles.run("mcopy", "-i", partition(raw, 1), "::copy.txt", tmp_path / "copy.txt")
    assert (tmp_path / "copy.txt").read_bytes() == SMALL
    assert_filesystems_clean(raw)


@BOTH_CPUS
def test_reset_starts_again_with_what_was_written_and_poweroff_ends(overlay, cpu):
    address = BUILDS[cpu].load_address
    with uboot(cpu, overlay) as machine:
        command = machine.console.command
        command(f"mw.b {address:#x} 5a 200")
        assert "written" in command(f"virtio write {address:#x} 200 1")
        machine.console.send("reset\n")
        to_prompt(machine)
        assert machine.resets == 1
        command(f"mw.b {address:#x} 0 200")
        assert "read" in command(f"virtio read {address:#x} 200 1")
        assert "5a5a5a5a 5a5a5a5a" in command(f"md {address + 0x1F0:#x} 4")
        machine.console.send("poweroff\n")
        assert machine.run(100_000_000) is StopReason.POWER_OFF
        assert machine.run() is StopReason.POWER_OFF


@ONE_FAST
def test_two_runs_under_the_virtual_clock_are_the_same_to_the_instruction(golden, cpu):
    runs = []
    for _ in range(2):
        with uboot(cpu, f"file={golden.qcow2},readonly=on") as machine:
            machine.console.command("sleep 1")
            machine.console.command("ls virtio 0:1")
            registers = [machine.cpu.read_register(f"x{n}") for n in range(1, 30)]
            runs.append((machine.instructions, machine.time.now_ns(), machine.console.transcript, registers))
    assert runs[0] == runs[1]


@ONE_FAST
def test_disks_are_found_in_the_order_in_which_they_are_given(make_image, cpu):
    images = [make_image(f"{size}M") for size in (8, 24, 16)]
    with uboot(cpu, *images) as machine:
        said = machine.console.command("virtio info")
    assert [line.split()[1] for line in said.splitlines() if "Capacity" in line] == ["8.0", "24.0", "16.0"]


@ONE_FAST
def test_time_limits_are_in_the_guests_time(cpu):
    with uboot(cpu) as machine:
        start = machine.time.now_ns()
        machine.console.command("sleep 3", timeout=3.1)
        assert 3e9 < machine.time.now_ns() - start < 3.1e9
        with pytest.raises(ConsoleTimeout, match=r"not within 1 s.*sleep 2"):
            machine.console.command("sleep 2", timeout=1)
