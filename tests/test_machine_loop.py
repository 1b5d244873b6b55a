"""The machine's loop: time, console, reset, power, traces, and disks that are drained and closed as they should be."""

import io
import json
import struct
import time
from pathlib import Path

import pytest

from e2kdisk import Machine, UsageError, open_disk
from e2kdisk.aio.clock import HostClock, VirtualClock
from e2kdisk.machine.console import ConsoleError, ConsoleTimeout
from e2kdisk.machine.machine import StopReason
from e2kdisk.machine.trace import Tracer
from tests.guest_code import CALL_STORE_CALL, IN, Layout, returning
from tests.guest_pattern import options_sector

pytestmark = pytest.mark.guest

IMAGES = Path(__file__).resolve().parent.parent / "firmware/images"
RAM, SLOT0 = 0x4000_0000, 0x0A00_0000
CODE = RAM + 0x10_0000
SPIN = struct.pack("<I", 0x14000000)
WFI = struct.pack("<2I", 0xD503207F, 0x17FFFFFF)


@pytest.fixture
def raw_disk(tmp_path):
    """A raw image of 8 MiB; its first sector tells the demo guest what to do."""

    def make(name="disk.raw", **options):
        path = tmp_path / name
        path.write_bytes(options_sector(**options) + bytes((8 << 20) - 512))
        return path

    return make


def put(machine, address, data):
    machine.board.ram.view[address - RAM : address - RAM + len(data)] = data


# Threads and host time: the guest does not wait for its request, so nobody knows which code its second call finds.
@pytest.mark.parametrize(("engine", "clock"), [("auto", "virtual"), ("auto", "host"), ("threads", "virtual")])
def test_a_disk_dma_over_code_that_has_run_executes_the_new_code(raw_disk, engine, clock):
    path = raw_disk()
    with path.open("r+b") as file:
        file.seek(512)
        file.write(returning(2))
    layout = Layout(RAM + 0x20_0000)
    with (
        open_disk(path, format="raw", engine=engine) as disk,
        Machine("virt-arm64", bios=CALL_STORE_CALL, drives=[disk], clock=clock) as machine,
    ):
        for address, data in (layout.memory(IN, 1, CODE, 512) | {CODE: returning(1)}).items():
            put(machine, address, data)
        for name, value in {"x0": layout.table, "x3": SLOT0, "x4": CODE}.items():
            machine.cpu.write_register(name, value)
        assert machine.run(10_000) is StopReason.POWER_OFF
        assert [machine.cpu.read_register(name) for name in ("x20", "x21")] == [1, 2]


@pytest.mark.parametrize("cpu", ["arm64", "riscv64"])
@pytest.mark.parametrize("version", [1, 2])
def test_our_own_guest_passes_on_our_own_boards(raw_disk, cpu, version):
    with Machine(
        f"virt-{cpu}", bios=IMAGES / f"guest-{cpu}.bin", drives=[raw_disk(sectors=2048)], virtio_version=version
    ) as machine:
        machine.console.expect("PASS")
        assert machine.run() is StopReason.POWER_OFF
        assert machine.board.exit_code == 0


def test_two_runs_are_the_same_whatever_engine_serves_the_disk(raw_disk):
    runs = []
    for engine in ("auto", "auto", "threads", "threads"):
        # One request in flight: what threads decide is the order, and here there is none to decide.
        with (
            open_disk(raw_disk(sectors=1024, inflight=1), format="raw", engine=engine) as disk,
            Machine(bios=IMAGES / "guest-arm64.bin", drives=[disk]) as machine,
        ):
            assert machine.run(100_000_000) is StopReason.POWER_OFF
            runs.append((machine.instructions, machine.time.now_ns(), machine.console.transcript))
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert "PASS" in runs[0][2]


def test_under_the_virtual_clock_no_thread_decides_where_a_slice_ends(raw_disk):
    ends = []
    for delay in (0.0, 0.002):
        with open_disk(raw_disk(sectors=64, inflight=1), format="raw", engine="threads") as disk:
            post = disk.scheduler.post

            def post_late(*args, delay=delay, post=post, **kwargs):
                post(*args, **kwargs)
                time.sleep(delay)
                if disk.scheduler.on_post is not None:
                    disk.scheduler.on_post()

            disk.scheduler.post = post_late
            budgets = []
            with Machine(bios=IMAGES / "guest-arm64.bin", drives=[disk]) as machine:
                run = machine.cpu.run

                def noted(budget, run=run, budgets=budgets):
                    budgets.append(run(budget))
                    return budgets[-1]

                machine.cpu.run = noted
                assert machine.run(100_000_000) is StopReason.POWER_OFF
        ends.append(budgets)
    assert ends[0] == ends[1]


def test_an_instruction_limit_is_exact():
    with Machine(bios=SPIN) as machine:
        assert machine.run(1) is StopReason.LIMIT
        assert machine.run(123_456) is StopReason.LIMIT
        assert machine.instructions == 123_457
        assert machine.time.now_ns() == 1_234_570


def test_a_guest_that_waits_for_nothing_is_told_so_instead_of_hanging():
    with Machine(bios=WFI) as machine:
        assert machine.run() is StopReason.IDLE
        with pytest.raises(ConsoleError, match="waits for an interrupt that nothing can raise"):
            machine.console.expect("anything")


def test_a_sleeping_guest_skips_to_the_next_timer():
    with Machine(bios=WFI) as machine:
        woken = []
        machine.scheduler.call_at(3600 * 10**9, lambda: woken.append(machine.time.now_ns()))
        machine.run()
    assert woken and 3600 * 10**9 <= woken[0] < 3601 * 10**9


def test_a_fault_ends_the_run_with_a_line_and_the_console_error_has_it():
    code = struct.pack("<2I", 0xD2AEEEE0, 0xB9000001)  # mov x0, #0x77770000; str w1, [x0]
    with Machine(bios=code) as machine:
        with pytest.raises(ConsoleError, match=r"store where nothing is at 0x77770000, pc 0x4: str w1, \[x0\]"):
            machine.console.expect("anything")
        assert machine.fault is not None and machine.fault.address == 0x77770000
        machine.reset()
        assert machine.fault is None
        assert machine.run(10) is StopReason.FAULT


def test_expect_goes_on_after_what_it_found_and_a_time_limit_shows_the_end_of_the_output(raw_disk):
    with Machine(bios=IMAGES / "guest-arm64.bin", drives=[raw_disk(sectors=1024)]) as machine:
        console = machine.console
        assert console.expect(r"slot (\d+) at (\S+),")[2] == "0xa000000"
        assert console.expect("options:").start() > console.transcript.index("slot")
        with pytest.raises(
            ConsoleTimeout, match=r"expected 'slot', but not within 0.001 s; the output ends with '.*options"
        ):
            console.expect("slot", timeout=0.001)
        console.expect("PASS")
        with pytest.raises(ConsoleError, match="the guest powered off"):
            console.expect("more")


def test_reset_keeps_the_disk_and_starts_from_the_beginning(raw_disk):
    with Machine(bios=IMAGES / "guest-arm64.bin", drives=[raw_disk(mode="write", sectors=1024)]) as machine:
        machine.console.expect("options:")
        machine.run(200_000)
        machine.reset()
        machine.console.expect("PASS")
        assert machine.console.transcript.count("options:") == 2


def test_a_trace_names_registers_and_instructions_and_keeps_what_is_wanted(raw_disk, tmp_path):
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, format="json", only=["virtio-blk0"])
    with Machine(bios=IMAGES / "guest-arm64.bin", drives=[raw_disk(sectors=64, start=3)], trace=tracer) as machine:
        machine.console.expect("PASS")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(events) == tracer.events
    assert {event["source"] for event in events} == {"virtio-blk0"}
    notify = next(event for event in events if event.get("register") == "QueueNotify")
    assert notify["kind"] == "write" and notify["code"].startswith("str") and notify["ns"] > 0


def test_a_text_trace_goes_to_any_file_object(raw_disk):
    text = io.StringIO()
    with Machine(
        bios=IMAGES / "guest-riscv64.bin", board="virt-riscv64", trace=Tracer(text, only=["sifive-test"])
    ) as machine:
        assert machine.run(10_000_000) is StopReason.POWER_OFF
    assert "sifive-test  write register=finisher" in text.getvalue()


def test_an_overlap_of_clocks_is_settled_by_the_machine(raw_disk):
    with open_disk(raw_disk(), format="raw") as disk:
        assert isinstance(disk.scheduler.clock, HostClock)
        with Machine(bios=SPIN, drives=[disk]) as machine:
            assert machine.scheduler is disk.scheduler
            assert isinstance(disk.scheduler.clock, VirtualClock)
        assert not disk.closed, "a disk that was given stays its owner's"


def test_disks_opened_by_the_machine_are_closed_with_it(raw_disk):
    machine = Machine(bios=SPIN, drives=[raw_disk("a.raw"), f"file={raw_disk('b.raw')},format=raw,readonly=on"])
    machine.close()
    machine.close()
    assert [disk.closed for disk in machine.disks] == [True, True]
    assert [disk.read_only for disk in machine.disks] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"board": "virt-vax"}, "unknown board 'virt-vax'; known are elbrus, virt-arm64, virt-riscv64"),
        ({"ram": 1 << 20}, "1048576 bytes of RAM: virt-arm64 needs"),
        ({"clock": "sun"}, "unknown clock 'sun'; known are virtual, host"),
        ({"virtio_version": 3}, "virtio version 3"),
        ({"bios": bytes((64 << 20) + 1)}, "does not fit into"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message):
    with pytest.raises(UsageError, match=message):
        Machine(**arguments)


def test_disks_of_two_schedulers_and_too_many_disks_are_refused(raw_disk):
    with (
        open_disk(raw_disk("a.raw"), format="raw") as a,
        open_disk(raw_disk("b.raw"), format="raw") as b,
        pytest.raises(UsageError, match=r"b.raw: opened with another scheduler"),
    ):
        Machine(drives=[a, b])
    drives = [f"file={raw_disk('c.raw')},format=raw,readonly=on"] * 9
    with pytest.raises(UsageError, match="8 slots for disks"):
        Machine("virt-riscv64", drives=drives)
