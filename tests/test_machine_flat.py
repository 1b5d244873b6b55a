"""Fast translation changes nothing that a guest can see: new code of its own, its page tables, exact budgets."""

import struct

import pytest

from e2kdisk.machine.cpu.arm64_tables import IdentityTables
from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.cpu.unicorn_arm64 import Arm64Cpu
from e2kdisk.machine.cpu.unicorn_riscv64 import Riscv64Cpu
from e2kdisk.machine.ram import GuestRam

pytestmark = pytest.mark.guest

RAM, SIZE = 0x4000_0000, 4 << 20
GIB = 1 << 30
BLOCK = 0x401  # a valid block with its access flag set
T0SZ_39_BITS = 25


@pytest.fixture
def make():
    """A CPU with RAM; words are placed at addresses."""
    cpus = []

    def build(cpu_type, memory, **registers):
        cpu, ram = cpu_type(), GuestRam(SIZE)
        cpus.append(cpu)
        for address, words in memory.items():
            ram.view[address - RAM : address - RAM + 4 * len(words)] = struct.pack(f"<{len(words)}I", *words)
        cpu.map_ram(RAM, ram)
        cpu.reset({"pc": RAM, **registers})
        return cpu, ram

    yield build
    for cpu in cpus:
        cpu.close()


def descriptors(*values):
    return [half for value in values for half in (value & 0xFFFF_FFFF, value >> 32)]


# Call x0, copy five words from x2 over it, call it again; results of the calls in x20 and x21.
CALL_REWRITE_CALL = (
    *(0xD63F0000, 0xAA0903F4, 0xD2800003, 0xB8636844, 0xB8236804),
    *(0x91001063, 0xF100507F, 0x54FFFF81, 0xD63F0000, 0xAA0903F5, 0xD503207F),
)
FIRST = (0xD2800029, 0x14000001, 0x91004129, 0x14000001, 0xD65F03C0)  # three blocks: x9 = 1 + 16
SECOND = (0xD2800049, 0x14000001, 0x91008129, 0x14000001, 0xD65F03C0)  # three blocks: x9 = 2 + 32


@pytest.mark.parametrize("place", [0x40, 0x400, 0x1000, 0x20000], ids="{:#x}".format)
def test_code_that_the_guest_rewrites_runs_as_rewritten(make, place):
    function, source = RAM + place, RAM + 0x30000
    cpu, _ = make(Arm64Cpu, {RAM: CALL_REWRITE_CALL, function: FIRST, source: SECOND}, x0=function, x2=source)
    for _ in range(2):
        cpu.write_register("pc", RAM)
        assert cpu.run(1000)[1] is Reason.WFI
        results = cpu.read_register("x20"), cpu.read_register("x21")
        assert results[1] == 34
    assert results == (34, 34)


@pytest.mark.parametrize(
    ("cpu_type", "loop", "registers"),
    [
        (Arm64Cpu, (0xF9400001, 0x91000421, 0xF9000001, 0xD1000442, 0xB5FFFF82, 0xD503207F), ("x0", "x2")),
        (Riscv64Cpu, (0x00053583, 0x00158593, 0x00B53023, 0xFFF60613, 0xFE0618E3, 0x10500073), ("x10", "x12")),
    ],
)
@pytest.mark.parametrize("distance", [0x80, 0x2000])
def test_data_beside_the_code_that_counts_in_it_is_right_and_not_slow(make, cpu_type, loop, registers, distance):
    rounds = 200_000
    cpu, ram = make(cpu_type, {RAM: loop}, **{registers[0]: RAM + distance, registers[1]: rounds})
    assert cpu.run(10_000_000) == (5 * rounds + 1, Reason.WFI)
    assert int.from_bytes(ram.view[distance : distance + 8], "little") == rounds


# Set TCR_EL1 = x2, TTBR0_EL1 = x3, SCTLR_EL1.M; load x5 from x6, store it to x7; load x1 from x0.
TRANSLATE = (
    *(0xD518A21F, 0xD5182042, 0xD5182003, 0xD5033FDF, 0xD5381004, 0xB2400084, 0xD5181004),
    *(0xD5033FDF, 0xF94000C5, 0xF90000E5, 0xF9400001, 0x9100054A, 0xD503207F),
)
TABLES = RAM + 0x10_0000


@pytest.mark.parametrize("slices", [1000, 1])
def test_page_tables_that_move_addresses_are_obeyed(make, slices):
    moved = RAM + 0x8000 + GIB  # a second view of RAM
    tables = descriptors(BLOCK, RAM | BLOCK, RAM | BLOCK)
    memory = {RAM: TRANSLATE, TABLES: tables, RAM + 0x8000: [0x1234, 0]}
    cpu, ram = make(Arm64Cpu, memory, x2=T0SZ_39_BITS, x3=TABLES, x6=RAM + 0x8000, x7=RAM + 0x9000, x0=moved)
    done = 0
    while done < 13:
        count, reason = cpu.run(slices)
        done += count
    assert (done, reason) == (13, Reason.WFI)
    assert [cpu.read_register(name) for name in ("x5", "x1", "x10")] == [0x1234, 0x1234, 1]
    assert ram.view[0x9000:0x9002] == b"\x34\x12"


def test_an_address_that_the_tables_leave_out_is_a_fault(make):
    memory = {RAM: TRANSLATE, TABLES: descriptors(BLOCK, RAM | BLOCK, 0)}
    cpu, _ = make(Arm64Cpu, memory, x2=T0SZ_39_BITS, x3=TABLES, x6=RAM, x7=RAM + 0x9000, x0=2 * GIB)
    _, reason = cpu.run(100)
    assert reason is Reason.FAULT and "data abort" in str(cpu.fault)
    assert cpu.pc == RAM + 40 and cpu.read_register("x10") == 0


@pytest.fixture
def tables(make):
    """Page tables of three levels: blocks of 1 GiB, then of 2 MiB, then pages."""
    level2, level3 = TABLES + 0x1000, TABLES + 0x2000
    cpu, ram = make(
        Arm64Cpu,
        {
            TABLES: descriptors(BLOCK, level2 | 3, RAM | BLOCK),
            level2: descriptors(RAM | BLOCK, level3 | 3, 0),
            level3: descriptors(*(RAM + (2 << 20) + n * 0x1000 | 0x403 for n in range(512))),
        },
    )
    return IdentityTables(cpu.memory, lambda: (1, T0SZ_39_BITS, TABLES)), ram.view.cast("Q")


def test_the_walk_tells_identity_from_everything_else(tables):
    tables, _ = tables
    expected = {0: True, RAM: True, RAM + (2 << 20): True, RAM + (4 << 20): False, 2 * GIB: False, 1 << 40: False}
    assert {page: tables.is_data(page) for page in expected} == expected


@pytest.mark.parametrize("change", ["moved", "read-only", "not accessed", "gone", "table gone"])
def test_a_change_in_the_tables_is_seen_at_the_next_miss(tables, change):
    tables, words = tables
    assert tables.is_data(RAM + 0x1000)
    index = 0x10_1000 // 8
    match change:
        case "moved":
            words[index] += 2 << 20
        case "read-only":
            words[index] |= 1 << 7
        case "not accessed":
            words[index] &= ~0x400
        case "gone":
            words[index] = 0
        case "table gone":
            words[0x10_0008 // 8] = 0
    assert not tables.is_data(RAM + 0x1000)


def test_pages_that_must_not_run_are_data_only(tables):
    tables, words = tables
    words[0x10_1000 // 8] |= 1 << 53  # PXN
    assert tables.is_data(RAM)
    assert not tables.is_code(RAM)


@pytest.mark.parametrize("tcr", [T0SZ_39_BITS | 1 << 14, T0SZ_39_BITS | 1 << 7, 60])
def test_unusual_settings_are_left_to_unicorn(tables, tcr):
    tables = IdentityTables(tables[0]._memory, lambda: (1, tcr, TABLES))
    assert not tables.is_data(RAM)
