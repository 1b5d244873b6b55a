"""Damaged images: e2kdisk-img check tells of the usual kinds as qemu-img does, line by line, and repairs the same."""

import struct
import subprocess
import sys
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
COPIED = 1 << 63


class Damage:
    """An image's bytes, and where its tables lie."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.l1, table = struct.unpack_from(">QQ", data, 40)
        self.l2 = self.entry(self.l1) & 0x00FFFFFFFFFFFE00
        self.block = self.entry(table)

    def entry(self, offset):
        return struct.unpack_from(">Q", self.data, offset)[0]

    def change(self, offset, value):
        struct.pack_into(">Q", self.data, offset, value)

    def refcount(self, cluster, value):
        struct.pack_into(">H", self.data, self.block + 2 * cluster, value)


def one_leak(image):
    image.change(image.l2 + 8, 0)


def many_leaks(image):
    image.data[image.l2 : image.l2 + 64] = bytes(64)


def refcounts_too_low(image):
    image.refcount(5, 1)
    image.refcount(10, 1)


def refcounts_too_low_and_too_high(image):
    image.refcount(6, 1)
    image.refcount(8, 5)


def a_cluster_used_twice(image):
    image.change(image.l2 + 8, image.entry(image.l2 + 16))


def a_copied_flag_of_l1(image):
    image.change(image.l1, image.entry(image.l1) ^ COPIED)


def a_copied_flag_of_l2(image):
    image.change(image.l2, image.entry(image.l2) ^ COPIED)


def a_lost_l2_table(image):
    image.change(image.l1, 0)


DAMAGES = (
    one_leak,
    many_leaks,
    refcounts_too_low,
    refcounts_too_low_and_too_high,
    a_cluster_used_twice,
    a_copied_flag_of_l1,
    a_copied_flag_of_l2,
    a_lost_l2_table,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An image with a snapshot, shared, single and compressed clusters."""
    path = tmp_path_factory.mktemp("check") / "sound.q"
    oracles.create_image(path, "4M")
    oracles.qemu_io(path, "write 0 512k", "write -c 1M 64k")
    oracles.qemu_img("snapshot", "-c", "s", path)
    oracles.qemu_io(path, "write 64k 64k")
    return path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("options", ["", "-r leaks", "-r all", "--output=json", "-r all --output=json"])
def test_what_is_wrong_is_told_and_repaired_as_by_qemu_img(sound, tmp_path, damage, options):
    image = Damage(sound)
    damage(image)
    answers = []
    for name, program in (("theirs", [oracles.find_program("qemu-img")]), ("ours", OURS)):
        here = tmp_path / name
        here.mkdir()
        (here / "disk.q").write_bytes(image.data)
        said = [
            subprocess.run([*command, "disk.q"], cwd=here, capture_output=True, text=True, check=False)
            for command in ([*program, "check", *options.split()], ["qemu-img", "check"])
        ]
        answers.append([(done.returncode, done.stdout, done.stderr) for done in said])
    assert answers[1] == answers[0]
