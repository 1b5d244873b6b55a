"""The Elbrus boot firmware: from the MBR through ext2 and boot.conf to a kernel; what is wrong is said in one line."""

import random
import struct
from functools import cache

import pytest

from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.machine.boards.boot_block import ENTRY, BootBlock, kernel_image
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.machine import Machine, StopReason
from e2kdisk.tools.ext2 import make_ext2
from tests import oracles
from tests.e2k_firmware import (
    FIRMWARE,
    MIB,
    PARTITION,
    SECTOR_1,
    checksum,
    debugfs,
    kernel,
    program,
    raw_boot_disk,
    run,
)

pytestmark = pytest.mark.guest
slow = pytest.mark.slow
TOOLS = pytest.mark.needs("qemu-utils", "e2fsprogs", "fdisk")

CONF = """\
# written by nobody in particular
default=auto
timeout=3

label=other
    image=/none
label=auto
\tpartition=0
    image=/image-6.1.0
    initrd=/initrd-6.1.0.img
    cmdline=console=ttyS0,115200 console=tty0 root=UUID=e2e2 a=b  \r
"""
CMDLINE = "console=ttyS0,115200 console=tty0 root=UUID=e2e2 a=b"
INITRD = random.Random(6).randbytes(300_001)


def assert_booted(done, *, cmdline=CMDLINE, initrd=INITRD, base=0x40_0000, size=None):
    assert done.reason is StopReason.POWER_OFF, (done.text, done.machine.fault)
    size = len(kernel()) if size is None else size
    expected = [
        f"kernel: command line: {cmdline}",
        "kernel: RAM 0x000000000+0x01000000",
        f"kernel: image 0x{base:09x}+0x{size:08x}",
        "kernel: console 0x080001000+0x00000004",
    ]
    if initrd:
        at = base + size + 0x1FFF & ~0xFFF
        expected += [f"kernel: initrd 0x{at:09x}+0x{len(initrd):08x} checksum {checksum(initrd)}"]
    expected += [f"kernel: sector 1 checksum {checksum(SECTOR_1)}", "kernel: done"]
    assert done.lines[done.lines.index(f"boot: entry 0x{base + ENTRY:08x}") + 1 :] == expected


def ext2(tmp_path, files, *options, size=64 * MIB):
    """A file system as an administrator makes it."""
    path = tmp_path / "boot.ext2"
    with open(path, "wb") as file:
        file.truncate(size)
    oracles.run("mke2fs", "-q", "-t", "ext2", "-F", *options, path)
    commands = []
    for number, (name, content) in enumerate(files.items()):
        (tmp_path / f"file{number}").write_bytes(content)
        folder = name.rpartition("/")[0]
        commands += [f"mkdir {folder}"] if folder else []
        commands += [f"write {tmp_path}/file{number} {name}"]
    debugfs(path, *commands)
    return path.read_bytes()


@TOOLS
@pytest.mark.parametrize(
    ("size", "options"),
    [
        pytest.param(64 * MIB, ("-b", "4096"), marks=slow),
        (24 * MIB, ("-b", "1024")),  # three block groups
        pytest.param(8 * MIB, ("-b", "2048"), marks=slow),
        (8 * MIB, ("-b", "1024", "-I", "128", "-r", "0")),
    ],
)
def test_a_disk_as_the_distributions_lay_it_out_boots(size, options, tmp_path, assert_clean):
    files = {"boot.conf": CONF.encode(), "image-6.1.0": kernel(), "initrd-6.1.0.img": INITRD}
    root = ext2(tmp_path, {}, "-L", "ROOT", size=2 * MIB)
    disk = raw_boot_disk(tmp_path / "raw", ext2(tmp_path, files, *options, size=size), root)
    oracles.qemu_img("convert", "-c", "-O", "qcow2", disk, tmp_path / "base.qcow2")
    image = oracles.create_image(tmp_path / "disk.qcow2", backing="base.qcow2")
    done = run(program("boot"), image)
    assert done.lines[:4] == [
        "e2kdisk boot",
        "boot: label auto",
        f"boot: kernel /image-6.1.0, {len(kernel())} bytes at 0x00400000",
        f"boot: initrd /initrd-6.1.0.img, {len(INITRD)} bytes at 0x{0x401FFF + len(kernel()) & ~0xFFF:08x}",
    ]
    assert_booted(done)
    assert_clean(image)


def mbr(*partitions):
    """Sector 0; a partition is (flag, type, first sector, sectors)."""
    table = b"".join(struct.pack("<B3xB3xII", *partition) for partition in partitions)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


LINUX, FIRST = 0x83, PARTITION // 512


def small_disk(tmp_path, file_system, sector_0=None):
    """The same without other programs."""
    if sector_0 is None:
        sector_0 = mbr((0x80, LINUX, FIRST, len(file_system) // 512))
    path = tmp_path / "small.raw"
    path.write_bytes((sector_0 + SECTOR_1).ljust(PARTITION, b"\0") + file_system)
    return path


@cache
def file_system(conf=CONF, image=None, block_size=1024):
    files = {
        "boot.conf": conf.encode(),
        "image-6.1.0": kernel() if image is None else image,
        "initrd-6.1.0.img": INITRD,
    }
    return make_ext2(files, 4 * MIB, block_size=block_size)


def boot(path, **more):
    return run(program("boot"), path, format="raw", **more)


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "late"])
@pytest.mark.parametrize("kind", ["plain", "compressed", "backing", "snapshot"])
def test_every_kind_of_image_boots_and_stays_as_it_was(kind, late, tmp_path, assert_clean):
    raw = small_disk(tmp_path, file_system())
    image = tmp_path / "disk.qcow2"
    if kind == "backing":
        oracles.create_image(image, backing=raw.name, backing_format="raw")
    else:
        oracles.qemu_img("convert", *(["-c"] if kind == "compressed" else []), "-O", "qcow2", raw, image)
    if kind == "snapshot":
        oracles.qemu_img("snapshot", "-c", "before", image)
    dice = random.Random(9)
    engine = {"engine": lambda s: SimulatedEngine(s, lambda calls: dice.randrange(len(calls)))} if late else {}
    assert_booted(run(program("boot"), image, **engine))
    assert_clean(image)
    oracles.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, image)


def plain_conf(**keys):
    return "default=a\nlabel=a\n" + "".join(f"{key}={value}\n" for key, value in keys.items())


@pytest.mark.parametrize(
    ("conf", "cmdline"),
    [
        (plain_conf(image="/image-6.1.0"), ""),
        (plain_conf(image="image-6.1.0", cmdline="x" * 127), "x" * 127),
        (plain_conf(image="/image-6.1.0", cmdline="y" * 128), "y" * 128),
        (plain_conf(image="/image-6.1.0", cmdline="z" * 511), "z" * 511),
        ("label=b\nimage=/none\n\n  \t\r\n#label=a\n" + "default=a\n", None),
        ("  default = a  \n\tlabel =\ta\n # no\n image =  /image-6.1.0\ncmdline = a # b", "a # b"),
        ("default=a\ncmdline=global\nlabel=b\ncmdline=b\nlabel=a\nimage=/image-6.1.0\nlabel=c\ncmdline=c", ""),
    ],
)
def test_boot_conf(conf, cmdline, tmp_path):
    done = boot(small_disk(tmp_path, file_system(conf)))
    if cmdline is None:  # default= stands in a section, where it means nothing
        assert done.lines[-1] == "boot: /boot.conf does not say default="
    else:
        assert_booted(done, cmdline=cmdline, initrd=b"")


def test_a_kernel_in_a_directory_of_another_partition(tmp_path):
    conf = plain_conf(partition=2, image="/boot/e2k/image", cmdline="second")
    first = make_ext2({"boot.conf": conf.encode()}, MIB)
    second = make_ext2({"boot/e2k/image": kernel(), "boot.conf": b"nonsense"}, 2 * MIB)
    partitions = [(0, 0x82, 1, 1), (0, LINUX, FIRST, MIB // 512), (0, LINUX, FIRST + MIB // 512, 2 * MIB // 512)]
    assert_booted(boot(small_disk(tmp_path, first + second, mbr(*partitions))), cmdline="second", initrd=b"")


def test_the_image_says_where_it_belongs(tmp_path):
    source = (FIRMWARE / "e2k/kernel.s").read_text().replace(".org 0x0041_6000", ".org 0x0081_6000")
    moved = assemble(source, file=str(FIRMWARE / "e2k/kernel.s")).code
    conf = plain_conf(image="/image-6.1.0")
    image = kernel_image(moved, BootBlock(kernel_base=0x80_0000))
    done = boot(small_disk(tmp_path, file_system(conf, image)))
    assert_booted(done, cmdline="", initrd=b"", base=0x80_0000, size=len(image))


def test_without_a_boot_block_from_the_board_it_takes_16_mib_for_granted(tmp_path):
    nothing = assemble("addd 0, 0 -> r1", base=0x1_0000_0000).code
    moved = (FIRMWARE / "e2k/boot.s").read_text().replace('.include "start.s"', 'addd 0, 0 -> r1\n.include "start.s"')
    bios = assemble(moved, file=str(FIRMWARE / "e2k/boot.s")).code
    assert bios.startswith(nothing)
    assert_booted(run(bios, small_disk(tmp_path, file_system()), format="raw", ram=32 * MIB))


SHORT = b"\x86\x80".ljust(ENTRY, b"\0")
CONF_MISTAKES = {
    "": "boot: /boot.conf does not say default=",
    "default=a\n": "boot: a: /boot.conf has no such label",
    "default=a\nlabel=b\n": "boot: a: /boot.conf has no such label",
    "default=a\nlabel=a\n\n what is this\n": "boot: /boot.conf, line 4: neither key=value nor a comment",
    "default=a\nlabel=a\n": "boot: a: /boot.conf names no image",
    plain_conf(image="/none"): "boot: /none: no such file",
    plain_conf(image="/none/image"): "boot: /none/image: no such file",
    plain_conf(image="/boot.conf/image"): "boot: /boot.conf/image: no such file",
    plain_conf(image="/lost+found"): "boot: /lost+found: not a regular file",
    plain_conf(image="/"): "boot: /: not a regular file",
    plain_conf(image="/boot.conf"): "boot: /boot.conf: too short for a kernel image",
    plain_conf(image="/initrd-6.1.0.img"): "boot: /initrd-6.1.0.img: not a kernel image: its boot block is not signed",
    plain_conf(image="/image-6.1.0", initrd="/none"): "boot: /none: no such file",
    plain_conf(image="/image-6.1.0", cmdline="x" * 512): "boot: the command line has more than 511 characters",
    plain_conf(image="/image-6.1.0", partition="0x1"): "boot: 0x1: not the number of a partition",
    plain_conf(image="/image-6.1.0", partition=""): "boot: : not the number of a partition",
    plain_conf(image="/image-6.1.0", partition=1): "boot: partition 1: not in the MBR",
    plain_conf(image="/image-6.1.0", partition=4): "boot: partition 4: the MBR has partitions 0 to 3",
    "#" * 65536: "boot: /boot.conf: does not fit the memory",
}


@pytest.mark.parametrize("conf", CONF_MISTAKES, ids=range(len(CONF_MISTAKES)))
def test_a_boot_conf_that_cannot_be_followed(conf, tmp_path):
    done = boot(small_disk(tmp_path, file_system(conf)))
    assert (done.lines[-1], done.reason) == (CONF_MISTAKES[conf], StopReason.HALTED)


def test_no_boot_conf(tmp_path):
    done = boot(small_disk(tmp_path, make_ext2({"boot/boot.conf": CONF.encode()}, MIB)))
    assert (done.lines[-1], done.reason) == ("boot: /boot.conf: no such file", StopReason.HALTED)


GOOD = (0x80, LINUX, FIRST, 8192)
MBR_MISTAKES = {
    bytes(512): "boot: sector 0 has no signature 0xaa55",
    mbr(): "boot: no partition is active, and none has type 0x83",
    mbr((0, 0x0C, FIRST, 8192), (0x80, 0, FIRST, 8192)): "boot: no partition is active, and none has type 0x83",
    mbr((0x80, LINUX, FIRST, 8193)): "boot: partition 0: reaches behind the end of the disk",
    mbr((0, 0x0C, 1, 1), (0x80, LINUX, FIRST, 0xFFFF_FFFF)): "boot: partition 1: reaches behind the end of the disk",
    mbr((0, LINUX, FIRST, 8192), (0x80, LINUX, 1, 8)): "boot: partition 1: not an ext2 file system",
    mbr((0x80, LINUX, FIRST, 3)): "boot: partition 0: a block behind its end",
}


@pytest.mark.parametrize("sector_0", MBR_MISTAKES, ids=range(len(MBR_MISTAKES)))
def test_a_partition_table_that_cannot_be_right(sector_0, tmp_path):
    done = boot(small_disk(tmp_path, file_system(), sector_0))
    assert (done.lines[-1], done.reason) == (MBR_MISTAKES[sector_0], StopReason.HALTED)


def with_superblock(offset, layout, value):
    changed = bytearray(file_system())
    struct.pack_into(f"<{layout}", changed, 1024 + offset, value)
    return bytes(changed)


SUPERBLOCK_MISTAKES = [
    (0x38, "H", 0xEF54, "not an ext2 file system"),
    (0x18, "I", 3, "ext2 blocks over 4 KiB"),
    (0x18, "I", 1 << 31, "ext2 blocks over 4 KiB"),
    (0x60, "I", 0x42, "an ext2 with features that only ext3 or ext4 has"),
    (0x28, "I", 0, "a superblock that cannot be right"),
    (0x58, "H", 0, "a superblock that cannot be right"),
    (0x58, "H", 192, "a superblock that cannot be right"),
    (0x58, "H", 2048, "a superblock that cannot be right"),
    (0x00, "I", 1, "an inode that is not there"),
    (0x04, "I", 2, "a block beyond its end"),
]


@pytest.mark.parametrize(("offset", "layout", "value", "complaint"), SUPERBLOCK_MISTAKES)
def test_a_superblock_that_cannot_be_right(offset, layout, value, complaint, tmp_path):
    done = boot(small_disk(tmp_path, with_superblock(offset, layout, value)))
    assert (done.lines[-1], done.reason) == (f"boot: partition 0: {complaint}", StopReason.HALTED)


def test_ext4_is_refused(tmp_path):
    oracles.require("e2fsprogs")
    path = tmp_path / "ext4"
    with open(path, "wb") as file:
        file.truncate(8 * MIB)
    oracles.run("mke2fs", "-q", "-t", "ext4", "-F", path)
    done = boot(small_disk(tmp_path, path.read_bytes()))
    assert done.lines[-1] == "boot: partition 0: an ext2 with features that only ext3 or ext4 has"


KERNEL_MISTAKES = {
    SHORT: "too short for a kernel image",
    SHORT + bytes(8): "not a kernel image: its boot block is not signed",
    kernel(kernel_base=0x10_0000): "wants a place that is not free",
    kernel(kernel_base=0x40_0800): "wants a place that is not free",
    kernel(kernel_base=0x100_0000): "does not fit the memory",
    kernel(kernel_base=0xFF_F000): "does not fit the memory",
    kernel(kernel_base=(1 << 64) - 4096): "does not fit the memory",
}


@pytest.mark.parametrize("image", KERNEL_MISTAKES, ids=range(len(KERNEL_MISTAKES)))
def test_an_image_that_is_no_kernel_for_this_machine(image, tmp_path):
    done = boot(small_disk(tmp_path, file_system(CONF, image)))
    assert (done.lines[-1], done.reason) == (f"boot: /image-6.1.0: {KERNEL_MISTAKES[image]}", StopReason.HALTED)


def test_a_kernel_that_comes_back_is_said(tmp_path):
    image = kernel_image(assemble("return ctpr3\nct ctpr3").code)
    done = boot(small_disk(tmp_path, file_system(CONF, image)))
    assert (done.lines[-1], done.reason) == ("boot: the kernel has come back", StopReason.HALTED)


def test_no_disk(tmp_path):
    with Machine("elbrus", bios=program("boot"), ram=16 * MIB) as machine:
        assert machine.run(1_000_000) is StopReason.HALTED
        assert machine.console.transcript.splitlines()[-1] == "no IDE controller on the PCI bus"


@pytest.mark.parametrize(
    ("sector", "line"),
    [
        (0, "boot: read of sector 0: disk error, status 0x41, error 0x40"),
        (FIRST + 2, f"boot: read of sector {FIRST + 2}: disk error, status 0x41, error 0x40"),
        (1, "kernel: read of sector 1: disk error, status 0x41, error 0x40"),
    ],
)
def test_a_disk_error_is_said_with_its_sector(sector, line, tmp_path):
    done = boot(small_disk(tmp_path, file_system()), faults=f"read sector {sector}: EIO")
    assert (done.lines[-1], done.reason) == (line, StopReason.HALTED)


MAP = """
    .org 0x1_0000_0000
    .include "start.s"
    .include "ide.s"
    .include "ext2.s"
.routine main
    { setwd wsz=FRAME; disp ctpr1, ide_find }
    call ctpr1, wbs=ARGS
    disp ctpr1, ext2_open
    call ctpr1, wbs=ARGS
    { addd 0, "/sparse" -> r16; disp ctpr1, ext2_lookup }
    call ctpr1, wbs=ARGS
    addd 0, indices -> r8
.next:
    { ldd [r8] -> r9; addd r8, 8 -> r8 }
    cmpedb r9, 0 -> p0
    { branch .done ? p0; addd 0, BUFFER -> r16 }
    { addd r9, 0 -> r17; addd 0, 1 -> r18; disp ctpr1, ext2_read }
    call ctpr1, wbs=ARGS
    addd 0, BUFFER -> r10
    { ldd [r10] -> r16; addd 0, 16 -> r17; disp ctpr1, print_hex }
    call ctpr1, wbs=ARGS
    { addd 0, ' ' -> r16; disp ctpr1, put }
    call ctpr1, wbs=ARGS
    branch .next
.done:
    return ctpr3
    ct ctpr3
.routine volume_damaged
    branch fail
.routine volume_read                    # of a disk without partitions
    { setwd wsz=FRAME; addd r0, 0 -> r16; addd r1, 0 -> r17; addd r2, 0 -> r18; disp ctpr1, ide_read }
    call ctpr1, wbs=ARGS
    return ctpr3
    ct ctpr3
    .align 8
"""


@TOOLS
@pytest.mark.parametrize("block_size", [1024, pytest.param(2048, marks=slow), 4096])
def test_blocks_are_found_at_every_depth_and_holes_are_zeros(block_size, tmp_path):
    per = block_size // 4
    edges = [
        1,
        11,
        12,
        12 + per - 1,
        12 + per,
        12 + per + per**2 - 1,
        12 + per + per**2,
        12 + per + per**2 + 5 * per + 1,
    ]
    path = tmp_path / "fs"
    with open(path, "wb") as file:
        file.truncate(16 * MIB)
    oracles.run("mke2fs", "-q", "-t", "ext2", "-b", block_size, "-F", path)
    with open(tmp_path / "sparse", "wb") as file:
        for index in edges:
            file.seek(index * block_size)
            file.write(struct.pack("<Q", index * 0x0101_0101) * (block_size // 8))
    debugfs(path, f"write {tmp_path}/sparse sparse")
    asked = [*edges, *(index + 1 for index in edges if index + 1 not in edges)][: 2 * len(edges)]
    text = MAP + "indices: .dword " + ", ".join(map(str, [*asked, 0]))
    bios = assemble(text, file=str(FIRMWARE / "e2k/map.s")).code
    done = run(bios, path, format="raw")
    assert [int(word, 16) for word in done.text.split()] == [
        index * 0x0101_0101 if index in edges else 0 for index in asked
    ]


TABLES = [(1024, 1024 + 104), (2048, 2048 + 32), (5 * 1024, 8 * 1024), (37 * 1024, 50 * 1024)]
"""Superblock, descriptor, the first inodes; directories, boot.conf, the beginning of the kernel."""


@slow
@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_in_the_tables_ends_in_a_boot_or_a_line(seed, tmp_path):
    dice = random.Random(seed)
    damaged = bytearray(file_system(plain_conf(image="/image-6.1.0")))
    for _ in range(dice.choice([1, 5, 50])):
        first, end = dice.choice(TABLES)
        damaged[dice.randrange(first, end)] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
    done = boot(small_disk(tmp_path, bytes(damaged)), limit=60_000_000)
    assert done.reason in (StopReason.POWER_OFF, StopReason.HALTED), (done.lines[-1:], done.machine.fault)
    assert done.lines[-1].startswith(("boot: ", "kernel: "))
