"""Register tables decode, name and document what a device has."""

import pytest

from e2kdisk.devices.registers import RW, R, Register, RegisterMap, W
from e2kdisk.devices.virtio.blk_config import CONFIG
from e2kdisk.devices.virtio.mmio_registers import LEGACY, MODERN
from e2kdisk.devices.virtio.pci_registers import COMMON, LEGACY_WITH_VECTORS


def register(offset, name="X", width=4, **more):
    return Register(offset=offset, name=name, access=RW, width=width, meaning="m", section="s", **more)


TRANSPORTS = [LEGACY, MODERN, COMMON, LEGACY_WITH_VECTORS]
each_table = pytest.mark.parametrize("table", [*TRANSPORTS, CONFIG], ids=lambda table: table.name)


@each_table
def test_every_register_says_what_it_means_and_where_it_is_defined(table):
    for entry in table:
        assert entry.name
        assert entry.meaning
        assert entry.section.startswith("VIRTIO 1.2 ")


@each_table
def test_names_are_unique_and_no_two_registers_overlap(table):
    assert len({entry.name for entry in table}) == len(list(table))
    covered = [byte for entry in table for byte in range(entry.offset, entry.offset + entry.width)]
    assert len(covered) == len(set(covered))


@pytest.mark.parametrize("table", TRANSPORTS, ids=lambda table: table.name)
def test_what_can_be_read_has_a_value_and_what_can_be_written_does_something(table):
    for entry in table:
        assert (entry.write is not None) == (entry.access in (W, RW)), entry.name
        if entry.access is W:
            assert entry.read is None, entry.name


def test_overlapping_registers_are_refused_when_the_table_is_made():
    with pytest.raises(ValueError, match="B overlaps"):
        RegisterMap("device", register(0, "A", width=8), register(4, "B"))


def test_a_name_inside_a_wide_register_says_how_far():
    table = RegisterMap("device", register(8, "Wide", width=8), register(0, "Low"))
    assert [table.name_of(offset) for offset in (0, 8, 12, 16, 4)] == ["Low", "Wide", "Wide+4", "", ""]


def test_an_image_is_the_little_endian_structure_with_zeros_in_its_holes():
    table = RegisterMap(
        "device", register(0, "A", width=2, reset=0x1234), register(4, "B", width=4, read=lambda device: device + 1)
    )
    assert table.image(0xAABBCC00) == bytes.fromhex("34120000 01ccbbaa")


def test_the_documentation_has_a_line_for_each_register():
    lines = MODERN.document().splitlines()
    assert len(lines) == 2 + len(list(MODERN))
    assert "| 0x050 | QueueNotify | 4 | write |" in MODERN.document()


def test_access_kinds_are_told_apart():
    assert len({R, W, RW}) == 3
