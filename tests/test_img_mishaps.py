"""What goes wrong in the world, for qemu-img and for ours: the same status and words, never a traceback."""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import oracles

pytestmark = pytest.mark.needs("qemu-utils")

ROOT = Path(__file__).resolve().parent.parent
OURS = [
    sys.executable,
    "-I",
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'qemu-img';"
    "from e2kdisk.tools.img.main import script; script()",
]
PLAIN_ROOT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""A prefix under which permissions count, whoever runs the tests."""


@pytest.fixture
def place(tmp_path):
    """A directory with an image, an overlay of it, and data."""
    (tmp_path / "data").write_bytes(os.urandom(3 << 20))
    oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "data", tmp_path / "base.q")
    oracles.run("qemu-img", *["create", "-q", "-f", "qcow2", "-b", "base.q", "-F", "qcow2", "over.q"], cwd=tmp_path)
    oracles.run("qemu-io", "-c", "write -P 1 64k 1M", "over.q", cwd=tmp_path)
    return tmp_path


def answers(place, command, *, prefix=(), prepare=lambda here: None, **options):
    """Run a command line of both programs, each in a copy of the place: [(status, stdout, stderr), ...]."""
    found = []
    for name, program in (("theirs", [oracles.find_program("qemu-img")]), ("ours", OURS)):
        here = place / name / "here"
        shutil.rmtree(here.parent, ignore_errors=True)
        here.mkdir(parents=True)
        for path in place.iterdir():
            if path.is_file():
                shutil.copy(path, here)
        prepare(here)
        options.setdefault("stdout", subprocess.PIPE)
        done = subprocess.run(
            [*prefix, *program, *command], cwd=here, stderr=subprocess.PIPE, timeout=120, check=False, **options
        )
        errors = re.sub(rb"at (byte|offset) \d+", b"at N", done.stderr)
        found.append((done.returncode, re.sub(rb"disk size: .*|[^\r\n]*\r", b"", done.stdout or b""), errors))
        if here.exists():
            for path in (here, *here.glob("*")):
                path.chmod(0o755)
    assert b"Traceback" not in found[1][2]
    return found


def same(place, command, status, **options):
    """Both programs answer alike, with this exit status."""
    theirs, ours = answers(place, command.split(), **options)
    assert ours == theirs
    assert ours[0] == status
    return ours


# -- permissions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "mode", "command", "status"),
    [
        ("base.q", 0, "info base.q", 1),
        ("base.q", 0, "check base.q", 1),
        ("base.q", 0, "convert -O raw base.q new", 1),
        ("base.q", 0, "compare base.q over.q", 2),
        ("base.q", 0, "info over.q", 0),
        ("base.q", 0, "info --backing-chain over.q", 1),
        ("base.q", 0, "map over.q", 1),
        ("base.q", 0, "create -f qcow2 -b base.q -F qcow2 new", 1),
        ("base.q", 0o400, "check -r all base.q", 1),
        ("base.q", 0o400, "resize base.q 8M", 1),
        ("base.q", 0o400, "snapshot -c s base.q", 1),
        ("base.q", 0o400, "commit over.q", 1),
        ("base.q", 0o400, "convert -n -O qcow2 over.q base.q", 1),
        ("base.q", 0o400, "rebase -u -b % base.q", 1),
        (".", 0o500, "create -f qcow2 new 1M", 1),
        (".", 0o500, "convert -O qcow2 base.q new", 1),
        (".", 0o600, "info base.q", 1),
    ],
)
def test_files_that_may_not_be_used(place, closed, mode, command, status):
    command = command.replace("%", "x")
    same(place, command, status, prefix=PLAIN_ROOT, prepare=lambda here: (here / closed).chmod(mode))


# -- files that go away ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("info over.q", 0),
        ("info --backing-chain over.q", 1),
        ("map over.q", 1),
        ("convert -O raw over.q new", 1),
        ("check over.q", 1),
        ("commit over.q", 1),
        ("rebase -b x -F qcow2 over.q", 1),
        ("compare over.q over.q", 2),
        ("measure -O qcow2 over.q", 1),
        ("snapshot -l over.q", 1),
    ],
)
def test_a_backing_file_that_has_gone(place, command, status):
    same(place, command, status, prepare=lambda here: (here / "base.q").unlink())


@pytest.mark.parametrize("command", ["info base.q", "create -f qcow2 new 1M", "convert -O raw base.q new"])
def test_a_directory_that_has_gone(place, command):
    gone = 'rm -r ../here; exec "$@"'
    same(place, command, 1, prefix=["sh", "-c", gone, "sh"])


@pytest.mark.parametrize("change", ["truncate", pytest.param("unlink", marks=pytest.mark.slow)])
def test_a_source_that_shrinks_or_goes_while_it_is_copied(place, change):
    for name, program in (("theirs", [oracles.find_program("qemu-img")]), ("ours", OURS)):
        source, target = place / f"{name}.source", place / f"{name}.target"
        source.write_bytes(os.urandom(24 << 20))
        command = [*program, "convert", "-m", "1", "-r", "16M", "-f", "raw", "-O", "raw", source, target]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while not target.exists() or target.stat().st_blocks * 512 < 2 << 20:
            time.sleep(0.01)
            assert process.poll() is None
        data = source.read_bytes()
        if change == "unlink":
            source.unlink()
        else:
            os.truncate(source, 20 << 20)
        assert (process.wait(), process.communicate()[1]) == (0, b"")
        copy = target.read_bytes()
        assert copy[: 20 << 20] == data[: 20 << 20]
        assert copy[20 << 20 :] == (data[20 << 20 :] if change == "unlink" else bytes(4 << 20))


# -- space ----------------------------------------------------------------------------------------

SMALL_DISK = 'mount -t tmpfs -o size=2m none small && exec "$@"'


@pytest.mark.parametrize(
    "command",
    [
        "convert -f raw -O raw data small/new",
        "convert -f raw -O qcow2 data small/new",
        "convert -c -f raw -O qcow2 data small/new",
        "convert -W -m 16 -f raw -O qcow2 data small/new",
        "create -f raw -o preallocation=full small/new 8M",
        "create -f raw -o preallocation=falloc small/new 8M",
        "dd -f raw -O raw bs=1M if=data of=small/new",
    ],
)
def test_a_disk_that_is_full(place, command):
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount of one's own here: {done.stderr.decode().strip()}")
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh"]
    theirs, ours = answers(place, command.split(), prefix=prefix, prepare=lambda here: (here / "small").mkdir())
    # With several requests in flight each tells of its error, as many as there happen to be.
    assert [set(part.splitlines()) for part in ours[1:]] == [set(part.splitlines()) for part in theirs[1:]]
    assert ours[0] == theirs[0] == 1
    assert b"No space left on device" in ours[2]


# -- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["info base.q", "map base.q", "check base.q", "convert -p -O raw base.q new", "compare -p base.q base.q"]
)
def test_output_that_nobody_reads_does_not_stop_the_work(place, command):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        same(place, command, 0, stdout=writer)
    finally:
        os.close(writer)
    if command.startswith("convert"):
        assert (place / "ours" / "here" / "new").read_bytes() == (place / "data").read_bytes()


@pytest.mark.parametrize(
    "command", ["map --output=json base.q", "convert -p -O raw base.q new", "compare -p base.q over.q", "check base.q"]
)
def test_output_that_finds_no_room_does_not_stop_the_work(place, command):
    with open("/dev/full", "wb") as full:
        theirs, ours = answers(place, command.split(), stdout=full)
    assert ours[0] == theirs[0]
    assert ours[2] == theirs[2] + b"qemu-img: standard output: No space left on device\n"
    if command.startswith("convert"):
        assert (place / "ours" / "here" / "new").read_bytes() == (place / "data").read_bytes()


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        b"info %",
        b"info --output=json %",
        b"map %",
        b"map --output=json %",
        b"check %",
        b"check --output=json %",
        b"convert -O qcow2 -B % -F qcow2 over.q new",
        b"create -f qcow2 -b % -F qcow2 new",
        b"create -f qcow2 new% 1M",
        b"snapshot -c s\xff %",
        b"compare % over.q",
        b"info ./a:%",
        b"info a:%",
        b"info file:%",
        b"rebase -u -b % -F qcow2 over.q",
        b"info %\xc3",
        b"measure -O qcow2 %",
    ],
)
def test_names_that_are_no_text_and_names_with_colons(place, command):
    def prepare(here):
        for name in (b"b\xff.q", b"a:b\xff.q"):
            shutil.copy(here / "base.q", os.fsencode(here) + b"/" + name)

    theirs, ours = answers(place, command.replace(b"%", b"b\xff.q").split(), prepare=prepare)
    assert ours == theirs


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1 << 63) - 512, 1 << 63, (1 << 64) - 512, (1 << 64) - 1, 1 << 62])
@pytest.mark.parametrize("command", ["info big.q", "check big.q", "map big.q", "convert -O raw big.q new"])
def test_images_that_say_they_are_larger_than_any(place, size, command):
    data = bytearray((place / "base.q").read_bytes())
    struct.pack_into(">Q", data, 24, size)
    (place / "big.q").write_bytes(data)
    theirs, ours = answers(place, command.split())
    assert ours[0] == theirs[0] == 1
    assert re.fullmatch(rb"qemu-img: Could not open 'big.q': [^\n]+\n", ours[2])  # ours says by how much


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_five_sparse_terabytes(place, format):
    oracles.run("qemu-img", "create", "-q", "-f", format, "huge", "5T", cwd=place)
    oracles.run("qemu-io", "-f", format, "-c", "write -P 1 4T 64k", "huge", cwd=place)
    for command in (
        f"map -f {format} huge",
        f"map --output=json -f {format} huge",
        f"measure -O qcow2 -f {format} huge",
        f"convert -f {format} -O qcow2 huge new",
        f"compare -f {format} -F {format} huge huge",
    ):
        done = [
            subprocess.run([*program, *command.split()], cwd=place, capture_output=True, timeout=60, check=False)
            for program in ([oracles.find_program("qemu-img")], OURS)
        ]
        assert (done[1].returncode, done[1].stdout, done[1].stderr) == (0, done[0].stdout, done[0].stderr), command
