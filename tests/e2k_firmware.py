"""The host's side of firmware/e2k: runs the programs on the elbrus board, knows what they write, makes boot disks."""

import struct
from dataclasses import dataclass
from pathlib import Path

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.machine.boards.board import Drive
from e2kdisk.machine.boards.boot_block import BootBlock, kernel_image
from e2kdisk.machine.machine import Machine, StopReason
from tests import oracles

FIRMWARE = Path(__file__).resolve().parent.parent / "firmware"
MIB = 1 << 20
MASK = (1 << 64) - 1
STEP = 0x9E37_79B9_7F4A_7C15
READ_COUNT, WRITE_FROM, WRITE_COUNT = 128, 37, 75
"""Sectors that the disk programs read and write: exercise.s."""
SECTOR_1 = bytes(range(256)) * 2
PARTITION = MIB
"""Where the boot partition begins, in bytes."""


def program(name):
    return (FIRMWARE / "images" / f"e2k-{name}.bin").read_bytes()


def kernel(**fields):
    return kernel_image(program("kernel"), BootBlock(**fields))


def checksum(data):
    """memory.s: rotate by one, add the next 64 bits."""
    total = 0
    for (word,) in struct.iter_unpack("<Q", data[: len(data) & -8]):
        total = ((total << 1 | total >> 63) & MASK) + word & MASK
    return f"{total:016x}"


def with_pattern(data):
    """What the disk programs make of a disk's content."""
    first, count = WRITE_FROM * 64, WRITE_COUNT * 64
    words = struct.pack(f"<{count}Q", *(n * STEP & MASK for n in range(first, first + count)))
    return data[: 8 * first] + words + data[8 * (first + count) :]


@dataclass
class Run:
    """What a program has done."""

    text: str
    reason: StopReason
    machine: Machine

    @property
    def lines(self):
        return self.text.splitlines()


def run(bios, image, *, interface="ide", engine=AutoEngine, faults="", ram=16 * MIB, limit=30_000_000, format="qcow2"):
    """Run a program to its end; engine makes one from a scheduler, faults are rules for a FaultNode."""
    io = engine(Scheduler())
    node = io.scheduler.run(Opener(io).open(OpenOptions(str(image), format, cache="unsafe")))
    with (
        Disk(FaultNode(node, faults) if faults else node, engine=io) as disk,
        Machine("elbrus", bios=bios, ram=ram, drives=[Drive(disk, interface)]) as machine,
    ):
        reason = machine.run(limit)
        return Run(machine.console.transcript.replace("\r", ""), reason, machine)


def debugfs(path, *commands):
    oracles.run("debugfs", "-w", "-f", "-", path, stdin="".join(f"{command}\n" for command in commands))


def raw_boot_disk(path, file_system, second=b"", sector_1=SECTOR_1):
    """An MBR by sfdisk with one or two partitions in their places."""
    start, sectors = PARTITION // 512, len(file_system) // 512
    table = f"label: dos\nstart={start}, size={sectors}, type=83, bootable\n"
    if second:
        table += f"start={start + sectors}, size={len(second) // 512}, type=83\n"
    with open(path, "wb") as file:
        file.truncate(PARTITION + len(file_system) + len(second) + MIB)
    oracles.run("sfdisk", "-q", path, stdin=table)
    with open(path, "r+b") as file:
        file.seek(512)
        file.write(sector_1)
        file.seek(PARTITION)
        file.write(file_system + second)
    return path
