"""The file system of the demo's disk: Linux's own tools find it right and read the files back."""

import random

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.tools.ext2 import make_ext2
from tests import oracles

KIB, MIB = 1024, 1 << 20
NOISE = random.Random(2).randbytes(3 * MIB)


def check(tmp_path, image):
    path = tmp_path / "fs"
    path.write_bytes(image)
    oracles.run("e2fsck", "-fn", path)
    return path


def read_back(path, name, tmp_path):
    oracles.run("debugfs", "-R", f"dump {name} {tmp_path / 'out'}", path)
    return (tmp_path / "out").read_bytes()


@pytest.mark.needs("e2fsprogs")
@pytest.mark.parametrize(
    ("block_size", "size"), [(1024, 8 * MIB), (2048, 8 * MIB), (4096, 16 * MIB), (1024, 100 * KIB)]
)
def test_fsck_finds_it_clean_and_the_files_are_there(tmp_path, block_size, size):
    files = {"/boot.conf": b"default=a\n", "/empty": b"", "a/b/c/deep": b"x" * block_size}
    if size > MIB:
        files |= {"/direct": NOISE[: 12 * block_size], "/double": NOISE[: 270 * block_size + 1]}
    path = check(tmp_path, make_ext2(files, size, block_size=block_size, volume_name="BOOT"))
    for name, content in files.items():
        assert read_back(path, name, tmp_path) == content
    assert "BOOT" in oracles.run("debugfs", "-R", "stats", path).stdout


@pytest.mark.needs("e2fsprogs")
def test_a_directory_of_many_blocks(tmp_path):
    files = {f"/many/file-with-a-long-name-{n}": b"%d" % n for n in range(200)}
    path = check(tmp_path, make_ext2(files, 8 * MIB))
    assert read_back(path, "/many/file-with-a-long-name-199", tmp_path) == b"199"


def test_equal_files_give_equal_bytes():
    assert make_ext2({"a": b"1"}, MIB) == make_ext2({"a": b"1"}, MIB)


@pytest.mark.parametrize(
    ("files", "size", "block_size", "complaint"),
    [
        ({}, 9 * MIB, 1024, "one group of 1024-byte blocks has 8192 of them"),
        ({}, MIB, 512, "blocks of 512 bytes: must be 1024, 2048 or 4096"),
        ({}, 8 * KIB, 1024, "8192 bytes are too few"),
        ({"a": bytes(MIB)}, MIB, 1024, "the files do not fit 1048576 bytes"),
        ({"a": b"", "a/b": b""}, MIB, 1024, "a/b: the name is taken"),
        ({"a/b": b"", "a": b""}, MIB, 1024, "a: the name is taken"),
        ({"a/../b": b""}, MIB, 1024, r"a/../b: '..' cannot be the name of a file"),
        ({"/": b""}, MIB, 1024, "/: '/' cannot be the name of a file"),
        ({str(n): b"" for n in range(64)}, MIB, 1024, "more than 64 files"),
    ],
)
def test_what_does_not_fit_is_one_line(files, size, block_size, complaint):
    with pytest.raises(UsageError) as error:
        make_ext2(files, size, block_size=block_size)
    assert str(error.value).endswith(complaint)
