"""Debian's U-Boot at its prompt, and the disk that it is shown: an MBR with a FAT and an ext4 partition."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2kdisk import Machine, OpenPolicy
from tests import oracles

MIB = 1 << 20
BIG_SIZE = 64 * MIB
SMALL = b"Hello from the disk.\n"
FAT_START, FAT_SIZE = 1 * MIB, 80 * MIB
EXT_START, EXT_SIZE = 81 * MIB, 79 * MIB
DISK_SIZE = 160 * MIB

NEEDS = ("u-boot-qemu", "qemu-utils", "dosfstools", "mtools", "e2fsprogs", "fdisk")


@dataclass(frozen=True)
class Golden:
    """Images of one content, built once and only read: tests use overlays or copies."""

    raw: Path
    qcow2: Path
    compressed: Path
    big_crc: int
    """zlib.crc32 of big.bin, 64 MiB, on both partitions."""


@dataclass(frozen=True)
class Build:
    """One of U-Boot's builds and where it likes files to be loaded."""

    board: str
    name: str
    load_address: int


BUILDS = {
    "arm64": Build("virt-arm64", "qemu_arm64", 0x4400_0000),
    "riscv64": Build("virt-riscv64", "qemu-riscv64", 0x8400_0000),
}


def build_golden(folder: Path) -> Golden:
    """Make the images with other people's programs."""
    # Every second MiB compresses: the compressed image has clusters of both kinds.
    noise = random.Random(1)
    big = b"".join(noise.randbytes(MIB) if n % 2 else f"{n:16}".encode() * (MIB // 16) for n in range(BIG_SIZE // MIB))
    files = folder / "files"
    files.mkdir()
    (files / "big.bin").write_bytes(big)
    (files / "small.txt").write_bytes(SMALL)
    fat, ext, raw = folder / "fat.img", folder / "ext4.img", folder / "disk.raw"
    for path, size in ((fat, FAT_SIZE), (ext, EXT_SIZE), (raw, DISK_SIZE)):
        path.touch()
        os.truncate(path, size)
    oracles.run("mkfs.fat", "-F", "16", "-s", "8", "-n", "E2KDISK", fat)
    oracles.run("mcopy", "-i", fat, files / "big.bin", files / "small.txt", "::")
    oracles.run("mke2fs", "-q", "-t", "ext4", "-d", files, ext)
    table = f"label: dos\nstart={FAT_START // 512}, size={FAT_SIZE // 512}, type=c\n"
    table += f"start={EXT_START // 512}, size={EXT_SIZE // 512}, type=83\n"
    oracles.run("sfdisk", "-q", raw, stdin=table)
    with raw.open("r+b") as disk:
        for path, start in ((fat, FAT_START), (ext, EXT_START)):
            disk.seek(start)
            disk.write(path.read_bytes())
    golden = Golden(raw, folder / "disk.qcow2", folder / "compressed.qcow2", zlib.crc32(big))
    oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, golden.qcow2)
    oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", raw, golden.compressed, timeout=300)
    shutil.rmtree(files)
    for path in (fat, ext):
        path.unlink()
    return golden


def shared_golden(base: Path) -> Golden:
    """The images, built by whichever worker process comes first."""
    folder = base / "uboot-golden"
    ready = folder / "ready"
    with (base / "uboot-golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            ready.write_text(str(build_golden(folder).big_crc))
    return Golden(folder / "disk.raw", folder / "disk.qcow2", folder / "compressed.qcow2", int(ready.read_text()))


@contextmanager
def uboot(cpu: str, *drives: Any, **options: Any) -> Iterator[Machine]:
    """A machine whose U-Boot is at its prompt."""
    build = BUILDS[cpu]
    # Overlays are in the test's own directory, their backing files in the shared one.
    options.setdefault("policy", OpenPolicy.permissive())
    with Machine(build.board, bios=oracles.uboot(build.name), drives=drives, **options) as machine:
        to_prompt(machine)
        yield machine


def to_prompt(machine: Machine) -> None:
    """Stop autoboot."""
    machine.console.expect("Hit any key to stop autoboot")
    machine.console.send(" ")
    machine.console.expect("\n=> ")


def loaded_crc(machine: Machine, cpu: str, file: str, partition: int) -> tuple[int, int]:
    """Size and CRC-32 of a file as U-Boot loads it."""
    address = BUILDS[cpu].load_address
    said = machine.console.command(f"load virtio 0:{partition} {address:#x} {file}")
    size = int(said.split(" bytes read")[0])
    said = machine.console.command(f"crc32 {address:#x} {size:#x}")
    return size, int(said.split("==>")[1], 16)


def read_back(image: Path, folder: Path, format: str = "qcow2") -> Path:
    """The disk's content as a raw file, by qemu-img."""
    raw = folder / f"{image.name}.read-back"
    oracles.qemu_img("convert", "-f", format, "-O", "raw", image, raw)
    return raw


def partition(raw: Path, number: int) -> Path:
    """A copy of one partition, for fsck, mtools and debugfs."""
    start, size = ((FAT_START, FAT_SIZE), (EXT_START, EXT_SIZE))[number - 1]
    path = raw.with_suffix(f".part{number}")
    with raw.open("rb") as disk, path.open("wb") as out:
        disk.seek(start)
        out.write(disk.read(size))
    return path


def assert_filesystems_clean(raw: Path) -> None:
    """Run fsck on both partitions."""
    oracles.run("fsck.fat", "-n", partition(raw, 1))
    oracles.run("e2fsck", "-f", "-n", partition(raw, 2))


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The images of this test run, shared by its worker processes."""
    oracles.require(*NEEDS)
    base = tmp_path_factory.getbasetemp()
    return shared_golden(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
