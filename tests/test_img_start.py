"""e2kdisk-img as a script meets it: its name, a bare interpreter, a short start, closed and full streams."""

import os
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
CODE = (
    "import sys; sys.path.insert(0, {root!r}); sys.argv[0] = {name!r};"
    "from e2kdisk.tools.img.main import script; script()"
)


def command(name="e2kdisk-img", *options):
    return [sys.executable, "-I", *options, "-c", CODE.format(root=str(ROOT), name=name)]


def img(*arguments, name="qemu-img", **options):
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("stdout", subprocess.PIPE)
    done = subprocess.run([*command(name), *map(str, arguments)], timeout=60, check=False, **options)
    assert b"Traceback" not in (done.stderr or b"")
    return done


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.qcow2"
    assert img("create", "-q", "-f", "qcow2", path, "1M").returncode == 0
    return path


@pytest.mark.parametrize("name", ["/usr/bin/qemu-img", "e2kdisk-img", "anything"])
def test_messages_begin_with_the_name_by_which_it_was_called(name):
    assert img("info", "gone", name=name).stderr.startswith(
        os.path.basename(name).encode() + b": Could not open 'gone'"
    )


def test_the_module_of_the_other_command_finds_it():
    done = subprocess.run(
        [sys.executable, "-m", "e2kdisk", "img", "info", "gone"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[:12]) == (1, "e2kdisk img:")


def test_info_imports_nothing_heavy(image):
    done = subprocess.run(
        [*command("qemu-img", "-X", "importtime"), "info", str(image)], capture_output=True, check=True
    )
    loaded = set(re.findall(r"\|\s*([\w.]+)$", done.stderr.decode(), re.MULTILINE))
    heavy = {
        "argparse",
        "asyncio",
        "cryptography",
        "dataclasses",
        "json",
        "logging",
        "numpy",
        "re",
        "threading",
        "typing",
    }
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("e2kdisk.qcow2")} == set()


@pytest.mark.needs("qemu-utils")
def test_info_starts_within_five_times_the_cpu_of_qemu_img(image):
    def cpu(program):
        best = 1.0
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            for _ in range(4):
                subprocess.run([*program, "info", str(image)], stdout=subprocess.DEVNULL, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best

    cpu(command())  # bytecode
    assert cpu(command()) < 5 * cpu([oracles.find_program("qemu-img")])


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_not_written_into_files(image, tmp_path, closed):
    def close():
        for number in closed:
            os.close(number)

    assert img("info", image, preexec_fn=close).returncode == 0
    assert img("convert", "-O", "qcow2", image, tmp_path / "copy", preexec_fn=close).returncode == 0
    assert img("compare", image, tmp_path / "copy").returncode == 0
    assert img("info", "gone", preexec_fn=close).returncode == 1


def test_a_full_disk_is_one_line_and_status_1(image, tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 20))
    for format in ("raw", "qcow2"):
        done = img("convert", "-f", "raw", "-O", format, data, tmp_path / "copy", preexec_fn=limit)
        assert done.returncode == 1
        assert b"File too large" in done.stderr or b"too large for file format" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_output_that_cannot_be_printed_is_said_and_nothing_else(image):
    with open("/dev/full", "wb") as full:
        done = img("info", image, stdout=full)
    assert done.returncode == 0  # as that of qemu-img, which says nothing
    assert done.stderr == b"qemu-img: standard output: No space left on device\n"


def test_names_that_are_no_text_are_printed_as_they_are(tmp_path):
    name = os.fsencode(tmp_path) + b"/na\xff\xfeme"
    arguments = [*map(os.fsencode, command("qemu-img"))]
    made = subprocess.run([*arguments, b"create", b"-f", b"qcow2", name, b"1M"], capture_output=True, check=True)
    assert b"'" + name + b"'" in made.stdout
    assert b"image: " + name in subprocess.run([*arguments, b"info", name], capture_output=True, check=True).stdout
    gone = subprocess.run([*arguments, b"info", name + b"x"], capture_output=True, check=False)
    assert (gone.returncode, b"Could not open '" + name + b"x'" in gone.stderr) == (1, True)


def test_a_colon_in_a_name_needs_a_directory_before_it(tmp_path):
    assert img("create", "-q", "a:b", "1M", cwd=tmp_path).stderr == b"qemu-img: a:b: Unknown protocol 'a'\n"
    assert img("create", "-q", "./a:b", "1M", cwd=tmp_path).returncode == 0
    assert b"image: ./a:b" in img("info", "./a:b", cwd=tmp_path).stdout


def test_five_terabytes_of_nothing_take_no_time_and_no_space(tmp_path):
    for format in ("raw", "qcow2"):
        img("create", "-q", "-f", format, tmp_path / format, "5T")
        copy = tmp_path / f"copy of {format}"
        assert img("convert", "-f", format, "-O", "qcow2", tmp_path / format, copy).returncode == 0
        assert copy.stat().st_blocks * 512 < 4 << 20
        assert img("compare", "-f", format, tmp_path / format, copy).returncode == 0


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_convert_that_is_cut_short_leaves_its_sources_and_at_most_leaks(tmp_path, number):
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 20) * 48)
    target = tmp_path / "target"
    process = subprocess.Popen(
        [*command(), "convert", "-f", "raw", "-O", "qcow2", "-c", data, target], stderr=subprocess.PIPE
    )
    while not target.exists() or target.stat().st_size < 1 << 20:
        time.sleep(0.01)
        assert process.poll() is None, "over before it could be cut short"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    assert process.returncode in (130, -number)
    report = oracles.check_image(target)
    assert report.get("corruptions", 0) == 0
