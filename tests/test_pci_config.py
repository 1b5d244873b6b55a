"""Configuration space keeps PCI's rules: what is constant, what is stored, what a one clears; nothing raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.pci import Bar, Capability, ConfigPorts, Ecam, Identity, PciBridge, PciBus, WiredOr, swizzle
from e2kdisk.devices.pci.header import BRIDGE_HEADER, FUNCTION_HEADER
from e2kdisk.devices.registers import RW, R, Register, RegisterMap
from tests.pci_lab import (
    COMMAND,
    INTX_DISABLE,
    IO,
    MASTER,
    MEMORY,
    STATUS,
    WINDOW,
    Region,
    get,
    make_bus,
    make_function,
    put,
    region_bar,
)

IDENTITY = Identity(
    vendor=0x1FFF,
    device=0x800B,
    class_code=0x0101,
    prog_if=0x8A,
    revision=3,
    subsystem_vendor=0x1111,
    subsystem=0x2222,
)


def register(offset, width=4, **more):
    return Register(offset=offset, name=f"R{offset}", access=RW, width=width, meaning="m", section="s", **more)


def table(*registers, name="own"):
    return RegisterMap(name, *registers)


# -- header -----------------------------------------------------------------------------------------


def test_the_header_says_who_the_function_is():
    bus = make_bus(make_function("ide", identity=IDENTITY, interrupt_pin=2))
    assert get(bus, 1, 0x00) == 0x800B_1FFF
    assert get(bus, 1, 0x08) == 0x0101_8A03
    assert get(bus, 1, 0x0C) == 0
    assert get(bus, 1, 0x2C) == 0x2222_1111
    assert get(bus, 1, 0x3C) == 0x0200
    assert get(bus, 1, STATUS, 2) == 0


def test_every_width_and_alignment_reads_the_same_bytes():
    bus = make_bus(make_function("ide", identity=IDENTITY))
    whole = bytes(get(bus, 1, offset, 1) for offset in range(256))
    for size in (2, 4, 8):
        for offset in range(256):
            expected = whole[offset : offset + size].ljust(size, b"\xff")
            assert get(bus, 1, offset, size).to_bytes(size, "little") == expected


def test_identity_and_unused_registers_ignore_stores():
    bus = make_bus(make_function("ide", identity=IDENTITY))
    before = [get(bus, 1, offset) for offset in range(0, 256, 4)]
    for offset in range(0, 256, 4):
        if offset not in (COMMAND, 0x0C, 0x3C):
            put(bus, 1, offset, 0xFFFFFFFF)
    assert [get(bus, 1, offset) for offset in range(0, 256, 4)] == before


def test_only_the_bits_of_the_command_register_that_exist_are_kept():
    bus = make_bus(make_function())
    put(bus, 1, COMMAND, 0xFFFF, 2)
    assert get(bus, 1, COMMAND, 2) == 0x0507
    put(bus, 1, COMMAND + 1, 0, 1)
    assert get(bus, 1, COMMAND, 2) == 0x0007


def test_errors_in_the_status_register_are_cleared_by_ones_and_nothing_else_is():
    function = make_function("f", capabilities=[Capability(9, table(register(2, 2)))])
    bus = make_bus(function)
    function.config.set(STATUS, 2, 0xF910)
    put(bus, 1, COMMAND, 0x0000_0000)  # a dword store of the command register must not clear them
    assert get(bus, 1, STATUS, 2) == 0xF910
    put(bus, 1, STATUS, 0x2000, 2)
    assert get(bus, 1, STATUS, 2) == 0xD910
    put(bus, 1, STATUS, 0xFFFF, 2)
    assert get(bus, 1, STATUS, 2) == 0x0010


def test_registers_of_the_device_keep_the_bits_that_they_say_and_hear_of_stores():
    heard = []
    own = table(
        register(0x40, 2, reset=0x0300, stored=0x0F0F, write=lambda function, value: heard.append((0x40, value))),
        register(0x44, 4, cleared=0xFF, reset=0xA5, write=lambda function, value: heard.append((0x44, value))),
    )
    function = make_function("f", registers=own)
    bus = make_bus(function)
    put(bus, 1, 0x40, 0xFFFF, 2)
    assert get(bus, 1, 0x40, 2) == 0x0F0F
    put(bus, 1, 0x43, 0x0F << 8, 2)  # the last byte of nothing and the first of the second register
    assert get(bus, 1, 0x44) == 0xA0
    assert heard == [(0x40, 0x0F0F), (0x44, 0xA0)]
    function.reset()
    assert get(bus, 1, 0x40) == 0x0300
    assert function.register_name(0x41) == "R64+1"
    assert function.register_name(0x50) == ""


def test_registers_that_do_not_fit_are_refused_when_the_function_is_made():
    with pytest.raises(ValueError, match="no room for R60"):
        make_function("f", registers=table(register(0x3C)))
    with pytest.raises(ValueError, match="no room for R252"):
        make_function("f", registers=table(register(0xFC, 8)))
    big = Capability(9, table(register(2, 2), *(register(4 * n) for n in range(1, 40)), name="big"))
    with pytest.raises(ValueError, match="no room for big"):
        make_function("f", capabilities=[big, big])


def test_capabilities_are_linked_around_the_devices_own_registers():
    own = table(register(0x48, 4, reset=0xAAAAAAAA))
    caps = [Capability(9, table(register(2, 2, reset=n), register(4, 4, reset=n), name=f"c{n}")) for n in (1, 2, 3)]
    function = make_function("f", registers=own, capabilities=caps)
    bus = make_bus(function)
    assert get(bus, 1, STATUS, 2) & 0x10
    found, pointer = [], get(bus, 1, 0x34, 1)
    while pointer:
        found.append((pointer, get(bus, 1, pointer, 1), get(bus, 1, pointer + 4)))
        pointer = get(bus, 1, pointer + 1, 1)
    assert found == [(0x40, 9, 1), (0x4C, 9, 2), (0x54, 9, 3)]
    assert function.capability_offsets == [0x40, 0x4C, 0x54]


@pytest.mark.parametrize("header", [FUNCTION_HEADER, BRIDGE_HEADER], ids=lambda header: header.name)
def test_the_header_tables_are_complete_and_say_where_each_register_is_defined(header):
    covered = {byte for entry in header for byte in range(entry.offset, entry.offset + entry.width)}
    reserved = set(range(0x35, 0x3C)) - covered
    assert covered | reserved == set(range(0x40))
    for entry in header:
        assert entry.meaning
        assert entry.section.startswith(("PCI 3.0 ", "P2P bridge 1.2 "))
        assert entry.access is (RW if entry.stored or entry.cleared or entry.write else R)


def test_a_bridge_has_bus_numbers_and_windows_that_a_scan_can_set():
    bus = make_bus(PciBridge("bridge", Identity(vendor=0x1FFF, device=0x8000, class_code=0x0604, revision=0x10)))
    assert get(bus, 1, 0x0E, 1) == 1
    put(bus, 1, 0x18, 0x00FF_0100)
    assert get(bus, 1, 0x18) == 0x00FF_0100
    for offset, expected in ((0x1C, 0x0000_F1F1), (0x20, 0xFFF0_FFF0), (0x24, 0xFFF1_FFF1), (0x28, 0xFFFFFFFF)):
        put(bus, 1, offset, 0xFFFFFFFF)
        assert get(bus, 1, offset) & 0xFFFFFFFF == expected
    assert bus.config_read(1, 0, 0, 4) == 0xFFFFFFFF  # nothing is behind it


# -- slots and hosts --------------------------------------------------------------------------------


def test_absent_functions_read_as_ones_and_ignore_stores():
    bus = make_bus(make_function())
    for where in ((0, 0), (0, 9), (0, 255), (1, 8), (255, 255)):
        assert bus.config_read(*where, 0, 4) == 0xFFFFFFFF
        assert bus.config_read(*where, 0, 1) == 0xFF
        bus.config_write(*where, 0, 4, 0)


def test_several_functions_in_a_slot_say_so_and_a_single_one_does_not():
    bus = PciBus(memory=WINDOW)
    for number, devfn in enumerate((0x08, 0x10, 0x12, 0x1A)):
        bus.add(devfn, make_function(f"f{number}"))
    assert [bus.config_read(0, devfn, 0x0E, 1) for devfn in (0x08, 0x10, 0x12, 0x1A)] == [0, 0x80, 0x80, 0x80]
    bus.reset()
    assert bus.config_read(0, 0x10, 0x0E, 1) == 0x80
    for devfn in (0x10, 256, -1):
        with pytest.raises(ValueError, match="is taken, or there is none"):
            bus.add(devfn, make_function("other"))


def test_the_config_ports_reach_every_byte():
    bus = make_bus(make_function("ide", identity=IDENTITY))
    ports = ConfigPorts(bus)
    assert ports.read(4, 4) == 0xFFFFFFFF  # not enabled yet
    ports.write(0, 4, 0xFF00_0803)
    assert ports.read(0, 4) == 0x8000_0800
    assert ports.read(4, 4) == 0x800B_1FFF
    assert [ports.read(4 + byte, 1) for byte in range(4)] == [0xFF, 0x1F, 0x0B, 0x80]
    assert ports.read(6, 2) == 0x800B
    ports.write(0, 4, 0x8000_083C)
    ports.write(4, 1, 0x55)
    assert get(bus, 1, 0x3C, 1) == 0x55
    assert ports.read(0, 1) == 0xFF  # only a dword reaches the address
    ports.write(0, 1, 0)
    ports.write(1, 4, 0)
    assert ports.read(0, 4) == 0x8000_083C
    other = ConfigPorts(bus)
    other.load(ports.save())
    assert other.read(4, 1) == 0x55
    ports.write(0, 4, 0x0000_083C)
    ports.write(4, 1, 0x66)
    assert get(bus, 1, 0x3C, 1) == 0x55
    ports.reset()
    assert ports.read(0, 4) == 0
    with pytest.raises(ValueError, match="version 2"):
        other.load({"version": 2, "address": 0})


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_memory_window_reaches_every_function(mirrored):
    bus = make_bus(make_function("one", identity=IDENTITY), make_function("two"))
    ecam = Ecam(bus, mirrored=mirrored)
    assert ecam.size == 1 << 28
    assert ecam.read(0x8000, 4) == 0x800B_1FFF
    assert ecam.read(0x10002, 2) == 0x5678
    assert ecam.read(0x18000, 4) == 0xFFFFFFFF
    assert ecam.read(0x8100, 4) == (0x800B_1FFF if mirrored else 0xFFFFFFFF)
    assert ecam.read(0x10_8000, 4) == 0xFFFFFFFF  # bus 1
    ecam.write(0x803C, 1, 0x77)
    assert ecam.read(0x803C, 1) == 0x77
    assert ecam.register_name(0x8004) == "one Command"
    assert ecam.register_name(0x18004) == ""
    ecam.reset()
    assert ecam.read(0x803C, 1) == 0


# -- interrupts -------------------------------------------------------------------------------------


def wired(function):
    levels = []
    function.connect(RamMemory(), IrqLine(levels.append))
    return levels


def test_the_interrupt_status_shows_what_the_disabled_pin_does_not():
    function = make_function("f", interrupt_pin=1)
    levels = wired(function)
    bus = make_bus(function)
    function.set_intx(True)
    assert get(bus, 1, STATUS, 2) == 8
    put(bus, 1, STATUS, 0xFFFF, 2)
    assert get(bus, 1, STATUS, 2) == 8  # read-only
    put(bus, 1, COMMAND, INTX_DISABLE, 2)
    assert get(bus, 1, STATUS, 2) == 8
    put(bus, 1, COMMAND, 0, 2)
    function.set_intx(False)
    assert get(bus, 1, STATUS, 2) == 0
    assert levels == [True, False, True, False]


def test_reset_drops_the_interrupt_and_the_regions():
    function = make_function("f", region_bar(0, 0x1000), interrupt_pin=1)
    levels = wired(function)
    bus = make_bus(function)
    put(bus, 1, 0x10, WINDOW[0])
    put(bus, 1, COMMAND, IO | MEMORY | MASTER, 2)
    function.set_intx(True)
    assert function.bus_master
    assert bus.memory.read(0, 4) == 0
    bus.reset()
    assert levels == [True, False]
    assert bus.memory.read(0, 4) == 0xFFFFFFFF
    assert not function.bus_master
    assert [get(bus, 1, offset) for offset in (COMMAND, 0x10)] == [0, 0]


def test_a_shared_wire_is_high_while_anybody_drives_it():
    levels = []
    shared = WiredOr(IrqLine(levels.append))
    functions = [make_function(f"f{number}", interrupt_pin=1) for number in range(3)]
    for function in functions:
        function.connect(RamMemory(), shared.line())
    functions[0].set_intx(True)
    functions[2].set_intx(True)
    functions[0].set_intx(False)
    assert levels == [True]
    functions[2].set_intx(False)
    functions[1].set_intx(True)
    assert levels == [True, False, True]


def test_neighbouring_slots_use_different_wires():
    assert [swizzle(slot << 3, 1) for slot in range(5)] == [0, 1, 2, 3, 0]
    assert [swizzle(3 << 3 | 2, pin) for pin in (1, 2, 3, 4)] == [3, 0, 1, 2]


# -- anything at all --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1))))
def test_no_sequence_of_stores_raises_or_changes_what_is_constant(stores):
    own = table(register(0x40, 4, reset=0x1234_5678, stored=0x00FF_0000, cleared=0xFF))
    function = make_function("f", region_bar(0, 256), identity=IDENTITY, registers=own, interrupt_pin=1)
    bus = make_bus(function)
    constant = {0x00: 0x800B_1FFF, 0x08: 0x0101_8A03, 0x2C: 0x2222_1111, 0x44: 0, 0xFC: 0}
    for offset, size, value in stores:
        put(bus, 1, offset, value & (1 << 8 * size) - 1, size)
        assert 0 <= get(bus, 1, offset, size) < 1 << 8 * size
    assert {offset: get(bus, 1, offset) for offset in constant} == constant
    assert get(bus, 1, 0x40) & 0xFF00FF00 == 0x1200_5600
    assert get(bus, 1, 0x10) & 0xFF == 0
    # What was saved is there again in another function, and constants come from that one, whatever was saved.
    twin = make_function("f", region_bar(0, 256), identity=IDENTITY, registers=own, interrupt_pin=1)
    state = function.save()
    twin.load(state)
    assert twin.config.data == function.config.data
    twin.load(state | {"config": "ff" * 256})
    assert twin.read_config(0, 4) == 0x800B_1FFF


def test_state_of_another_function_or_version_is_refused():
    function = make_function("f")
    state = function.save()
    for wrong in ({"version": 2}, {"function": "g"}, {"config": "00"}):
        with pytest.raises(ValueError, match=r"cannot load|configuration space of"):
            function.load(state | wrong)


def test_a_loaded_function_answers_and_interrupts_as_before():
    function = make_function("f", region_bar(0, 0x1000, mark=7), interrupt_pin=1)
    bus = make_bus(function)
    put(bus, 1, 0x10, WINDOW[0] + 0x5000)
    put(bus, 1, COMMAND, MEMORY, 2)
    function.set_intx(True)
    twin = make_function("f", region_bar(0, 0x1000, mark=7), interrupt_pin=1)
    levels = wired(twin)
    other = make_bus(twin)
    twin.load(function.save())
    assert other.memory.read(0x5000, 4) == 0x0700_0000
    assert levels == [True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 100},
        {"size": 8},
        {"size": 2, "space": "io"},
        {"index": 6},
        {"index": 5, "wide": True},
        {"size": 1 << 32},
        {"space": "io", "wide": True},
    ],
)
def test_impossible_regions_are_refused(wrong):
    arguments = {"index": 0, "size": 256, "registers": Region("r", 256)} | wrong
    with pytest.raises(ValueError, match="BAR"):
        Bar(**arguments)
