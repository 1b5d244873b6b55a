"""A boot test: an unmodified U-Boot finds the file that we have put on its disk.

pip install e2kdisk[test]; apt-get install u-boot-qemu
pytest test_guest_boot.py
"""

import struct

import pytest

# Where the Debian package is not installed these tests are skipped, and the report names the package.
pytestmark = pytest.mark.requires_firmware("u-boot-qemu")


@pytest.fixture(scope="session")
def golden_images(tmp_path_factory):
    """The disks of the fixture `booted`. They are made once; each test writes to an overlay of its own."""
    partition = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 4096)  # type Linux, 2 MiB from 1 MiB on
    image = tmp_path_factory.mktemp("golden") / "disk.raw"
    image.write_bytes((bytes(446) + partition + bytes(48) + b"\x55\xaa").ljust(4 << 20, b"\0"))
    return [image]


@pytest.mark.e2k_boot("virt-arm64")  # U-Boot's prompt is the default; `steps` and `prompt` are for other firmware
def test_uboot_lists_the_partition(console):
    console.command("virtio scan")
    assert "4096" in console.command("part list virtio 0")


@pytest.mark.e2k_boot("virt-arm64")  # not booted again: the same state is restored, with a fresh overlay
def test_uboot_writes_and_reads_back(booted, console, trace):
    console.command("virtio scan")
    console.command("mw.b 0x44000000 0x5a 0x200; virtio write 0x44000000 0x800 1")
    console.command("virtio read 0x44001000 0x800 1")
    assert "were the same" in console.command("cmp.b 0x44000000 0x44001000 0x200")
    assert booted.disks[0].pread(0x800 * 512, 512) == b"\x5a" * 512
    # The trace has every register access and every request.
    assert any(event.fields["type"] == "OUT" for event in trace.select("request"))


def test_a_machine_put_together_by_hand(machine, disk_image):
    """`machine` takes what e2kdisk.Machine takes, and closes it; its console is in the report of a failure."""
    disk = disk_image(1 << 20, fill=b"no partitions here")
    riscv = machine("virt-riscv64", bios="/usr/lib/u-boot/qemu-riscv64/u-boot.bin", drives=[disk])
    riscv.console.expect("Hit any key", timeout=20)  # seconds of the guest's time: a slow host changes nothing
    riscv.console.send(" ")
    riscv.console.expect("=> ", timeout=5)
