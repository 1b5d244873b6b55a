"""Runtime options of qcow2 have the effect that they have in qemu-io: on the same image, the same commands."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import oracles

pytestmark = pytest.mark.needs("qemu-utils")

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = 65536
OURS = {
    program: [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = '{program}'; from {module} import script; "
        "script()",
    ]
    for program, module in (("qemu-io", "e2kdisk.tools.io.program"), ("qemu-img", "e2kdisk.tools.img.main"))
}


def both(program, *arguments, image):
    """Run a program and ours on copies of an image: [(status, stdout, stderr, path), ...]."""
    answers = []
    for name, command in (("theirs", [oracles.find_program(program)]), ("ours", OURS[program])):
        path = image.with_name(name) / "disk.qcow2"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(image, path)
        done = subprocess.run(
            [*command, *arguments], cwd=path.parent, capture_output=True, text=True, timeout=60, check=False
        )
        lines = [line for line in done.stdout.splitlines() if " ops; " not in line]
        answers.append((done.returncode, lines, done.stderr, path))
    return answers


def table(data, offset, index=0):
    return struct.unpack_from(">Q", data, offset + 8 * index)[0] & 0x00FFFFFFFFFFFE00


def places(data):
    """Where the header of an image says that its structures lie."""
    l1, refcounts = struct.unpack_from(">QQ", data, 40)
    snapshots = struct.unpack_from(">Q", data, 64)[0]
    found = {
        "main-header": 0,
        "active-l1": l1,
        "active-l2": table(data, l1),
        "refcount-table": refcounts,
        "refcount-block": table(data, refcounts),
    }
    if snapshots:
        inactive = table(data, snapshots)
        found |= {"snapshot-table": snapshots, "inactive-l1": inactive, "inactive-l2": table(data, inactive)}
    return found


def holes(path, clusters):
    """Which of the first data clusters have no space in the host's file any more."""
    data = path.with_name("original").read_bytes() if path.with_name("original").exists() else path.read_bytes()
    l2 = places(data)["active-l2"]
    found = []
    with path.open("rb") as file:
        for number in range(clusters):
            host = table(data, l2, number)
            size = os.fstat(file.fileno()).st_size
            if host >= size or os.lseek(file.fileno(), host, os.SEEK_HOLE) == host:
                found.append(number)
    return found


@pytest.fixture
def image(make_image, qemu_io):
    path = make_image("4M")
    qemu_io(path, "write -P 1 0 1M")
    return path


DISCARDS = (
    "discard=unmap",
    "discard=ignore",
    "pass-discard-request=off",
    "pass-discard-request=on,discard=ignore",
    "pass-discard-other=on",
    "file.discard=ignore",
    "detect-zeroes=unmap",
    "detect-zeroes=on",
)


def test_space_of_discarded_clusters_goes_back_to_the_host_as_the_options_say(image):
    seen = set()
    for options in DISCARDS:
        commands = [
            f"open -o {options} disk.qcow2",
            "discard 0 256k",
            "write -zu 512k 128k",
            "write -P 0 768k 64k",
            "map",
        ]
        theirs, ours = both("qemu-io", *(word for line in commands for word in ("-c", line)), image=image)
        for answer in (theirs, ours):
            shutil.copy(image, answer[3].with_name("original"))
        assert ours[:3] == theirs[:3], options
        assert holes(ours[3], 16) == holes(theirs[3], 16), options
        seen.add(tuple(holes(ours[3], 16)))
    assert len(seen) >= 4  # the options do differ


@pytest.mark.parametrize(
    "options", ["discard=foo", "detect-zeroes=unmap,discard=ignore", "file.discard=foo", "overlap-check.foo=on"]
)
def test_options_that_make_no_sense_are_refused_in_the_same_words(image, options):
    theirs, ours = both("qemu-io", "-c", f"open -o {options} disk.qcow2", image=image)
    assert ours[:3] == theirs[:3]


def test_a_deleted_snapshot_gives_its_space_back_unless_it_may_not(image, qemu_io):
    oracles.qemu_img("snapshot", "-c", "s", image)
    old = image.with_name("old")
    shutil.copy(image, old)
    qemu_io(image, "write -P 2 0 256k")
    for options in ("", ",pass-discard-snapshot=off"):
        opened = f"driver=qcow2,file.filename=disk.qcow2{options}"
        theirs, ours = both("qemu-img", "snapshot", "--image-opts", "-d", "s", opened, image=image)
        for answer in (theirs, ours):
            shutil.copy(old, answer[3].with_name("original"))
        assert ours[:3] == theirs[:3] == (0, [], "")
        assert holes(ours[3], 4) == holes(theirs[3], 4) == ([] if options else [0, 1, 2, 3])


@pytest.mark.slow
def test_every_single_overlap_check_guards_its_kind_of_metadata_and_no_other(image, qemu_io):
    oracles.qemu_img("snapshot", "-c", "s", image)
    qemu_io(image, "write -P 2 64k 64k")
    data = image.read_bytes()
    where = places(data)
    assert len(set(where.values())) == 8
    outcomes = set()
    for kind, offset in where.items():
        broken = bytearray(data)
        struct.pack_into(">H", broken, where["refcount-block"] + 2 * (offset // CLUSTER), 0)
        image.write_bytes(broken)
        for options in (
            "overlap-check=none",
            "overlap-check=all",
            f"overlap-check.template=none,overlap-check.{kind}=on",
            f"overlap-check.template=all,overlap-check.{kind}=off",
            f"overlap-check.{kind}=off",
        ):
            commands = [f"open -o {options} disk.qcow2", "write 2M 64k"]
            theirs, ours = both("qemu-io", *(word for line in commands for word in ("-c", line)), image=image)
            assert ours[:2] == theirs[:2], (kind, options)
            outcomes.add((ours[1][0], options.partition(",")[0]))
    assert len(outcomes) > 2
