"""The Elbrus board: what is at which address, programs written for qemu-e2k, reset, power, traces."""

import json
import random

import pytest

import e2kdisk
from e2kdisk import Machine, UsageError
from e2kdisk.devices.pci import Bar, Identity, PciFunction
from e2kdisk.machine.boards.boot_block import BootBlock
from e2kdisk.machine.chips.sifive_test import SifiveTest
from e2kdisk.machine.console import ConsoleTimeout
from e2kdisk.machine.machine import StopReason
from e2kdisk.machine.trace import Tracer
from tests.elbrus_lab import CONFIG, FIRMWARE, PORTS, SERIAL, SPMC, elbrus, function, load, peek, store
from tests.elbrus_reader import READER

pytestmark = pytest.mark.guest

IO = 6
"""MAS mode of I/O ports."""

# As recorded on a running qemu-e2k. r0 is the serial port, whose channel there is at +2 (control) and +3 (data).
SERIAL_TO_R0 = "11000004 80dcc011 00000000 00100080"  # addd 0, 0x80001000 -> r0
LITERAL_TO_R1 = "11000004 81d8c011 00000000"  # addd 0, ... -> r1; the number follows
CONTROL = "01000010 81c28024"  # stb r1 -> [r0 + 2]
DATA = "01000010 81c38024"  # stb r1 -> [r0 + 3]
STOP = "12500000 20000000 00000000 00000000"  # branch to itself
POLL = (
    *(f"{LITERAL_TO_R1} 00000000", CONTROL),
    "01000010 82c28064",  # ldb [r0 + 2] -> r2
    "01000004 83c48201",  # andd r2, 4 -> r3
    "01000004 40c08320",  # cmpesb r3, 0 -> p0
    "12500000 40000000 faffff0f 00000000",  # branch -0x30 if p0
)


def printing(text):
    """The recorded way to print."""
    enable = [part for value in ("05000000", "68000000") for part in (f"{LITERAL_TO_R1} {value}", CONTROL)]
    letters = [part for byte in text for part in (*POLL, f"{LITERAL_TO_R1} {byte:02x}000000", DATA)]
    return [SERIAL_TO_R0, *enable, *letters]


def bundles(*parts):
    return b"".join(bytes.fromhex(part) for part in parts)


class Scratch:
    """Four bytes behind a BAR or a port."""

    name, size = "scratch", 4

    def __init__(self):
        self.value = 0

    def read(self, offset, size):
        return self.value >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset, size, value):
        self.value = value

    def register_name(self, offset):
        return "scratch"

    def reset(self):
        pass


def with_scratch(machine):
    """Plug in a function with a BAR of memory; its registers."""
    scratch = Scratch()
    bar = Bar(index=0, size=0x1000, registers=scratch)
    identity = Identity(vendor=0x1234, device=0x5678, class_code=0x0880)
    machine.board.plug(PciFunction("scratch", identity, interrupt_pin=1, bars=[bar]))
    return scratch


# -- programs for qemu-e2k --------------------------------------------------------------------------


def test_recorded_bundles_print_on_the_channel_that_they_name():
    with elbrus(bundles(*printing(b"PASS"), STOP)) as machine:
        assert machine.run() is StopReason.HALTED
        assert [console.transcript for console in machine.consoles] == ["", "PASS"]
    with elbrus(bundles(*printing(b"PASS"), STOP), serial=1) as machine:
        machine.console.expect("PASS")


def test_the_quirk_shows_pci_memory_where_programs_for_qemu_e2k_look_for_it():
    for quirks, address in (((), 0x9000_0000), (("qemu-offset",), 0x8010_0000)):
        with elbrus(quirks=quirks) as machine:
            scratch = with_scratch(machine)
            machine.reset()
            bar = address - 0x8000_0000 if quirks else address
            store(machine, function(3) + 0x10, bar)
            store(machine, function(3) + 4, 2, 2)
            store(machine, address, 0xCAFE)
            assert (scratch.value, load(machine, address)) == (0xCAFE, 0xCAFE)
            assert load(machine, address + 0x1000) == 0xFFFF_FFFF
            assert load(machine, SERIAL, 1) & 4, "the serial port stays"


# -- the map ----------------------------------------------------------------------------------------


def test_firmware_gets_its_place_and_a_boot_block_that_tells_of_the_board():
    with elbrus(b"firmware", ram=64 << 20) as machine:
        assert machine.cpu.pc == FIRMWARE and peek(machine, FIRMWARE) == int.from_bytes(b"firmware", "little")
        at = machine.cpu.read_register("r1")
        block = BootBlock.parse(bytes(machine.cpu.memory.source(at, 4096)))
        assert (machine.cpu.read_register("r0"), at) == (0, FIRMWARE + (16 << 20) - 4096)
        assert (block.banks, block.serial_base) == (((0, 64 << 20),), SERIAL)


def test_ram_above_two_gib_is_at_sixteen_gib():
    with elbrus(ram=(2 << 30) + (32 << 20)) as machine:
        store(machine, 0x4_0000_0000, 0x11)
        store(machine, 0x7FFF_FFFC, 0x22)
        block = BootBlock.parse(bytes(machine.cpu.memory.source(machine.cpu.read_register("r1"), 4096)))
        assert block.banks == ((0, 2 << 30), (0x4_0000_0000, 32 << 20))
        assert [bytes(machine.board.ram.view[at : at + 1]) for at in (0x7FFF_FFFC, 0x8000_0000)] == [b"\x22", b"\x11"]


def test_configuration_space_is_the_same_through_memory_and_through_ports():
    with elbrus() as machine:
        found = {}
        for device in range(32):
            for number in range(8):
                word = load(machine, function(device, number))
                store(machine, PORTS + 0xCF8, 1 << 31 | device << 11 | number << 8, mas=IO)
                assert load(machine, PORTS + 0xCFC, mas=IO) == word
                if word != 0xFFFF_FFFF:
                    found[device, number] = f"{word & 0xFFFF:04x}:{word >> 16:04x}"
        assert found == {
            (0, 0): "1fff:8000",
            (1, 0): "1fff:8017",
            (2, 1): "1fff:8018",
            (2, 2): "1fff:8019",
            (0x0C, 0): "1fff:800e",
        }
        assert load(machine, function(2, 2) + 0x114) == load(machine, function(2, 2) + 0x14) == SERIAL, "mirrored"
        assert load(machine, function(2, 2) + 0x3C, 1) == 3


def test_ports_are_not_in_the_memory_of_an_e2k_but_in_that_of_an_arm64():
    with elbrus(f"addd 0, {PORTS} -> r1\nldb [r1] -> r2") as machine:
        assert machine.run() is StopReason.FAULT and machine.fault.address == PORTS
    program = [0xD2A02000, 0xF2C00020, 0x39400001, 0x17FFFFFF]  # x0 = PORTS; ldrb w1, [x0]; b .-4
    with elbrus(b"".join(word.to_bytes(4, "little") for word in program), cpu="arm64") as machine:
        assert machine.run(100) is StopReason.LIMIT
        assert machine.cpu.read_register("x1") == 0xFF


def test_serial_port_moves_with_its_bar_and_stays_where_firmware_knows_it():
    with elbrus() as machine:
        store(machine, function(2, 2) + 0x14, 0xA000_0000)
        store(machine, function(2, 2) + 4, 2, 2)
        for at, byte in ((0xA000_0000, ord("m")), (SERIAL, ord("f"))):
            for value in (5, 0x68):
                store(machine, at, value, 1)
            store(machine, at + 1, byte, 1)
        assert machine.console.transcript == "mf"


# -- IDE --------------------------------------------------------------------------------------------


def reading_sector_0():
    """For qemu-e2k, by the recorded operations: sector 0 of the legacy IDE controller, printed byte by byte."""
    wait = """
    {label}:
        ldb,2,io [r4 + 0x1f7] -> r6
        andd,0 r6, {mask} -> r3
        cmpesb,0 r3, {value} -> p0
        branch {label} ? ~p0
    """
    stores = ((0x3F6, 2), (0x1F6, 0xE0), (0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F7, 0x20))
    lines = [f"addd,0 0, {PORTS} -> r4", f"addd,0 0, {SERIAL} -> r0"]
    lines += [f"addd,0 0, {value} -> r1\nstb,2 r1 -> [r0 + 2]" for value in (5, 0x68)]
    lines += [f"addd,0 0, {value} -> r1\nstb,2,io r1 -> [r4 + {port}]" for port, value in stores]
    lines += [wait.format(label="ready", mask=0x88, value=8), "addd,0 0, 256 -> r7"]
    lines += ["next:", "ldh,2,io [r4 + 0x1f0] -> r5"]
    for number in range(2):
        poll = f"poll{number}: addd,0 0, 0 -> r1\nstb,2 r1 -> [r0 + 2]\nldb,2 [r0 + 2] -> r2\nandd,0 r2, 4 -> r3\n"
        lines += [poll + f"cmpesb,0 r3, 0 -> p0\nbranch poll{number} ? p0\nstb,2 r5 -> [r0 + 3]\nshrd,0 r5, 8 -> r5"]
    lines += ["subd,0 r7, 1 -> r7", "cmpedb,0 r7, 0 -> p0", "branch next ? ~p0", "stop: branch stop"]
    return "\n".join(lines)


@pytest.fixture
def make_disk(tmp_path):
    """Call `make_disk(name="disk.qcow2") -> (path, its first sector)`: an image with content of its own."""

    def make(name="disk.qcow2"):
        sector = random.Random(name).randbytes(512)
        e2kdisk.create(tmp_path / name, 4 << 20)
        with e2kdisk.open_disk(tmp_path / name) as disk:
            disk.pwrite(0, sector)
        return tmp_path / name, sector

    return make


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_a_polled_program_for_qemu_e2k_reads_its_disk_through_legacy_ports(make_disk, clock):
    path, sector = make_disk()
    with elbrus(reading_sector_0(), drives=[f"file={path},if=ide"], serial=1, clock=clock) as machine:
        assert machine.run(100_000) is StopReason.HALTED
        assert machine.console.transcript.encode("latin-1") == sector


def test_drives_are_ide_unless_they_say_something_else_and_fill_both_channels(make_disk):
    disks = [make_disk(f"disk{number}.qcow2") for number in range(3)]
    with elbrus(drives=[path for path, _ in disks]) as machine:
        assert load(machine, function(3)) == 0x800B_1FFF and load(machine, function(4)) == 0xFFFF_FFFF
        for place, (_, sector) in enumerate(disks):
            base = PORTS + (0x170 if place & 2 else 0x1F0)
            for port, value in ((6, 0xE0 | (place & 1) << 4), (2, 1), (3, 0), (4, 0), (5, 0), (7, 0x20)):
                store(machine, base + port, value, 1, mas=IO)
            machine.scheduler.settle()
            assert load(machine, base + 7, 1, mas=IO) & 0x89 == 8
            words = [load(machine, base, 2, mas=IO) for _ in range(256)]
            assert b"".join(word.to_bytes(2, "little") for word in words) == sector


def test_ide_interrupts_on_pin_14_in_legacy_mode_and_on_11_in_native_mode(make_disk):
    path, _ = make_disk()
    for prog_if, pin, ports in ((None, 14, 0x1F0), (0x8F, 11, 0x1000)):
        with elbrus(drives=[path]) as machine:
            ide = function(3)
            assert load(machine, ide + 0x3C, 1) == 11
            if prog_if is not None:
                store(machine, ide + 9, prog_if, 1)
                store(machine, ide + 0x10, 0x1000)
                store(machine, ide + 4, 1, 2)
                assert load(machine, PORTS + 0x1F7, 1, mas=IO) == 0xFF
            for register, value in ((0, 0x10 + 2 * pin), (0x10, 0x8055)):
                store(machine, 0xFEC0_0000 + register, value)
            store(machine, 0xFEE0_00F0, 0x1FF)
            store(machine, PORTS + ports + 7, 0xEC, 1, mas=IO)
            machine.scheduler.settle()
            assert load(machine, 0xFEE0_0FF0) == 0x55
            assert load(machine, 0xFEE0_0FF0) == 0xFF
            load(machine, PORTS + ports + 7, 1, mas=IO)
            store(machine, 0xFEE0_00B0, 0)
            assert load(machine, 0xFEE0_0FF0) == 0xFF, "reading the status has ended it"


def test_a_fifth_ide_drive_is_refused(make_disk):
    with pytest.raises(UsageError, match="four is the most"):
        elbrus(drives=[make_disk(f"disk{number}.qcow2")[0] for number in range(5)])


def test_the_trace_shows_the_task_file_of_the_drive(make_disk):
    lines = []
    with elbrus(reading_sector_0(), drives=[make_disk()[0]], trace=Tracer(lines.append, only=["ide0"])) as machine:
        machine.run()
    command = next(line for line in lines if "value=0x20 " in line)
    assert " ide0 " in command and 'code="stb,2,io r1 -> [r4 + 0x1f7]"' in command


# -- interrupts -------------------------------------------------------------------------------------


def test_the_pins_of_functions_reach_the_ioapic_by_slot_and_share_wires():
    with elbrus() as machine:
        functions = []
        for _ in range(5):
            with_scratch(machine)
            functions.append(machine.board.controllers[-1])
        levels = lambda: [pin for pin in range(24) if machine.board.ioapic._level >> pin & 1]  # noqa: E731
        expected = [18, 19, 16, 17, 18]
        assert [load(machine, function(3 + n) + 0x3C, 1) for n in range(5)] == expected
        for item, pin in zip(functions, expected, strict=True):
            item.set_intx(True)
            assert pin in levels()
        functions[0].set_intx(False)
        assert 18 in levels(), "the fifth still drives it"


def test_a_message_goes_to_the_local_apic_or_into_ram():
    with elbrus() as machine:
        store(machine, 0xFEE0_00F0, 0x1FF)
        machine.board.pci.message(0xFEE0_0000, 0x66)
        assert load(machine, 0xFEE0_0FF0) == 0x66
        machine.board.pci.message(0x1000, 0x1234_5678)
        assert peek(machine, 0x1000, 4) == 0x1234_5678
        machine.board.pci.message(0xFFFF_FFFF_FFFF_FFFC, 1)


# -- reset, power, the end --------------------------------------------------------------------------


def test_soft_off_ends_the_run_and_the_reset_register_starts_again():
    program = f"""
        addd 0, 0x1000 -> r1
        ldw [r1] -> r2
        adds r2, 1 -> r2
        stw r2 -> [r1]
        cmpesb r2, 3 -> p0
        branch off ? p0
        addd 0, {function(2, 1)} -> r3
        addd 0, 1 -> r4
        stw r4 -> [r3 + 0x64]
    off:
        addd 0, {SPMC} -> r3
        addd 0, 0x3400 -> r4
        stw r4 -> [r3 + 0x4c]
        branch . - 8
    """
    with elbrus(program) as machine:
        assert machine.run(1000) is StopReason.POWER_OFF
        assert (machine.resets, peek(machine, 0x1000, 4), machine.fault) == (2, 3, None)


def test_reset_puts_firmware_and_registers_back_and_leaves_ram_alone():
    with elbrus(b"firmware") as machine:
        for address, value in ((FIRMWARE, 0), (0x2000, 7), (CONFIG + (2 << 15 | 1 << 12) + 0x40, 0xFEC0_1000)):
            store(machine, address, value)
        store(machine, PORTS + 0xCF8, 1 << 31, mas=IO)
        store(machine, 0x1_1000_0040, 5)
        machine.reset()
        assert peek(machine, FIRMWARE) == int.from_bytes(b"firmware", "little") and peek(machine, 0x2000, 4) == 7
        assert load(machine, function(2, 1) + 0x40) == 0xFEC0_0000
        assert load(machine, PORTS + 0xCF8, mas=IO) == 0 and load(machine, 0x1_1000_0040) == 0xF800


@pytest.mark.parametrize("interactive", [False, True])
def test_a_branch_to_itself_is_the_end_even_if_somebody_types(interactive):
    with elbrus() as machine:
        machine.interactive = interactive
        machine.console.send("hello?")
        assert machine.run() is StopReason.HALTED


POLLING = f"""
    addd 0, {SERIAL} -> r1
    {{ addd 0, 3 -> r2; addd 0, 0xc1 -> r3 }}
    stb r2 -> [r1]
    stb r3 -> [r1]
wait:
    ldb [r1] -> r2
    andd r2, 1 -> r2
    cmpesb r2, 0 -> p0
    branch wait ? p0
    ldb [r1 + 1] -> r2
stop:
    branch stop
"""


def test_a_guest_that_polls_for_input_waits_until_its_time_is_over_and_reads_what_is_typed():
    with elbrus(POLLING) as machine:
        assert machine.run(5000) is StopReason.LIMIT
        machine.console.send("k")
        assert machine.run() is StopReason.HALTED and machine.cpu.read_register("r2") == ord("k")


@pytest.mark.parametrize("cpu", ["e2k", "arm64"])
def test_seconds_of_polling_for_input_pass_in_a_moment(cpu):
    with elbrus(POLLING) if cpu == "e2k" else Machine("elbrus", cpu="arm64", bios=READER) as machine:
        with pytest.raises(ConsoleTimeout):
            machine.console.expect("never", timeout=10)
        assert 10e9 <= machine.time.now_ns() < 11e9
        assert machine.instructions < 4_000_000


def test_virtual_time_passes_at_two_million_wide_instructions_a_second():
    program = f"""
        addd 0, {SPMC} -> r1
        ldw [r1 + 0x40] -> r2
        addd 0, 1000 -> r3
    loop:
        subd r3, 1 -> r3
        cmpedb r3, 0 -> p0
        branch loop ? ~p0
        ldw [r1 + 0x40] -> r4
    stop:
        branch stop
    """
    with elbrus(program) as machine:
        machine.run()
        ticks = machine.cpu.read_register("r4") - machine.cpu.read_register("r2")
        assert abs(ticks - 3002 * 0.5e-6 * 3_579_545) < 4


# -- trace and state --------------------------------------------------------------------------------


def test_the_trace_shows_wide_instructions_beside_register_accesses():
    events = []
    tracer = Tracer(lambda line: events.append(json.loads(line)), format="json")
    program = f"""
        addd 0, {SERIAL} -> r1
        {{ addd 0, 5 -> r2; addd r2, 1 -> r3 }}
        {{ stb,2 r2 -> [r1]; addd,0 r2, r3 -> r4 }}
        addd 0, {function(2, 1)} -> r5
        ldw [r5] -> r6
    stop:
        branch stop
    """
    with elbrus(program, trace=tracer) as machine:
        machine.run()
    write, read = events
    assert (write["source"], write["kind"], write["register"], write["value"]) == ("escc", "write", "control A", 5)
    assert "stb,2 r2 -> [r1]" in write["code"] and "addd,0 r2, r3 -> r4" in write["code"]
    assert (read["source"], read["register"], read["value"]) == ("i2c-spi", "VendorID", 0x8018_1FFF)


def test_a_saved_board_goes_on_in_another_machine():
    program = f"""
        addd 0, {SERIAL} -> r1
        addd 0, 12 -> r2
        stb r2 -> [r1]
        addd 0, {function(2, 2)} -> r3
        stw r1 -> [r3 + 0x14]
        addd 0, 0x1_1000_0000 -> r3
        stw r2 -> [r3 + 0x40]
        disp ctpr1, sub
        call ctpr1, wbs=4
    stop:
        branch stop
    sub:
        {{ setwd wsz=8; return ctpr3 }}
        addd 0, 77 -> r0
        ct ctpr3
    """
    with elbrus(program) as first, elbrus(program) as second:
        first.run(9)
        second.load(first.save())
        names = {chip.name for chip in first.board.chips}
        assert {"sic", "ioapic", "lapic", "escc", "i2c-spi", "spmc", "pci-config", "pci-bridge"} <= names
        assert second.board.save() == first.board.save()
        assert load(second, SERIAL, 1) == 0, "the register that was named is still named"
        assert first.run() is second.run() is StopReason.HALTED
        assert first.cpu.save() == second.cpu.save() and first.cpu.read_register("r8") == 77


# -- wrong use --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"cpu": "riscv64"}, "board elbrus has no CPU 'riscv64'; it has e2k or arm64"),
        ({"quirks": ["backwards"]}, "board elbrus has no quirk 'backwards'; it has qemu-offset"),
        ({"serial": 2}, "serial port 2: board elbrus has 2, counted from 0"),
        ({"ram": 1 << 20}, "1048576 bytes of RAM: elbrus needs a multiple of 4096, 16 MiB or more"),
    ],
)
def test_a_wrong_argument_is_one_line(options, what):
    with pytest.raises(UsageError) as caught:
        elbrus(**options)
    assert str(caught.value) == what


def test_only_pci_functions_fit_and_only_as_many_as_there_are_slots():
    with elbrus() as machine:
        with pytest.raises(UsageError, match="takes PCI functions"):
            machine.board.plug(SifiveTest(lambda word, code: None))
        for _ in range(28):
            with_scratch(machine)
        with pytest.raises(UsageError, match="28 slots"):
            with_scratch(machine)


def test_firmware_that_is_too_large_is_refused():
    with pytest.raises(UsageError, match="does not fit"):
        elbrus(bytes(16 << 20))
