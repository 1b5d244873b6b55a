"""The boot info block: where Linux/e2k finds its fields, and what does not fit is refused."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.boot_block import ENTRY, PLACES, SIZE, Bank, BootBlock, kernel_image

BANKS = (Bank(0, 0x1000_0000), Bank(0x4_0000_0000, 0x4000_0000))


def at(page, offset, layout):
    return struct.unpack_from(f"<{layout}", page, offset)[0]


def test_the_fields_lie_where_the_kernel_looks():
    page = BootBlock(
        cmdline="root=/dev/hda3",
        banks=BANKS,
        busy=(Bank(0x9000, 0x1000),),
        serial_base=0x8000_1000,
        kernel_base=0x40_0000,
        ramdisk_base=0x80_0000,
        ramdisk_size=0x1234,
        boot_uuid=bytes(range(16)),
    ).pack()
    assert len(page) == SIZE == 0x1000
    assert (at(page, 0, "H"), at(page, 0xFFE, "H")) == (0x8086, 0xAA55)
    assert (at(page, 7, "B"), at(page, 0x2C, "H"), at(page, 0x2E, "H"), at(page, 0x28, "H")) == (2, 1, 1, 1)
    assert page[0x58:0x68] == b"root=/dev/hda3\0\0"
    assert struct.unpack_from("<4Q", page, 0xD8) == (*BANKS[0], *BANKS[1])
    assert struct.unpack_from("<2Q", page, 0x2D8) == (0x9000, 0x1000)
    assert [at(page, offset, "Q") for offset in (0x08, 0x18, 0x20, 0x38)] == [0x40_0000, 0x80_0000, 0x1234, 0x8000_1000]
    assert page[0x538:0x540] == b"E2KBIOS\0"
    assert (page[0x5C2], page[0xF5B], page[0xD78:0xD88]) == (7, 1, bytes(range(16)))


def test_a_command_line_of_128_bytes_goes_to_the_extended_place():
    page = BootBlock(cmdline="x" * 127).pack()
    assert page[0x58:0xD8] == b"x" * 127 + b"\0"
    page = BootBlock(cmdline="y" * 128).pack()
    assert page[0x58:0x6E] == b"KERNEL_ARGS_STRING_EX\0"
    assert page[0x5C3 : 0x5C3 + 512] == b"y" * 128 + bytes(384)
    assert BootBlock.parse(page).cmdline == "y" * 128


def test_version_2_has_a_pointer_to_the_command_line_and_no_bios_signature():
    page = BootBlock(version=2, cmdline_pointer=0x5678).pack()
    assert (page[0xF5B], at(page, 0x510, "Q"), page[0x538:0x540]) == (2, 0x5678, bytes(8))
    assert at(BootBlock(cmdline_pointer=0x5678).pack(), 0x510, "Q") == 0


def test_no_two_fields_overlap():
    used = sorted((place.offset, place.offset + place.layout.size) for place in PLACES.values())
    used += [(0x58, 0xD8), (0xD8, 0x2D8), (0x2D8, 0x318), (0x5C3, 0x7C3)]
    used.sort()
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(used))


ranges = st.builds(Bank, st.integers(0, (1 << 64) - 1), st.integers(1, (1 << 64) - 1))


@given(
    cmdline=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=120),
    banks=st.lists(ranges, max_size=4),
    busy=st.lists(ranges, max_size=4),
    serial=st.integers(0, (1 << 64) - 1),
)
def test_what_is_packed_is_parsed_again(cmdline, banks, busy, serial):
    block = BootBlock(cmdline=cmdline, banks=tuple(banks), busy=tuple(busy), serial_base=serial)
    block.mac, block.boot_uuid = bytes(range(6)), bytes(range(16))
    assert BootBlock.parse(block.pack()) == block


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"cmdline": "z" * 512}, "command line of 512 bytes: 511 at most, no NUL"),
        ({"cmdline": "a\0b"}, "command line of 3 bytes: 511 at most, no NUL"),
        ({"banks": (Bank(0, 1),) * 5}, "5 banks: 4 at most"),
        ({"banks": (Bank(0, 0),)}, "banks: 0x0 bytes at 0x0"),
        ({"version": 3}, "version 3: must be 1 or 2"),
        ({"serial_base": 1 << 64}, "serial_base 0x10000000000000000 does not fit 8 bytes"),
        ({"board_name": b"n" * 17}, "board_name of 17 bytes: 16 at most"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields, complaint):
    with pytest.raises(UsageError) as error:
        BootBlock(**fields).pack()
    assert str(error.value) == f"boot block: {complaint}"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (bytes(100), "100 bytes: a page of 4096 is needed"),
        (bytes(SIZE), "signature is 0x0, not 0x8086"),
        (b"\x86\x80" + bytes(SIZE - 2), "end_mark is 0x0, not 0xaa55"),
    ],
)
def test_a_page_that_is_no_boot_block_is_refused(page, complaint):
    with pytest.raises(UsageError, match=complaint):
        BootBlock.parse(page)


def test_a_kernel_image_is_its_block_and_its_code_at_the_entry():
    image = kernel_image(b"code", BootBlock(kernel_base=0x40_0000))
    assert image[ENTRY:] == b"code"
    assert BootBlock.parse(image).kernel_size == len(image) == 0x16004
