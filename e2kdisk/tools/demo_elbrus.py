"""The demo on the elbrus board: firmware of real e2k code boots a kernel from a disk with partition and file system."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from e2kdisk.tools.demo_scene import PASSED, Scene

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine
    from e2kdisk.tools.demo_count import Counts

SECTOR = 512
PARTITION = 1 << 20
"""Where the boot partition begins, in bytes."""
MOST = 8 << 20
"""Bytes of the boot partition at most; the rest of the disk stays empty."""
INITRD_SIZE = 128 << 10
CMDLINE = "console=ttyS0,115200 root=/dev/hda2 demo"
CONF = f"""\
# read by the firmware from the first partition
default=demo
timeout=0

label=demo
    partition=0
    image=/image-demo
    initrd=/initrd-demo
    cmdline={CMDLINE}
"""
MASK = (1 << 64) - 1


def checksum(data: bytes) -> int:
    """That of firmware/e2k/memory.s: rotated left by one, plus the next 64 bits."""
    total = 0
    for (word,) in struct.iter_unpack("<Q", data):
        total = ((total << 1 | total >> 63) & MASK) + word & MASK
    return total


def filler(size: int) -> bytes:
    """Bytes that do not repeat: a multiplicative sequence."""
    return struct.pack(f"<{size // 8}Q", *(n * 0x9E37_79B9_7F4A_7C15 & MASK for n in range(1, size // 8 + 1)))


def partition_table(sectors: int) -> bytes:
    """Sector 0 with one active Linux partition."""
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, PARTITION // SECTOR, sectors)
    return bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa"


class ElbrusScene(Scene):
    """The IDE controller, driven by programmed I/O."""

    TITLE = "e2kdisk demo: Elbrus firmware boots a kernel from a new disk"
    LEAST = 2 << 20
    INTERFACE = "ide"
    CONTROLLER = "ide0"
    DOORBELL = "primary Status/Command"
    SHOWN = "primary "
    AT_WORK = ("primary Data",)
    DIRECTIONS = {"READ SECTOR(S)": "to the guest", "IDENTIFY DEVICE": "to the guest"}  # noqa: RUF012
    DONE = "the kernel has what the host put on the disk: boot block, initrd, sector 1"

    def controller(self) -> str:
        """Scene.controller."""
        return "PCI IDE 1fff:800b, polled, by programmed I/O"

    def content(self) -> str:
        """Scene.content."""
        return "one partition: ext2 with boot.conf, kernel, initrd"

    def guest(self, bios: bytes) -> str:
        """Scene.guest."""
        return f"{len(bios)} bytes of e2k wide instructions, no operating system"

    def make_image(self, image: str, size: int) -> None:
        """A disk as the distributions for Elbrus lay it out, with a kernel that only looks around."""
        from e2kdisk.block.open import open_disk
        from e2kdisk.machine.boards.boot_block import kernel_image
        from e2kdisk.machine.bundled import read_image
        from e2kdisk.qcow2.create import create
        from e2kdisk.tools.ext2 import make_ext2

        files = {
            "boot.conf": CONF.encode(),
            "image-demo": kernel_image(read_image("e2k-kernel.bin")),
            "initrd-demo": filler(INITRD_SIZE),
        }
        file_system = make_ext2(files, min(MOST, size - PARTITION) & -1024, volume_name="BOOT")
        create(image, size)
        with open_disk(image, format="qcow2") as disk:
            disk.pwrite(0, partition_table(len(file_system) // SECTOR) + filler(SECTOR))
            used = len(file_system.rstrip(b"\0"))
            disk.pwrite(PARTITION, file_system[: used + SECTOR - 1 & -SECTOR])

    def verdict(self, machine: Machine, ending: str) -> str:
        """Compare what the kernel says with what is on the disk."""
        lines = machine.console.transcript.splitlines()
        if not lines or machine.fault is not None:
            return f"nothing: {machine.fault or ending}"
        if lines[-1] != "kernel: done":
            return lines[-1]
        said = "\n".join(lines)
        for line in (
            f"kernel: command line: {CMDLINE}",
            f"checksum {checksum(filler(INITRD_SIZE)):016x}",
            f"kernel: sector 1 checksum {checksum(filler(SECTOR)):016x}",
        ):
            if line not in said:
                return f"something else than {line!r}"
        return PASSED

    def protocol(self, counts: Counts) -> tuple[str, str]:
        """Scene.protocol."""
        return "task file", f"{counts.all_requests:,} commands, of up to 8 sectors each"

    def back(self, counts: Counts) -> str:
        """Scene.back."""
        data, status = counts.registers["primary Data"], counts.registers[self.DOORBELL]
        return f"the data in {data:,} words, {status - counts.all_requests:,} looks at the status"
