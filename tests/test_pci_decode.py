"""Regions answer where the guest has put them, at any time, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.devices.pci import PciBus
from e2kdisk.machine.bus import Bus
from e2kdisk.machine.trace import Tracer
from tests.pci_lab import COMMAND, IO, MEMORY, WINDOW, Region, get, make_bus, make_function, put, region_bar

BASE = WINDOW[0]


def place(bus, slot, address, *, bar=0, command=IO | MEMORY):
    put(bus, slot, 0x10 + 4 * bar, address & 0xFFFFFFFF)
    put(bus, slot, COMMAND, command, 2)


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ({}, 0x1000, 0xFFFFF000, None),
        ({}, 16, 0xFFFFFFF0, None),
        ({}, 1 << 31, 0x80000000, None),
        ({"prefetchable": True}, 0x10000, 0xFFFF0008, None),
        ({"wide": True}, 0x4000, 0xFFFFC004, 0xFFFFFFFF),
        ({"wide": True, "prefetchable": True}, 0x4000, 0xFFFFC00C, 0xFFFFFFFF),
        ({"wide": True}, 1 << 34, 4, 0xFFFFFFFC),
        ({"space": "io"}, 128, 0xFFFFFF81, None),
        ({"space": "io"}, 4, 0xFFFFFFFD, None),
    ],
)
def test_writing_ones_tells_size_and_type(kind, size, low, high):
    bus = make_bus(make_function("f", region_bar(2, size, **kind)))
    put(bus, 1, 0x18, 0xFFFFFFFF)
    assert get(bus, 1, 0x18) == low
    put(bus, 1, 0x1C, 0xFFFFFFFF)
    assert get(bus, 1, 0x1C) == (high or 0)
    put(bus, 1, 0x18, 0)
    assert get(bus, 1, 0x18) == low & (3 if kind.get("space") == "io" else 15)  # the type bits stay
    assert get(bus, 1, 0x10) == 0


def test_a_region_answers_at_its_address_while_its_space_is_enabled():
    bus = make_bus(make_function("f", region_bar(0, 0x1000, 1), region_bar(1, 64, 2, space="io")))
    place(bus, 1, BASE + 0x3000, command=0)
    place(bus, 1, 0x1000, bar=1, command=0)
    assert bus.memory.read(0x3000, 4) == bus.io.read(0x1000, 4) == 0xFFFFFFFF
    place(bus, 1, BASE + 0x3000, command=MEMORY)
    assert bus.memory.read(0x3004, 4) == 0x0100_0004
    assert bus.io.read(0x1000, 4) == 0xFFFFFFFF
    place(bus, 1, BASE + 0x3000, command=IO)
    assert bus.memory.read(0x3004, 4) == 0xFFFFFFFF
    assert bus.io.read(0x103C, 4) == 0x0200_003C
    assert bus.io.read(0x1040, 4) == bus.io.read(0x0FFF, 1) | 0xFFFFFF00 == 0xFFFFFFFF
    bus.io.write(0x1004, 2, 0xBEEF)
    assert bus.functions[8].bars[1].registers.stores == [(4, 2, 0xBEEF)]


def test_a_region_moves_at_once_also_by_single_bytes():
    bus = make_bus(make_function("f", region_bar(0, 0x100, 1)))
    place(bus, 1, BASE + 0x1000)
    assert bus.memory.read(0x1000, 4) == 0x0100_0000
    put(bus, 1, 0x11, 0x20, 1)
    assert bus.memory.read(0x1000, 4) == 0xFFFFFFFF
    assert bus.memory.read(0x2000, 4) == 0x0100_0000


def test_nothing_answers_at_zero_or_while_the_size_is_asked_for():
    # Address 0 in both spaces and the top of both are inside the windows of this bus.
    function = make_function("f", region_bar(0, 0x100, 1), region_bar(1, 16, 2, space="io"))
    bus = PciBus(memory=(0, 1 << 32))
    bus.add(8, function)
    put(bus, 1, COMMAND, IO | MEMORY, 2)
    assert bus.memory.read(0, 4) == bus.io.read(0, 4) == 0xFFFFFFFF
    for offset in (0x10, 0x14):
        put(bus, 1, offset, 0xFFFFFFFF)
    assert bus.memory.read(0xFFFFFF00, 4) == bus.io.read(0xFFF0, 4) == 0xFFFFFFFF
    place(bus, 1, 0x100)
    assert bus.memory.read(0x100, 4) == 0x0100_0000


def test_a_wide_region_may_lie_above_4_gib():
    bus = make_bus(make_function("f", region_bar(4, 0x4000, 9, wide=True)))
    high = bus.add_window("pci-memory64", 0x80_0000_0000, 1 << 30)
    put(bus, 1, 0x20, 0x0001_0000)
    put(bus, 1, 0x24, 0x80)
    put(bus, 1, COMMAND, MEMORY, 2)
    assert high.read(0x1_0008, 4) == 0x0900_0008
    put(bus, 1, 0x24, 0)
    assert high.read(0x1_0008, 4) == 0xFFFFFFFF
    put(bus, 1, 0x20, BASE + 0x1_0000)
    assert bus.memory.read(0x1_0008, 4) == 0x0900_0008


def test_of_two_regions_at_one_address_the_lower_slot_has_it_and_the_rest_is_the_others():
    bus = make_bus(
        make_function("f1", region_bar(0, 0x100, 1)),
        make_function("f2", region_bar(0, 0x1000, 2)),
        make_function("f3", region_bar(0, 0x1000, 3)),
    )
    place(bus, 1, BASE + 0x400)
    for slot in (2, 3):
        place(bus, slot, BASE)
    reads = [bus.memory.read(offset, 4) >> 24 for offset in (0x3FC, 0x400, 0x4FC, 0x500, 0xFFC)]
    assert reads == [2, 1, 1, 2, 2]
    assert bus.memory.read(0x500, 4) & 0xFFFFFF == 0x500  # offsets count from the region's own start
    put(bus, 2, COMMAND, 0, 2)
    assert bus.memory.read(0x3FC, 4) >> 24 == 3


def test_a_fixed_device_comes_before_every_function():
    bus = make_bus(make_function("f", region_bar(0, 32, 1, space="io")))
    bus.io.add_fixed(0x1F0, Region("fixed", 8, 0x22))
    place(bus, 1, 0x1E0)
    assert bus.io.read(0x1EC, 4) == 0x0100_000C
    assert bus.io.read(0x1F4, 4) == 0x2200_0004
    assert bus.io.read(0x1F8, 4) == 0x0100_0018


def test_an_access_over_an_edge_reaches_both_sides_byte_by_byte():
    bus = make_bus(make_function("f", region_bar(0, 16, 1)), make_function("g", region_bar(0, 16, 2)))
    place(bus, 1, BASE + 0x10)
    place(bus, 2, BASE + 0x20)
    assert bus.memory.read(0x0C, 8) == 0x0302_0100_FFFFFFFF
    assert bus.memory.read(0x1E, 4) == 0x01_00_0F_0E
    bus.memory.write(0x1E, 4, 0x44332211)
    assert [bus.functions[slot << 3].bars[0].registers.stores for slot in (1, 2)] == [
        [(14, 1, 0x11), (15, 1, 0x22)],
        [(0, 1, 0x33), (1, 1, 0x44)],
    ]
    assert bus.memory.read(WINDOW[1] - 2, 4) == 0xFFFFFFFF  # over the end of the window
    bus.memory.write(WINDOW[1] - 2, 8, 0)


def test_a_region_that_begins_before_the_window_or_ends_behind_it_answers_inside():
    bus = PciBus(memory=(0x1000, 0x1000))
    bus.add(8, make_function("f", region_bar(0, 0x4000, 5)))
    put(bus, 1, COMMAND, MEMORY, 2)
    put(bus, 1, 0x10, 0)  # no address
    assert bus.memory.read(0, 4) == 0xFFFFFFFF
    bus = PciBus(memory=(0x5000, 0x1000))
    bus.add(8, make_function("f", region_bar(0, 0x4000, 5)))
    place(bus, 1, 0x4000)
    assert bus.memory.read(0, 4) == 0x0500_1000
    assert bus.memory.read(0xFFC, 4) == 0x0500_1FFC


def test_the_same_bus_can_be_seen_with_an_offset():
    # As qemu-e2k has it: the window begins at bus address 0, wherever the host has it.
    bus = PciBus(memory=(0, 0x1000_0000))
    bus.add(8, make_function("f", region_bar(0, 0x1000, 1)))
    place(bus, 1, 0x10_0000)
    assert bus.memory.read(0x10_0004, 4) == 0x0100_0004


def test_the_trace_names_the_device_behind_the_window():
    lines = []
    machine_bus = Bus()
    bus = make_bus(make_function("f", region_bar(0, 0x1000, 1)))
    machine_bus.add(0x8000_0000, bus.memory)
    machine_bus.trace = Tracer(lines.append)
    (window,) = machine_bus.windows()
    place(bus, 1, BASE + 0x2000)
    window.read(0x2008, 4)
    window.write(0x100, 4, 5)
    assert "region1" in lines[0] and "byte8" in lines[0]
    assert "pci-memory" in lines[1]
    assert bus.memory.register_name(0x2008) == "region1 byte8"


# -- any sequence of stores -------------------------------------------------------------------------

BARS = (
    (0, 0x1000, {}),
    (1, 0x40, {"space": "io"}),
    (2, 0x4000, {"wide": True, "prefetchable": True}),
    (4, 0x10, {}),
)
ADDRESSES = st.sampled_from([BASE + 0x1000 * n for n in range(9)] + [0, 0xFFFFFFFF, 0x40, 0x80, BASE + 0x10, 1, 0x80])
STORES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 3), st.just(COMMAND), st.just(2), st.integers(0, 7)),
        st.tuples(st.integers(1, 3), st.sampled_from(range(0x10, 0x28, 4)), st.just(4), ADDRESSES),
        st.tuples(st.integers(1, 3), st.integers(4, 0x28), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF)),
    ),
    max_size=30,
)


def expected_owner(bus, space, address):
    """Who answers, by looking at every register of every function: (mark, offset), or None."""
    for function in bus.functions.values():
        if function.config.data[4] & (2 if space == "memory" else 1):
            for number, (index, size, kind) in enumerate(BARS):
                raw = function.config.data[0x10 + 4 * index : 0x10 + 4 * index + (8 if kind.get("wide") else 4)]
                start = int.from_bytes(raw, "little") // size * size
                top = (1 << 8 * len(raw)) - size
                if kind.get("space", "memory") == space and start not in (0, top) and start <= address < start + size:
                    return int(function.name) * 4 + number, address - start
    return None


@given(STORES, st.lists(st.integers(0, 0xA000), max_size=8))
def test_after_any_stores_the_window_finds_what_looking_at_every_register_finds(stores, probes):
    functions = [
        make_function(str(n), *(region_bar(i, size, 4 * n + k, **kind) for k, (i, size, kind) in enumerate(BARS)))
        for n in range(3)
    ]
    bus = make_bus(*functions)
    for slot, offset, size, value in stores:
        put(bus, slot, offset, value & (1 << 8 * size) - 1, size)
        for space, window in (("memory", bus.memory), ("io", bus.io)):
            edges = {
                claim.address - window.base + d for f in functions for claim in f.claims() for d in (-1, 0, claim.size)
            }
            for at in (*probes, *edges):
                if 0 <= at < window.size:
                    owner = expected_owner(bus, space, window.base + at)
                    found = window.behind(at)
                    assert (None if found is None else (found[0].mark, found[1])) == owner
                    assert window.read(at, 1) == (0xFF if owner is None else owner[1] & 0xFF)
