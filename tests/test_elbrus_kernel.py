"""A kernel that the Elbrus board starts by itself: raw with its boot block, or ELF."""

import pytest

from e2kdisk import Machine, UsageError
from e2kdisk.machine.boards.boot_block import ENTRY, BootBlock, kernel_image
from e2kdisk.machine.boards.kernel import DEFAULT_BASE
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.machine import StopReason
from tests.elbrus_lab import SERIAL, elf, peek

pytestmark = pytest.mark.guest

FIRST_WORD = """
    ldb [r1 + 0x58] -> r2       # of the command line
    ldd [r1 + 0x38] -> r3       # serial port
    ldd [r1 + 0xd8 + 8] -> r4   # size of the first bank
stop: branch stop
"""


def run(kernel, **options):
    """A machine after this kernel has run."""
    with Machine("elbrus", kernel=kernel, ram=32 << 20, **options) as machine:
        assert machine.run() is StopReason.HALTED, machine.fault
        return machine


def test_a_raw_kernel_gets_its_boot_block_completed():
    for base in (0, 0x80_0000):
        at = base or DEFAULT_BASE
        code = assemble(FIRST_WORD, base=at + ENTRY).code
        machine = run(kernel_image(code, BootBlock(kernel_base=base, cmdline="own")), cmdline="root=/dev/hda3")
        assert machine.cpu.read_register("r1") == at
        assert [machine.cpu.read_register(name) for name in ("r0", "r2", "r3", "r4")] == [0, ord("r"), SERIAL, 32 << 20]
        assert run(kernel_image(code, BootBlock(kernel_base=base, cmdline="own"))).cpu.read_register("r2") == ord("o")


def test_an_elf_kernel_is_placed_segment_by_segment_and_zeros_follow():
    code = assemble(FIRST_WORD, base=0x10_0008).code
    file = elf([(0x10_0000, bytes(8) + code, 0x1000), (0x20_0000, b"data", 8)], 0x10_0008)
    with Machine("elbrus", kernel=file, cmdline="x", ram=32 << 20) as machine:
        machine.board.ram.view[0x20_0004] = 0xFF
        machine.reset()
        assert peek(machine, 0x20_0000) == int.from_bytes(b"data", "little")
        assert machine.run() is StopReason.HALTED
        assert [machine.cpu.read_register(name) for name in ("r2", "r3")] == [ord("x"), SERIAL]


@pytest.mark.parametrize(
    ("kernel", "what"),
    [
        (b"text", "kernel: neither ELF nor an image with a boot block (boot block: 4 bytes: a page of 4096 is needed)"),
        (BootBlock().pack(), "kernel: 4096 bytes end before its entry at 0x16000"),
        (elf([], 0)[:40], "kernel: the ELF header is cut off"),
        (elf([], 0, machine=62), "kernel: ELF for machine 62; e2k is 175"),
        (elf([(0, b"12345678", 8)], 0)[:100], "kernel: 1 program headers at 0x40 do not fit into 100 bytes"),
        (elf([(0, b"12345678", 8)], 0)[:-1], "kernel: segment 0 has 8 bytes at 0x78: they are not in the file"),
        (elf([(0, b"1", 1 << 60)], 0), f"{(1 << 60) - 1} bytes at 0x1 do not fit into 33554432 bytes of RAM"),
        (elf([(1 << 63, b"1", 1)], 0), "1 bytes at 0x8000000000000000 do not fit into 33554432 bytes of RAM"),
    ],
)
def test_what_is_no_kernel_is_refused_in_one_line(kernel, what):
    with pytest.raises(UsageError) as caught:
        run(kernel)
    assert str(caught.value) == what


def test_other_boards_leave_kernels_to_their_firmware():
    with pytest.raises(UsageError, match="virt-arm64 loads no kernel"):
        Machine("virt-arm64", kernel=b"x")
