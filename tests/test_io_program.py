"""e2kdisk io as a program: its name, its start, the world's mishaps; what its numbers look like."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.qcow2.create import create
from e2kdisk.tools.io.commands import COMMANDS
from e2kdisk.tools.io.getopt import OptionError, options, short_options
from e2kdisk.tools.io.values import ValueProblem, dump, human, parse_number, parse_size, report

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[:2] = sys.argv[1:2]; "
    "from e2kdisk.tools.io.program import script; script()"
)


def run(*arguments, name="e2kdisk-io", python=("-I",), **more):
    return subprocess.run(
        [sys.executable, *python, "-c", SCRIPT, name, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
        **{"input": "", **more},
    )


@pytest.fixture
def disk(tmp_path):
    create(tmp_path / "disk.qcow2", 1 << 20)
    return tmp_path / "disk.qcow2"


def test_messages_and_the_prompt_have_the_name_that_it_was_called_by(disk):
    for name, shown in (("/usr/bin/qemu-io", "qemu-io"), ("e2kdisk-io", "e2kdisk-io")):
        assert run("nope", name=name).stderr.startswith(f"{shown}: can't open device nope: ")
        assert run(disk, name=name).stdout == f"{shown}> "


def test_as_a_sub_command_of_e2kdisk(disk):
    command = [sys.executable, "-m", "e2kdisk", "io", "-c", "length", "-c", "truncate 1", str(disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "1 MiB\n")
    assert done.stderr == "e2kdisk io: The new size must be a multiple of 512\n"


def test_it_starts_without_what_it_does_not_need(disk):
    done = run("-r", "-c", "read -P 0 0 64k", "-c", "info", disk, python=("-I", "-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    packages = {name.split(".")[0] for name in imported}
    assert "e2kdisk.qcow2.image" in imported
    heavy = {"numpy", "unicorn", "capstone", "asyncio", "cryptography", "logging", "fdt", "argparse"}
    assert packages & heavy == set()
    assert not {name for name in imported if name.startswith(("e2kdisk.devices", "e2kdisk.machine"))}


def test_closed_standard_files_are_no_accident(disk):
    done = run(disk, preexec_fn=lambda: os.close(0), input=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert run("-c", "length", disk, preexec_fn=lambda: os.close(1)).returncode in (0, 1)


def test_a_full_disk_under_the_output_is_one_line(disk):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-I", "-c", SCRIPT, "e2kdisk-io", "-c", "length", str(disk)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0  # as qemu-io's, which says nothing
    assert done.stderr == "e2kdisk-io: standard output: No space left on device\n"


def test_a_name_that_is_no_text(tmp_path):
    name = os.fsdecode(b"b\xffd.qcow2")
    assert "Could not open" in run("-c", "length", name, cwd=tmp_path).stderr
    create(tmp_path / name, 1 << 20)
    assert run("-c", "length", name, cwd=tmp_path).stdout == "1 MiB\n"


def test_a_damaged_image_says_what_and_where(disk):
    with disk.open("r+b") as file:
        file.seek(40)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write((1 << 63 | 0x7FFFFFFF0000).to_bytes(8, "big"))
    done = run("-c", "read 0 512", "-c", "length", disk)
    assert done.returncode == 1
    assert "read failed: Input/output error" in done.stdout
    assert "L1 entry" in done.stderr
    assert "Traceback" not in done.stderr


def test_waiting_for_what_never_comes_is_an_error_not_a_hang(disk):
    done = run("-c", "wait_break A", f"blkdebug::{disk}")
    assert (done.returncode, done.stderr) == (1, "e2kdisk-io: no request comes to breakpoint 'A'\n")
    commands = ("-c", "break write_aio A", "-c", "aio_write 0 64k", "-c", "aio_flush")
    done = run(*commands, f"blkdebug::{disk}")
    assert done.returncode == 1
    assert "suspended at breakpoint A" in done.stderr
    assert "wrote 65536/65536 bytes at offset 0" in done.stdout  # resumed to close the image


def test_a_temporary_overlay_leaves_nothing_behind(disk, tmp_path):
    before = disk.read_bytes()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run("-s", "-c", "write 0 64k", disk, env={**os.environ, "TMPDIR": str(scratch)})
    assert done.returncode == 0
    assert disk.read_bytes() == before
    assert not list(scratch.iterdir())


def test_zero_detection_makes_zero_clusters(disk):
    done = run("-c", f"open -o detect-zeroes=unmap {disk}", "-c", "write -P 0 0 64k", "-c", "info", "-c", "alloc 0 64k")
    assert done.returncode == 0
    assert disk.stat().st_size < 512 * 1024


def test_every_command_explains_itself():
    for command in COMMANDS:
        assert command.usage.startswith(command.name)
        assert command.what
        assert run("-c", f"help {command.name}").returncode == 0 if command.name == "read" else True


# -- words and numbers ----------------------------------------------------------------------------


def test_options_are_read_as_getopt_reads_them():
    assert short_options(["0", "-qP1", "64k", "-s", "5"], "qP:s:") == (
        [("q", ""), ("P", "1"), ("s", "5")],
        ["0", "64k"],
    )
    assert short_options(["--", "-q"], "q") == ([], ["-q"])
    assert options(["--form=raw", "-r"], "r", {"format": True}) == ([("format", "raw"), ("r", "")], [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-x"], "invalid option -- 'x'"),
        (["-P"], "option requires an argument -- 'P'"),
        (["--foo"], "unrecognized option '--foo'"),
        (["--format"], "option '--format' requires an argument"),
        (["--read=x"], "option '--read' doesn't allow an argument"),
    ],
)
def test_wrong_options_have_the_c_librarys_words(words, message):
    with pytest.raises(OptionError, match=message):
        options(words, "P:", {"format": True, "read": False})


@pytest.mark.parametrize(("text", "value"), [("512", 512), ("1.5k", 1536), ("0x10", 16), ("010", 10), ("7E", 7 << 60)])
def test_sizes(text, value):
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "1kk", "1.5", ".5k", "1e3", "8E", "9223372036854775808", "0x"])
def test_what_is_no_size(text):
    with pytest.raises(ValueProblem, match="Parsing error: "):
        parse_size(text)


def test_numbers_with_base_0():
    assert [parse_number(text) for text in ("10", "0x10", "010", "-1", "1k", "", "08")] == [
        10,
        16,
        8,
        -1,
        None,
        None,
        None,
    ]


def test_reports():
    assert [human(value) for value in (0, 1, 1536, 1 << 30)] == ["0 bytes", "1 bytes", "1.500 KiB", "1 GiB"]
    assert report("read", 0, 65536, 0.5) == (
        "read 65536/65536 bytes at offset 0\n64 KiB, 1 ops; 00.50 sec (128 KiB/sec and 2.0000 ops/sec)"
    )
    assert report("read", 0, 65536, 0.5, machine=True) == "65536,1,0:00:00.50,131072.000,2.000"
    assert dump(b"abc!\x00", 16) == "00000010:  61 62 63 21 00  abc.."
