"""Progress and signals of e2kdisk-img: a bar on a terminal, percents elsewhere, SIGUSR1, Ctrl-C, the ends that kill."""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import oracles

ROOT = Path(__file__).resolve().parent.parent
OURS = [
    sys.executable,
    "-I",
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'qemu-img';"
    "from e2kdisk.tools.img.main import script; script()",
]
PERCENTS = re.compile(rb"(    \(\d+\.\d\d/100%\)\r)+\n")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(1 << 20) * 24)
    return path


def on_a_terminal(command, columns=100):
    """Run a command with a terminal as its output: (status, what it has shown)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.pop("COLUMNS", None)
        os.execv(command[0], command)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    shown = b""
    try:
        while part := os.read(fd, 65536):
            shown += part
    except OSError:  # the other side is closed
        pass
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_a_terminal_gets_a_bar_on_one_line(data, tmp_path):
    status, shown = on_a_terminal([*OURS, "convert", "-p", "-r", "16M", "-f", "raw", str(data), str(tmp_path / "t")])
    assert status == 0
    lines = shown.split(b"\r\n")
    assert lines[1:] == [b""]  # never a second line
    drawn = [text.removesuffix(b"\x1b[K").decode() for text in lines[0].split(b"\r") if text]
    assert len(drawn) > 2
    assert all(len(text) < 100 and re.match(r"\[#*-*\] +\d+\.\d%  ", text) for text in drawn)
    assert drawn[-1].startswith("[" + "#" * 40 + "] 100.0%  24 MiB of 24 MiB, ")
    assert "s left" in "".join(drawn)


def test_the_bar_is_cut_where_the_terminal_ends(data, tmp_path):
    _, shown = on_a_terminal([*OURS, "convert", "-p", "-r", "100M", "-f", "raw", str(data), str(tmp_path / "t")], 30)
    assert max(len(text) for text in shown.replace(b"\x1b[K", b"").strip().split(b"\r")[2:]) < 30


def test_an_error_behind_a_bar_has_a_line_of_its_own(data):
    status, shown = on_a_terminal([*OURS, "convert", "-p", "-f", "raw", str(data), "/nodir/t"])
    assert status == 1
    assert re.search(rb"(^|\r\n)qemu-img: /nodir/t: error while converting raw: [^\r]*\r\n$", shown)


@pytest.mark.parametrize("command", ["convert", "compare"])
def test_a_pipe_gets_percents_as_qemu_img_prints_them(data, tmp_path, command):
    arguments = [command, "-p", "-f", "raw", data, data if command == "compare" else tmp_path / "t"]
    done = subprocess.run([*OURS, *map(str, arguments)], capture_output=True, check=True)
    assert PERCENTS.fullmatch(done.stdout.replace(b"Images are identical.\n", b""))
    assert b"(100.00/100%)" in done.stdout


def heed_sighup():
    """Whoever runs the tests under nohup has it ignored, and a process inherits that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def running(data, target, *options):
    """A convert that takes seconds, when its first bytes are written."""
    command = [*OURS, "convert", *options, "-r", "2M", "-f", "raw", "-O", "qcow2", data, target]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_sighup,  # noqa: PLW1509  (nothing else runs in this process)
    )
    while not target.exists() or target.stat().st_size < 1 << 20:
        time.sleep(0.01)
        assert process.poll() is None
    return process


def test_sigusr1_prints_the_progress_once_without_p_and_is_ignored_with_it(data, tmp_path):
    process = running(data, tmp_path / "t")
    process.send_signal(signal.SIGUSR1)
    assert re.fullmatch(rb"    \(\d+\.\d\d/100%\)\n", process.stderr.readline())
    process.kill()
    process.communicate()
    process = running(data, tmp_path / "u", "-p")
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    assert process.poll() is None
    process.kill()
    process.communicate()


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_qemu_img_and_leaves_at_most_leaks(data, tmp_path, number):
    process = running(data, tmp_path / "t", "-c")
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (-number, b"", b"")
    assert oracles.check_image(tmp_path / "t").get("corruptions", 0) == 0


def limited():
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_file_size_limit_says_the_same_as_to_qemu_img(data, tmp_path, format):
    said = []
    for program in ([oracles.find_program("qemu-img")], OURS):
        command = [*program, "convert", "-f", "raw", "-O", format, data, tmp_path / "t"]
        done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, check=False)
        said.append((done.returncode, done.stdout, re.sub(r"at byte \d+", "at byte N", done.stderr)))
        (tmp_path / "t").unlink(missing_ok=True)
    assert said[1] == said[0]
