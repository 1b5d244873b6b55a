"""e2kdisk run with the Elbrus board: firmware, drives, console, traces, exit status."""

import re

import pytest

import e2kdisk
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.tools import main
from tests.elbrus_lab import FIRMWARE, PORTS, PUT_CHARACTER, SPMC
from tests.elbrus_reader import READER

pytestmark = pytest.mark.guest

PRINT_STATUS = (
    f"""
    addd 0, {PORTS} -> r4
    ldb,2,io [r4 + 0x1f7] -> r8
    disp ctpr1, put
    call ctpr1, wbs=4
"""
    + "{end}"
    + PUT_CHARACTER
)
"""Prints the drive's status, 0x50: "P"."""
HALT = "stop: branch stop"
OFF = f"""
    addd 0, {SPMC} -> r3
    addd 0, 0x3400 -> r4
    stw r4 -> [r3 + 0x4c]
    branch .
"""


@pytest.fixture
def call(capfdbinary, tmp_path, monkeypatch):
    """Call `call(firmware, *arguments, script=None) -> (status, output, errors)` of e2kdisk run --board elbrus."""
    monkeypatch.chdir(tmp_path)
    for name in ("disk.qcow2", "other.qcow2"):
        e2kdisk.create(tmp_path / name, 1 << 20)

    def call(firmware, *arguments, script="poweroff 5\n"):
        (tmp_path / "fw.bin").write_bytes(assemble(firmware, base=FIRMWARE).code)
        (tmp_path / "script.txt").write_text(script)
        given = ["run", "--board", "elbrus", "--bios", "fw.bin", "--script", "script.txt", *arguments]
        status = main.main(given)
        captured = capfdbinary.readouterr()
        return status, captured.out.decode("latin-1"), captured.err.decode()

    return call


@pytest.mark.parametrize("clock", ["virtual", "host"])
def test_a_firmware_finds_its_ide_drive_prints_and_powers_off(call, clock):
    program = PRINT_STATUS.replace("{end}", OFF)
    assert call(program, "--drive", "file=disk.qcow2,if=ide", "--clock", clock) == (0, "P", "")


def test_a_firmware_that_halts_is_the_end_but_no_power_off(call):
    program = PRINT_STATUS.replace("{end}", HALT)
    assert call(program, "--drive", "disk.qcow2", script="expect P\n") == (0, "P", "")
    status, _, errors = call(program, "--drive", "disk.qcow2")
    assert (status, errors) == (1, "e2kdisk: script.txt, line 1: the guest has not powered off: the guest has halted\n")


def test_the_trace_has_wide_instructions_beside_registers_of_the_drives(call, tmp_path):
    program = PRINT_STATUS.replace("{end}", OFF)
    call(program, "--drive", "file=disk.qcow2,if=ide", "--drive", "file=other.qcow2,if=virtio", "--trace", "t.txt")
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert all(" ide0 " in line for line in lines)
    first = next(line for line in lines if " read " in line)
    assert re.search(r'read register=.*status.* value=0x50 .*code="ldb,2,io \[r4 \+ 0x1f7\] -> r8"', first, re.I)
    call(program, "--trace", "t.txt", "--trace-of", "escc,spmc")
    sources = {line.split()[1] for line in (tmp_path / "t.txt").read_text().splitlines()}
    assert sources == {"escc", "spmc"}


def test_the_other_cpu_runs_on_the_same_board(call):
    given = ("--cpu", "arm64", "--bios", READER, "--drive", "disk.qcow2")
    script = 'expect "> "\nsend dma 1\nexpect done\nsend off\npoweroff 1\n'
    status, output, errors = call(HALT, *given, script=script)
    assert (status, errors) == (0, "") and output.startswith("e2kdisk reader: cpu arm64 on elbrus\n> ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--cpu", "vax"], "board elbrus has no CPU 'vax'; it has e2k or arm64"),
        (["--quirk", "none"], "board elbrus has no quirk 'none'; it has qemu-offset"),
        (["--serial", "7"], "serial port 7: board elbrus has 2, counted from 0"),
        (["--drive", "file=disk.qcow2,if=ahci"], "if=ahci: board elbrus has no such controller; it has ide, virtio"),
        (["--trace", "t", "--trace-of", "esc"], "unknown device in --trace-of 'esc'; did you mean 'escc'? "),
    ],
)
def test_a_wrong_argument_is_one_line(call, arguments, line):
    status, output, errors = call(HALT, *arguments)
    assert (status, output, errors.count("\n")) == (1, "", 1) and errors.startswith(f"e2kdisk: {line}")
