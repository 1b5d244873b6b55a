"""The guest programs do what they promise, on the boards that they are written for: QEMU's own."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import oracles
from tests.guest_pattern import SECTOR_SIZE, area_pattern, options_sector, sector_pattern, sector_round

IMAGES = Path(__file__).resolve().parent.parent / "firmware/images"
SECTORS = 16384  # of every disk here: 8 MiB
BOARDS = {
    "arm64": ("qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a53")),
    "riscv64": ("qemu-system-riscv64", ("-M", "virt")),
}
TRANSPORTS = {"legacy": (), "modern": ("-global", "virtio-mmio.force-legacy=false")}
pytestmark = pytest.mark.guest

QEMU_LIMIT = 120  # seconds, for a hung guest on a busy host: a run takes less than one


class Guest:
    """One CPU, one transport, one disk image."""

    def __init__(self, cpu: str, transport: str, folder: Path) -> None:
        self.cpu = cpu
        self.transport = transport
        self.disk = folder / "disk.raw"
        self.disk.write_bytes(b"")
        os.truncate(self.disk, SECTORS * SECTOR_SIZE)

    def command(self, *, device: str = "", drive: str = "", boot: tuple[str, ...] = ()) -> list[str]:
        program, machine = BOARDS[self.cpu]
        oracles.require(oracles.PACKAGE_OF[program])
        boot = boot or ("-bios", str(IMAGES / f"guest-{self.cpu}.bin"))
        drive = drive or f"file={self.disk},format=raw"
        disk = ("-drive", f"if=none,id=d,{drive}", "-device", f"virtio-blk-device,drive=d{device}")
        display = ("-display", "none", "-monitor", "none", "-serial", "stdio")
        return [program, *machine, *TRANSPORTS[self.transport], *display, *boot, *disk]

    def run(self, *, device: str = "", drive: str = "", boot: tuple[str, ...] = (), **options: Any) -> str:
        if options:
            self.write(0, options_sector(**options))
        return run(self.command(device=device, drive=drive, boot=boot))

    def write(self, sector: int, data: bytes) -> None:
        with self.disk.open("r+b") as file:
            file.seek(sector * SECTOR_SIZE)
            file.write(data)

    def read(self, sector: int, count: int) -> bytes:
        with self.disk.open("rb") as file:
            file.seek(sector * SECTOR_SIZE)
            return file.read(count * SECTOR_SIZE)


def start(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=QEMU_LIMIT, check=False
    )


def run(command: list[str]) -> str:
    result = start(command)
    assert result.stderr == ""
    return result.stdout


@pytest.fixture(params=[f"{cpu}-{transport}" for cpu in BOARDS for transport in TRANSPORTS])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    cpu, transport = request.param.split("-")
    return Guest(cpu, transport, tmp_path)


def last_line(output: str) -> str:
    return output.splitlines()[-1]


def test_without_options_the_default_area_is_written_and_verified(guest: Guest) -> None:
    output = guest.run(device=",serial=a-serial-number")
    assert f"cpu {guest.cpu}\n" in output
    assert f"virtio-mmio version {1 if guest.transport == 'legacy' else 2} ({guest.transport})\n" in output
    assert f"disk: capacity {SECTORS} sectors, block size 512, queue size 64\n" in output
    assert 'disk: id "a-serial-number"\n' in output
    assert "flushed 1\n" in output
    assert last_line(output) == "PASS"
    assert guest.read(64, 8192) == area_pattern(64, 8192, round=1, seed=1)


def test_nothing_outside_the_area_is_written(guest: Guest) -> None:
    sector_0 = options_sector(first=100, sectors=77)
    guest.write(0, sector_0)
    assert last_line(guest.run()) == "PASS"
    assert guest.read(0, 100) == sector_0 + bytes(99 * SECTOR_SIZE)
    assert guest.read(100, 77) == area_pattern(100, 77, round=1, seed=1)
    assert guest.read(177, SECTORS - 177) == bytes((SECTORS - 177) * SECTOR_SIZE)


def test_every_round_has_its_own_pattern_and_the_last_one_stays(guest: Guest) -> None:
    output = guest.run(mode="write", rounds=3, start=5, first=2048, sectors=1000, seed=77, inflight=64)
    assert re.findall(r"^flushed (\d+)$", output, re.M) == ["5", "6", "7"]
    assert last_line(output) == "PASS"
    assert guest.read(2048, 1000) == area_pattern(2048, 1000, round=7, seed=77)


def test_every_option_is_obeyed_and_printed(guest: Guest) -> None:
    line = "mode=check rounds=2 start=3 first=200 sectors=128 inflight=5 seed=9 size=8 wait=interrupt"
    options: dict[str, Any] = dict(option.split("=") for option in line.split())
    output = guest.run(**options)
    assert f"options: {line}\n" in output
    assert output.count(": wrote 65536 bytes in 16 requests\n") == 2
    assert output.count(": verified 65536 bytes in 16 requests\n") == 2
    assert last_line(output) == "PASS"


def test_verify_accepts_the_right_pattern_and_writes_nothing(guest: Guest) -> None:
    content = options_sector(mode="verify", rounds=4, first=1, sectors=500, seed=2) + area_pattern(1, 500, 4, 2)
    guest.write(0, content)
    assert last_line(guest.run(drive=f"file={guest.disk},format=raw,readonly=on")) == "PASS"
    assert guest.read(0, 501) == content


def test_verify_names_the_sector_and_the_word_of_one_wrong_bit(guest: Guest) -> None:
    right = sector_pattern(300, 4, 2)
    wrong = right[:511] + bytes([right[511] ^ 0x80])
    guest.write(1, area_pattern(1, 299, 4, 2) + wrong + area_pattern(301, 200, 4, 2))
    output = guest.run(mode="verify", rounds=4, first=1, sectors=500, seed=2)
    expected, got = (hex(int.from_bytes(sector[504:], "little")) for sector in (right, wrong))
    assert "mismatch: word 63 of the sector\n" in output
    assert last_line(output) == f"FAIL: data, sector 300, expected {expected}, got {got}"


def test_verify_tells_an_older_round(guest: Guest) -> None:
    guest.write(64, area_pattern(64, 16, round=1, seed=1))
    output = guest.run(mode="verify", rounds=2, first=64, sectors=16, size=64)
    assert last_line(output) == "FAIL: data, sector 64, expected 0x100000002, got 0x100000001"


def test_a_read_only_disk_is_only_read(guest: Guest) -> None:
    output = guest.run(drive=f"file={guest.disk},format=raw,readonly=on", mode="check", sectors=512)
    assert "disk: read-only, nothing is written and nothing verified\n" in output
    assert "round 1: read 262144 bytes in " in output
    assert last_line(output) == "PASS"


@pytest.mark.parametrize(("kind", "status"), [("write", 1), ("read", 1), ("flush", 1)])
def test_a_device_error_fails_the_run(guest: Guest, kind: str, status: int) -> None:
    where = "" if kind == "flush" else "inject-error.0.sector=128,"
    drive = (
        f"driver=blkdebug,image.driver=file,image.filename={guest.disk},inject-error.0.event=none,{where}"
        f"inject-error.0.iotype={kind},werror=report,rerror=report"
    )
    output = guest.run(drive=drive, first=64, sectors=256, size=1)
    sector = 0 if kind == "flush" else 128
    assert last_line(output) == f"FAIL: {kind} status, sector {sector}, expected 0x0, got {status:#x}"


@pytest.mark.parametrize(
    "device",
    [
        ",event_idx=off",
        ",indirect_desc=off",
        ",event_idx=off,indirect_desc=off",
        ",indirect_desc=off,queue-size=4",
        ",queue-size=8",
        ",num-queues=2",
        ",config-wce=off,write-cache=off",
        ",logical_block_size=4096,physical_block_size=4096",
    ],
)
@pytest.mark.parametrize("wait", [pytest.param("ring", marks=pytest.mark.slow), "interrupt"])
def test_any_choice_of_features_works(guest: Guest, device: str, wait: str) -> None:
    output = guest.run(device=device, first=64, sectors=1024, inflight=20, wait=wait)
    assert last_line(output) == "PASS"
    assert guest.read(64, 1024) == area_pattern(64, 1024, round=1, seed=1)


def test_blocks_larger_than_a_sector_are_never_split(guest: Guest) -> None:
    output = guest.run(device=",logical_block_size=4096,physical_block_size=4096", first=3, sectors=100, size=1)
    assert "block size 4096" in output
    assert " first=8 sectors=96 " in output
    assert "wrote 49152 bytes in 12 requests\n" in output


@pytest.mark.parametrize("wait", [pytest.param("ring", marks=pytest.mark.slow), "interrupt"])
def test_the_ring_index_wraps_at_65536(guest: Guest, wait: str) -> None:
    output = guest.run(rounds=5, sectors=7000, size=1, inflight=64, wait=wait)
    assert "total: 70007 requests, " in output
    assert last_line(output) == "PASS"


def test_after_kill_9_every_flushed_round_is_on_the_disk(guest: Guest) -> None:
    guest.write(0, options_sector(mode="write", rounds=0, first=64, sectors=2048))
    qcow2 = guest.disk.with_suffix(".qcow2")
    oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", guest.disk, qcow2)
    process = subprocess.Popen(guest.command(drive=f"file={qcow2}"), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    for flushed in rounds(process.stdout):
        if flushed == 4:
            process.kill()
            break
    # What was still on its way through the pipe was promised as well.
    flushed = max([4, *rounds(process.stdout)])
    process.wait()
    process.stdout.close()
    oracles.qemu_img("convert", "-f", "qcow2", "-O", "raw", qcow2, guest.disk)
    data = guest.read(64, 2048)
    for i in range(2048):
        sector = data[i * SECTOR_SIZE :][:SECTOR_SIZE]
        assert sector_round(sector) in (flushed, flushed + 1)
        assert sector == sector_pattern(64 + i, sector_round(sector), 1)


def rounds(lines: Iterator[str]) -> Iterator[int]:
    for line in lines:
        if match := re.match(r"flushed (\d+)$", line):
            yield int(match[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "chekc"}, "FAIL: sector 0: unknown option"),
        ({"rounds": ""}, "FAIL: sector 0: a number is missing"),
        ({"sectors": "12k"}, "FAIL: sector 0: unknown option"),
        ({"size": 3}, "FAIL: sector 0: size is not a power of two up to 64"),
        ({"first": SECTORS}, "FAIL: the area starts outside the disk, sector 16384, expected 0x4000, got 0x4000"),
        ({"sectors": SECTORS}, "FAIL: the area ends outside the disk, sector 64, expected 0x3fc0, got 0x4000"),
    ],
)
def test_wrong_options_are_refused(guest: Guest, options: dict[str, Any], message: str) -> None:
    assert last_line(guest.run(**options)) == message


@pytest.mark.parametrize("cpu", BOARDS)
def test_a_board_without_a_disk_is_a_failure(cpu: str, tmp_path: Path) -> None:
    command = Guest(cpu, "modern", tmp_path).command()
    result = start(command[: command.index("-drive")])
    assert result.stdout == f"e2kdisk guest: cpu {cpu}\nFAIL: no virtio disk found\n"
    assert result.returncode == (1 if cpu == "riscv64" else 0)  # PSCI has no exit code


@pytest.mark.parametrize(("cpu", "address"), [("arm64", 0x4080_0000), ("riscv64", 0x8008_0000)])
def test_the_image_runs_wherever_it_is_loaded(cpu: str, address: int, tmp_path: Path) -> None:
    image = IMAGES / f"guest-{cpu}.bin"
    boot: tuple[str, ...] = ("-device", f"loader,file={image},addr={address:#x},force-raw=on,cpu-num=0")
    if cpu == "riscv64":
        boot = ("-bios", "none", *boot)
    assert last_line(Guest(cpu, "modern", tmp_path).run(boot=boot)) == "PASS"
