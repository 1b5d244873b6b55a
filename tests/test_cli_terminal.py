"""e2kdisk run on a terminal: keys reach the guest, one is ours, and the terminal is as before afterwards."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import e2kdisk
from e2kdisk.tools.terminal import EscapeKeys, Key
from tests import oracles
from tests.guest_pattern import options_sector

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "TERM": "xterm"}
LIMIT = 60


class Screen:
    """A person at a terminal that runs one command."""

    def __init__(self, *arguments):
        self.person, self.terminal = pty.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "e2kdisk", *map(str, arguments)],
            env=ENVIRONMENT,
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
        )

    def type(self, keys):
        os.write(self.person, keys)

    def wait_for(self, pattern):
        deadline = time.monotonic() + LIMIT
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.person], [], [], 0.1)[0]:
                self.seen += os.read(self.person, 4096).decode("latin-1")
        self.seen = self.seen[found.end() :]

    def ends(self):
        """Wait for the end, and return (exit status, what the terminal still shows)."""
        status = self.process.wait(timeout=LIMIT)
        while select.select([self.person], [], [], 0)[0]:
            self.seen += os.read(self.person, 4096).decode("latin-1")
        assert termios.tcgetattr(self.terminal) == self.before
        return status, self.seen

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        os.close(self.person)
        os.close(self.terminal)


@pytest.fixture
def endless(tmp_path):
    """Arguments of a run that never ends by itself."""
    e2kdisk.create(tmp_path / "disk.qcow2", 1 << 20)
    with e2kdisk.open_disk(tmp_path / "disk.qcow2") as disk:
        disk.pwrite(0, options_sector(mode="write", rounds=0))
    return ["run", "--bios", "demo", "--drive", tmp_path / "disk.qcow2"]


def test_our_keys_are_taken_out_and_all_others_pass():
    keys = EscapeKeys()
    assert keys.feed(b"ls\x03\r") == [b"ls\x03\r"]
    assert keys.feed(b"ab\x01hcd\x01x") == [b"ab", Key.HELP, b"cd", Key.QUIT]
    assert keys.feed(b"\x01\x01\x01zq") == [b"\x01q"]
    assert keys.feed(b"\x01") == []
    assert keys.feed(b"R") == [Key.RESET]


@pytest.mark.guest
def test_the_hint_comes_first_and_the_escape_ends_the_run(endless):
    with Screen(*endless) as screen:
        screen.wait_for("Ctrl-A x ends")
        screen.wait_for("flushed 1\r\n")
        screen.type(b"\x01h")
        screen.wait_for(r"Ctrl-A r +reset the guest\r\n")
        screen.type(b"\x01r")
        screen.wait_for("e2kdisk: reset\r\n")
        screen.wait_for("e2kdisk guest: cpu arm64")
        screen.type(b"\x01x")
        assert screen.ends()[0] == 0
    assert e2kdisk.check(endless[-1]).clean


@pytest.mark.guest
def test_ctrl_c_belongs_to_the_guest(endless):
    with Screen(*endless) as screen:
        screen.wait_for("flushed 1\r\n")
        screen.type(b"\x03\x1a\x1c")
        screen.wait_for("flushed")
        screen.wait_for("flushed")
        assert screen.process.poll() is None
        screen.type(b"\x01x")
        assert screen.ends()[0] == 0


@pytest.mark.guest
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(endless, number):
    with Screen(*endless) as screen:
        screen.wait_for("flushed 1\r\n")
        screen.process.send_signal(number)
        status, rest = screen.ends()
    assert status == 128 + number
    assert ("interrupted" in rest) == (number == signal.SIGINT)
    assert "Traceback" not in rest
    assert e2kdisk.check(endless[-1]).clean


@pytest.mark.guest
def test_an_error_gives_the_terminal_back(endless):
    with Screen(*endless, "--max-instructions", "3M") as screen:
        status, rest = screen.ends()
    assert status == 1
    assert "e2kdisk: the limit of 3000000 instructions is reached" in rest


@pytest.mark.guest
def test_the_demo_has_colours_on_a_terminal():
    with Screen("demo", "--size", "2M") as screen:
        screen.wait_for("\x1b\\[1mWhat the guest says")
        screen.wait_for("\x1b\\[32mkernel: done")
        screen.wait_for("Try next")
        assert screen.ends()[0] == 0


@pytest.mark.guest
@pytest.mark.needs("u-boot-qemu")
def test_u_boot_is_talked_to_at_its_prompt(endless):
    arguments = [*endless, "--bios", oracles.uboot("qemu_arm64")]
    with Screen(*arguments) as screen:
        screen.wait_for("Hit any key")
        screen.type(b" ")
        screen.wait_for("=> ")
        screen.type(b"echo $board_name$arch one; echo t\x7fwo\r")
        screen.wait_for(r"\n\S+ one\s+wo\s+=> ")
        screen.type(b"poweroff\r")
        assert screen.ends()[0] == 0


@pytest.mark.guest
def test_exploring_draws_a_bar_on_a_terminal():
    with Screen("lab", "explore", "guest-arm64", "--rules", "plain", "--seeds", "32") as screen:
        screen.wait_for(r"\[#{15}-{15}\]  50%  16 runs, \d+ a second, 0 failures")
        screen.wait_for(r"\[#{30}\] 100%  32 runs")
        screen.wait_for(r"32 runs \(1 different\)")
        assert screen.ends()[0] == 0
