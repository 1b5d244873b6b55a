"""e2kdisk run through pipes and scripts: what is typed and printed, traces, exit status, one line for each error."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import e2kdisk
from e2kdisk.tools import main
from tests import oracles
from tests.guest_pattern import options_sector

pytestmark = pytest.mark.guest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
UBOOT = {"virt-arm64": "qemu_arm64", "virt-riscv64": "qemu-riscv64"}


@pytest.fixture
def make_disk(tmp_path, monkeypatch):
    """Call `make_disk(name="disk.qcow2", **options of the guest) -> path`, in the test's own directory."""
    monkeypatch.chdir(tmp_path)

    def make_disk(name="disk.qcow2", **options):
        e2kdisk.create(tmp_path / name, 1 << 20)
        with e2kdisk.open_disk(tmp_path / name) as disk:
            disk.pwrite(0, options_sector(**options))
        return tmp_path / name

    return make_disk


@pytest.fixture
def call(capfdbinary, tmp_path, monkeypatch):
    """Call `call(*arguments, script=None) -> (status, output, errors)` of e2kdisk run."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, script=None):
        if script is not None:
            (tmp_path / "script.txt").write_text(script)
            arguments = (*arguments, "--script", "script.txt")
        status = main.main(["run", *map(str, arguments)])
        captured = capfdbinary.readouterr()
        return status, captured.out.decode(), captured.err.decode()

    return call


def run(*arguments, **options):
    """A process of its own with the standard input in a pipe."""
    command = [sys.executable, "-m", "e2kdisk", "run", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=False, **options)


# -- pipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", UBOOT)
@pytest.mark.parametrize("options", [[], ["--virtio", "1"], ["--clock", "virtual"]])
def test_the_console_goes_to_the_output_until_the_guest_powers_off(make_disk, board, options):
    make_disk()
    drive = "disk.qcow2,serial=named by me"
    done = run("--board", board, "--bios", "demo", "--drive", drive, *options, input=b"")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'id "named by me"' in done.stdout
    assert done.stdout.rstrip().endswith(b"PASS")


def test_a_closed_input_is_an_empty_one(make_disk):
    make_disk()
    done = run("--bios", "demo", "--drive", "disk.qcow2", preexec_fn=lambda: os.close(0))
    assert done.returncode == 0
    assert b"PASS" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_leaves_a_clean_image(make_disk, number):
    image = make_disk(mode="write", rounds=0)
    command = [sys.executable, "-m", "e2kdisk", "run", "--bios", "demo", "--drive", image]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while b"flushed 2" not in process.stdout.readline():
            pass
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (process.returncode, errors) == (130, b"e2kdisk: interrupted\n")
    else:
        assert (process.returncode, errors) == (128 + number, b"")
    assert e2kdisk.check(image).clean


def test_a_reader_that_goes_away_ends_the_run_quietly(make_disk):
    image = make_disk(mode="write", rounds=0)
    command = [sys.executable, "-m", "e2kdisk", "run", "--bios", "demo", "--drive", image]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1
    assert e2kdisk.check(image).clean


# -- scripts --------------------------------------------------------------------------------------


def test_a_script_that_ends_is_a_success(make_disk, call):
    make_disk(rounds=3)
    script = "expect round (\\d): verified\nexpect flushed 3\\b 20\nexpect PASS\npoweroff 1\n"
    status, output, errors = call("--bios", "demo", "--drive", "disk.qcow2", script=script)
    assert (status, errors) == (0, "")
    assert "PASS" in output


def test_a_script_keeps_a_machine_and_another_command_goes_on_with_it(make_disk, call):
    path = make_disk(rounds=3)
    drive = ("--bios", "demo", "--drive", "disk.qcow2")
    script = "expect flushed 1\\b\nsavevm after one\nexpect PASS\nloadvm after one\nexpect flushed 3\nexpect PASS\n"
    assert call(*drive, script=script)[::2] == (0, "")
    assert "after one" in oracles.qemu_img("snapshot", "-l", path)
    status, output, errors = call(*drive, "--loadvm", "after one", script="expect PASS\ndelvm after one\n")
    assert (status, errors) == (0, "")
    assert "flushed 3" in output
    assert "after one" not in oracles.qemu_img("snapshot", "-l", path)
    status, _, errors = call(*drive, script="loadvm nowhere\n")
    assert (status, errors) == (
        1,
        "e2kdisk: script.txt, line 1: disk.qcow2: there is no snapshot with id or name 'nowhere'\n",
    )


def test_an_expect_goes_on_after_the_one_before(make_disk, call):
    make_disk()
    script = "expect PASS\nexpect cpu arm64 1\n"
    status, _, errors = call("--bios", "demo", "--drive", "disk.qcow2", script=script)
    assert status == 1
    assert errors == (
        "e2kdisk: script.txt, line 2: expected 'cpu arm64': the guest powered off; the last line is 'PASS'\n"
    )


def test_an_expect_that_times_out_shows_the_end_of_the_output(make_disk, call):
    make_disk(mode="write", rounds=0)
    script = "expect flushed 1\nexpect NEVER 0.25\n"
    status, output, errors = call("--bios", "demo", "--drive", "disk.qcow2", script=script)
    assert status == 1
    assert re.fullmatch(
        r"e2kdisk: script\.txt, line 2: expected 'NEVER': not within 0\.25 s; the last line is '.*'\n", errors
    )
    assert "flushed 1" in output


def test_what_the_guest_does_not_do_in_its_time_is_an_error(make_disk, call):
    make_disk(mode="write", rounds=0)
    status, _, errors = call("--bios", "demo", "--drive", "disk.qcow2", script="sleep 0.1\npoweroff 0.1")
    assert (status, errors) == (
        1,
        "e2kdisk: script.txt, line 2: the guest has not powered off: not within 0.1 s\n",
    )


def test_a_script_may_come_through_the_input(make_disk):
    make_disk()
    done = run("--bios", "demo", "--drive", "disk.qcow2", "--script", "-", input=b"expect PASS\n")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.needs("u-boot-qemu")
@pytest.mark.parametrize("board", UBOOT)
@pytest.mark.parametrize("virtio", [1, 2])
def test_u_boot_follows_a_script(make_disk, call, board, virtio):
    make_disk()
    script = (
        'expect Hit any key\nsend \\x20\\c\nexpect "=> "\nsend virtio scan; virtio info\n'
        "expect Capacity: .*\\(2048 x 512\\)\n"
        'expect "=> "\nsend virtio read 0x81000000 0 1; md.b 0x81000000 0d\nexpect e2kdisk-guest\n'
        'expect "=> "\nsend poweroff\npoweroff 10\n'
    )
    if board == "virt-arm64":
        script = script.replace("0x81", "0x41")
    bios = oracles.uboot(UBOOT[board])
    status, output, errors = call(
        "--board", board, "--virtio", virtio, "--bios", bios, "--drive", "disk.qcow2", script=script
    )
    assert (status, errors) == (0, "")
    assert "U-Boot 20" in output


# -- traces ---------------------------------------------------------------------------------------


def test_a_trace_names_registers_instructions_and_requests(make_disk, call):
    make_disk()
    assert call("--bios", "demo", "--drive", "disk.qcow2", "--trace", "t.txt", script="poweroff")[0] == 0
    lines = Path("t.txt").read_text().splitlines()
    assert re.match(r"\d+\.\d+ virtio-blk0 +read register=MagicValue value=0x74726976 .*code=\"ldr ", lines[0])
    assert any(re.search(r"write register=QueueNotify value=0x0 size=4 pc=0x[0-9a-f]+ code=\"str ", x) for x in lines)
    assert any("request type=OUT" in line for line in lines)
    assert not any("uart" in line for line in lines)


def test_a_trace_in_json_is_the_same_in_every_run(make_disk, call):
    traces = []
    for _ in range(2):
        make_disk()
        assert call("--bios", "demo", "--drive", "disk.qcow2", "--trace", "t.jsonl", script="poweroff")[0] == 0
        traces.append(Path("t.jsonl").read_text())
    assert traces[0] == traces[1]
    events = [json.loads(line) for line in traces[0].splitlines()]
    assert events[0] | {"pc": 0, "code": "", "ns": 0} == {
        "ns": 0, "source": "virtio-blk0", "kind": "read", "register": "MagicValue", "value": 0x74726976, "size": 4,
        "pc": 0, "code": "",
    }  # fmt: skip
    requests = [event for event in events if event["kind"] == "request"]
    assert {request["type"] for request in requests} == {"IN", "OUT", "FLUSH", "GET_ID"}
    assert [event["ns"] for event in events] == sorted(event["ns"] for event in events)


def test_what_is_traced_can_be_chosen(make_disk, call):
    make_disk()
    for names, present, absent in (("uart0", "uart0", "virtio"), ("all", "virtio-blk0", None)):
        arguments = ["--trace", "t.txt", "--trace-of", names]
        assert call("--bios", "demo", "--drive", "disk.qcow2", *arguments, script="expect cpu arm64")[0] == 0
        text = Path("t.txt").read_text()
        assert present in text or names == "all"
        assert absent is None or absent not in text


def test_a_full_disk_for_the_trace_names_the_trace(make_disk, call):
    make_disk()
    arguments = ["--bios", "demo", "--drive", "disk.qcow2", "--trace", "/dev/full"]
    status, _, errors = call(*arguments, script="poweroff")
    assert (status, errors) == (1, "e2kdisk: /dev/full: No space left on device\n")


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give --bios FILE, or --kernel FILE on elbrus; see e2kdisk run --help"),
        (["--board", "virt-arm63"], "unknown board 'virt-arm63'; did you mean 'virt-arm64'? known are elbrus, "),
        (["--bios", "nowhere.bin"], "bios nowhere.bin: No such file or directory; --bios demo is the guest program"),
        (["--bios", "."], "bios .: Is a directory; --bios demo"),
        (["--ram", "lots"], "--ram=lots: not a size; write bytes, or a number with K, M, G or T"),
        (["--ram", "1M"], "--ram=1M: at least 16 MiB is needed"),
        (["--ram", "16777217"], "16777217 bytes of RAM: "),
        (["--ram", "1000T"], "Cannot allocate memory (a smaller --ram may do)"),
        (["--clock", "sun"], "argument --clock: invalid choice: 'sun'"),
        (["--max-instructions", "0"], "--max-instructions 0: not a number above 0"),
        (["--script", "nowhere.txt"], "script nowhere.txt: No such file or directory"),
        (["--trace-of", "virtio-blk1"], "unknown device in --trace-of 'virtio-blk1'; known are all, bus, "),
        (["--trace", "no/where.txt"], "no/where.txt: No such file or directory"),
        (["--drive", "file=nowhere.qcow2"], "nowhere.qcow2: cannot be opened: No such file or directory ('e2kdisk "),
        (["--drive", "."], ".: cannot be opened: it is a directory"),
        (["--drive", "format=qcow2"], "drive 'format=qcow2' names no file; it needs file=PATH"),
        (["--drive", "file=text,format=qcow2"], "text: magic: 0x78787878 is not a qcow2 image"),
        (["--drive", "file=text,format=vmdk"], "unknown image format 'vmdk'; known are qcow2, raw"),
        (["--drive", "file=text,colour=red"], "unknown drive option 'colour'; known are file, format, if"),
        (["--drive", "file=text,readonly"], "drive option 'readonly' has no value; it is written readonly=VALUE"),
        (["--drive", "file=text,readonly=maybe"], "readonly=maybe: must be on or off"),
        (["--drive", "file=text,cache=big"], "unknown cache mode 'big'; known are writeback, "),
        (["--drive", "file=text,if=ide"], "if=ide: board virt-arm64 has no such controller; it has virtio"),
        (["--drive", "file=text,index=3"], "drive 'file=text,index=3': index is not built yet"),
        (["--drive", "file=text,size=1x"], "size=1x: not a size"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line(call, tmp_path, arguments, line):
    (tmp_path / "text").write_text("x" * 1024)
    bios = [] if not arguments or "--bios" in arguments else ["--bios", "demo"]
    status, output, errors = call(*bios, *arguments)
    assert (status, output) == (1, "")
    assert errors.startswith(f"e2kdisk: {line}")
    assert errors.count("\n") == 1


def test_the_instruction_limit_ends_a_run(make_disk, call):
    make_disk(mode="write", rounds=0)
    for script in (None, "expect NEVER 1000"):
        arguments = ["--bios", "demo", "--drive", "disk.qcow2", "--max-instructions", "2M"]
        if script is None:
            done = run(*arguments, input=b"")
            status, errors = done.returncode, done.stderr.decode()
        else:
            status, _, errors = call(*arguments, script=script)
        assert (status, errors) == (1, "e2kdisk: the limit of 2000000 instructions is reached (--max-instructions)\n")


def test_a_guest_that_cannot_go_on_says_where(call, tmp_path):
    (tmp_path / "junk.bin").write_bytes(b"\xff" * 64)
    status, _, errors = call("--bios", "junk.bin", script="sleep 1")
    assert status == 1
    assert re.fullmatch(r"e2kdisk: the guest cannot go on: .*pc 0x0.*\n", errors)


def test_a_read_only_disk_is_read(make_disk, call):
    image = make_disk()
    before = image.read_bytes()
    status, output, _ = call("--bios", "demo", "--drive", "disk.qcow2,readonly=on", script="expect PASS")
    assert status == 0
    assert "disk: read-only" in output
    assert image.read_bytes() == before


@pytest.mark.needs("qemu-utils")
def test_an_image_in_use_is_locked_and_ours_is_locked_for_others(make_disk, call, qemu_img):
    image = make_disk(mode="write", rounds=0)
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        holder.stdin.write("length\n")
        holder.stdin.flush()
        assert "1 MiB" in holder.stdout.readline()
        status, _, errors = call("--bios", "demo", "--drive", "disk.qcow2", script="sleep 1")
        assert status == 1
        assert errors.startswith("e2kdisk: disk.qcow2: locked: ")
        assert errors.count("\n") == 1
        holder.communicate("quit\n")
    command = [sys.executable, "-m", "e2kdisk", "run", "--bios", "demo", "--drive", image]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ours:
        ours.stdout.readline()
        assert "lock" in qemu_img("check", image, check=False)
        ours.send_signal(signal.SIGTERM)
        ours.communicate()


def test_a_backing_file_may_lie_anywhere_for_the_user_who_names_his_images(make_disk, call, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    make_disk("a/base.qcow2")
    e2kdisk.create(tmp_path / "b" / "over.qcow2", 1 << 20, backing_file="../a/base.qcow2", backing_format="qcow2")
    assert call("--bios", "demo", "--drive", "b/over.qcow2", script="expect PASS")[0] == 0
