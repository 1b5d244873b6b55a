"""The qtest protocol, line by line: as QEMU answers, and where QEMU would abort, an answer nevertheless."""

import base64

import pytest

from tests.qtest_client import Qtest
from tests.qtest_lab import Inside, our_program

RAM = 0x4000_0000
FIRST_SLOT, LAST_SLOT = 0x0A00_0000, 0x0A00_3E00


@pytest.fixture(scope="module")
def shared():
    with Inside("-machine", "virt", "-m", "16") as inside:
        yield inside


@pytest.fixture
def arm(shared):
    """A board without disks, shared: its RAM is zeros at the start of each test."""
    shared.ask(f"memset {RAM:#x} 0x1000 0")
    return shared


# -- the same answers as QEMU's -----------------------------------------------------------------------

SAME = [
    "endianness",
    "endianness more words",
    "memset 0x40000000 0x1000 0",
    "write 0x40000000 4 0x11223344",
    "readb 0x40000000",
    "readw 0x40000000",
    "readl 0x40000000",
    "readq 0x40000000",
    "readl 1073741824",
    "readl 010000000000",
    "readl 0X40000000",
    "readl +0x40000000",
    "readb -1",
    "read 0x40000000 4",
    "read 0x40000000 4 more words",
    "b64read 0x40000000 4",
    "b64read 0x40000000 0",
    "writeb 0x40000000 0x1ff",
    "writew 0x40000002 0x12345",
    "writel 0x40000004 -1",
    "writeq 0x40000008 0x1122334455667788",
    "read 0x40000000 16",
    "writel 0x40000001 0xaabbccdd",
    "read 0x40000000 8",
    "memset 0x40000000 8 0x155",
    "memset 0x40000000 0 1",
    "read 0x40000000 9",
    # Digits that are missing, too many, or none.
    "write 0x40000000 4 0x123",
    "read 0x40000000 4",
    "write 0x40000000 2 xx1122334455",
    "read 0x40000000 4",
    "write 0x40000000 3 0x1zz1zz",
    "read 0x40000000 3",
    "write 0x40000000 1 0xG1",
    "read 0x40000000 1",
    "write 0x40000000 2 zz",
    "write 0x40000000 0 0x",
    "write 0x40000000 0 0x11",
    "b64write 0x40000000 3 MTIz",
    "read 0x40000000 4",
    "b64write 0x40000000 2 MTIzNA==",
    "read 0x40000000 4",
    "b64write 0x40000000 0 MTIz",
    "b64write 0x40000000 4 A",
    "b64write 0x40000000 4 ",
    "read 0x40000000 4",
    # Registers: a slot without a device, and accesses of every shape to it.
    "readl 0x0a000000",
    "readl 0x0a000004",
    "readl 0x0a000008",
    "readl 0x0a003e08",
    "readb 0x0a000000",
    "readw 0x0a000001",
    "readq 0x0a000000",
    "read 0x0a000000 8",
    "read 0x0a0001fc 8",
    "writeq 0x0a000070 1",
    # Across the start of RAM, and nowhere.
    "write 0x3ffffffe 4 0xaabbccdd",
    "read 0x3ffffffe 6",
    "readl 0x3f000000",
    "read 0x3f000000 64",
    "writel 0x3f000000 5",
    # Commands that are none.
    " ",
    "foo",
    " readb 0x40000000",
    "readb\t0x40000000",
    "ENDIANNESS",
    "clock_set",
    "irq_intercept_in nothing",
    "irq_intercept_out /machine/peripheral/nothing",
]


@pytest.mark.needs("qemu-system-arm")
def test_lines_are_answered_as_qemu_answers_them():
    answers = []
    for program in ("qemu-system-aarch64", our_program()):
        with Qtest("virt", "-cpu", "cortex-a53", "-m", "64", program=program) as qemu:
            answers.append([qemu.ask(line) for line in SAME])
    for line, qemus, ours in zip(SAME, *answers, strict=True):
        assert ours == qemus, line


# -- where QEMU aborts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "",
        "readl",
        "readl ",
        "readl zz",
        "readl 0x",
        "readl 0x4000000g",
        "readl 089",
        "readl 0x10000000000000000",
        "readl " + "9" * 5000,
        "readl 1_0",
        "readl \u0661",
        "readl  0x40000000",
        "writel 0x40000000",
        "writel 0x40000000 x",
        "read 0x40000000",
        "write 0x40000000 4",
        "b64write 0x40000000 4",
        "memset 0x40000000 4",
        "clock_step zz",
        "clock_set 9223372036854775808",
        "irq_intercept_in",
        "inb 0x1f7",
        "outl 0xcf8 0",
        "\udcff\udcfe",
        "foo\0bar",
    ],
)
def test_arguments_that_are_none_fail(arm, line):
    assert arm.ask(line).startswith("FAIL ")
    assert arm.ask("endianness") == "OK little"


@pytest.mark.parametrize(
    "line",
    [
        "read 0x40000000 0",
        "read 0x40000000 0xffffffffffffffff",
        "read 0x40000000 0x4000001",
        "b64read 0 0x4000001",
        "write 0x40000000 0x4000001 0x00",
        "b64write 0x40000000 0x8000000000000000 AAAA",
        "memset 0 0x100000001 0",
        "memset 0x4010000000 0x10000000 0",
        "read 0x4010000000 0x100001",
    ],
)
def test_lengths_that_nobody_can_mean_are_refused_at_once(arm, line):
    assert arm.ask(line) == "ERR invalid argument size"


def test_addresses_wrap_at_their_end(arm):
    assert arm.ask("read 0xfffffffffffffffe 4") == "OK 0x00000000"
    assert arm.ask("memset 0xfffffffffffffffe 4 1") == "OK"


def test_flash_reads_as_the_firmware_and_stays_so(tmp_path):
    (tmp_path / "bios").write_bytes(b"firmware")
    with Inside("-M", "virt", "-bios", f"{tmp_path}/bios") as inside:
        assert inside.ask("memset 0 4 0") == "OK"
        assert inside.ask("read 0 12") == f"OK 0x{b'firmware'.hex()}00000000"
        assert inside.ask("readl 0x04000000") == "OK 0x0000000000000000"


def test_long_transfers_come_whole(arm):
    data = bytes(range(256)) * 4096
    assert arm.ask(f"b64write {RAM:#x} {len(data)} {base64.b64encode(data).decode()}") == "OK"
    assert arm.ask(f"b64read {RAM:#x} {len(data)}") == f"OK {base64.b64encode(data).decode()}"
    assert arm.ask(f"read {RAM:#x} {len(data)}") == f"OK 0x{data.hex()}"
    assert arm.ask(f"memset {RAM:#x} {len(data)} 0xee") == "OK"
    assert arm.ask(f"read {RAM + len(data) - 2:#x} 4") == "OK 0xeeee0000"


def test_lines_come_in_any_pieces(arm):
    whole = b"endianness\nreadb 0x0\n\nendianness\n"
    answers = arm.say(whole)
    assert answers.count(b"\n") == 4
    assert b"".join(arm.say(bytes((byte,))) for byte in whole) == answers


def test_a_line_without_an_end_is_given_up(arm, monkeypatch):
    monkeypatch.setattr("e2kdisk.exports.qtest.session.LINE_MAX", 100)
    assert arm.say(b"x" * 101) == b"FAIL the line is too long\n"
    assert arm.say(b"\nendianness\n").endswith(b"OK little\n")


# -- machines -------------------------------------------------------------------------------------------


def test_a_machine_without_anything_in_it_answers_too():
    with Inside("-machine", "none") as inside:
        assert inside.ask("read 0x40000000 4") == "OK 0x00000000"
        assert inside.ask("writel 0 1") == "OK"
        assert inside.ask("inb 0x80").startswith("FAIL")
        assert inside.ask("irq_intercept_in gic") == "FAIL Unknown device"
        assert inside.ask("clock_step 5") == "OK 5"


def test_ports_of_elbrus_reach_pci():
    with Inside("-M", "elbrus", name="qemu-system-e2k") as inside:
        assert inside.ask("outl 0xcf8 0x80000800") == "OK"
        assert inside.ask("inl 0xcfc") == "OK 0x80171fff"
        assert inside.ask("inw 0xcfe") == "OK 0x8017"
        assert inside.ask("inw 0xcfd") == "OK 0x171f"  # apart, as QEMU does it
        assert inside.ask("inb 0xcfc") == "OK 0x00ff"
        assert inside.ask("inb 0xffff") == "OK 0x00ff"
        assert inside.ask("inw 0xffff").startswith("FAIL")
        assert inside.ask("outb 0x10000 0").startswith("FAIL")
        assert inside.ask("readl 0x200008000") == "OK 0x0000000080171fff"


# -- time -----------------------------------------------------------------------------------------------

CLINT, MTIMECMP, MTIME = 0x0200_0000, 0x4000, 0xBFF8


def test_time_stands_still_until_it_is_moved():
    with Inside("-M", "virt", name="qemu-system-riscv64") as inside:
        for _ in range(5):
            assert inside.ask(f"readq {CLINT + MTIME:#x}") == "OK 0x0000000000000000"
        assert inside.ask("clock_step 1000") == "OK 1000"
        assert inside.ask(f"readq {CLINT + MTIME:#x}") == "OK 0x000000000000000a"
        assert inside.ask("clock_set 5000") == "OK 5000"
        assert inside.ask("clock_set 10") == "OK 5000"
        assert inside.ask("clock_step") == "OK 5000"
        assert inside.ask("clock_step 0") == "OK 5000"
        assert inside.ask("clock_step 9223372036854775807") == "OK 9223372036854775807"


def test_a_step_without_a_time_goes_to_the_next_timer():
    with Inside("-M", "virt", name="qemu-system-riscv64") as inside:
        hart = inside.emulator.machine.cpu
        hart.write_register("mie", 1 << 7)  # machine timer interrupt
        inside.ask(f"writeq {CLINT + MTIMECMP:#x} 1000")  # ticks of 100 ns
        assert not hart.irq_pending()
        assert inside.ask("clock_step") == "OK 100000"
        assert hart.irq_pending()
        assert inside.ask("clock_step") == "OK 100000"


def test_timers_until_a_time_run_in_their_order():
    with Inside("-M", "virt", name="qemu-system-riscv64") as inside:
        fired, scheduler = [], inside.emulator.scheduler

        def again():
            fired.append(scheduler.clock.now_ns())
            if len(fired) < 3:
                scheduler.call_at(scheduler.clock.now_ns() + 10, again)

        scheduler.call_at(15, lambda: fired.append("fifteen"))
        scheduler.call_at(10, again)
        assert inside.ask("clock_step 25") == "OK 25"
        assert fired == [10, "fifteen", 20]
