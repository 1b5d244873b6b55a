"""Internal snapshots made by qemu-img are never damaged, whatever is written to the disk afterwards."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block import open_disk
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import snapshot_table
from tests import oracles
from tests.engine_lab import new_image, put
from tests.qcow2_model import OWN_TAG, LabFile, open_image, pattern, tags_of, write_pattern

pytestmark = pytest.mark.needs("qemu-utils")

GRANULE = 512
SIZE = 300 * 1024
TOTAL = SIZE // GRANULE


def image_with_data(path: Path, *, compressed: bool = False, **options: Any) -> list[int]:
    raw = path.with_suffix(".raw")
    tags = write_pattern(raw, OWN_TAG, [(0, 200), (300, 50), (500, 100)], GRANULE, SIZE)
    settings = [argument for name, value in options.items() for argument in ("-o", f"{name}={value}")]
    oracles.qemu_img("convert", *(["-c"] if compressed else []), "-f", "raw", "-O", "qcow2", *settings, raw, path)
    return tags


def contents(path: Path) -> list[int]:
    """The tags of an image as qemu-img reads it."""
    raw = path.with_suffix(".out")
    oracles.qemu_img("convert", "-f", "qcow2", "-O", "raw", path, raw)
    return tags_of(raw.read_bytes(), 0, GRANULE)


def change(path: Path, tags: list[int], seed: int, requests: int = 40) -> list[int]:
    """Write, zero and discard through us; returns the new tags."""
    dice = random.Random(seed)
    tags = list(tags)
    with open_disk(path, format="qcow2") as disk:
        for number in range(requests):
            first = dice.randrange(TOTAL)
            count = min(dice.choice([1, 3, 20, 130]), TOTAL - first)
            kind = dice.choice(["write", "write", "zero", "unmap", "flush"])
            if kind == "write":
                tag = seed * 1000 + number
                disk.pwrite(first * GRANULE, pattern(tag, first, count, GRANULE))
                tags[first : first + count] = [tag] * count
            elif kind == "flush":
                disk.sync()
            else:
                disk.scheduler.run(disk.write_zeroes(first * GRANULE, count * GRANULE, unmap=kind == "unmap"))
                tags[first : first + count] = [0] * count
        assert tags_of(disk.pread(0, SIZE), 0, GRANULE) == tags
    return tags


KINDS = {
    "512-byte clusters": {"cluster_size": 512},
    "4 KiB clusters": {"cluster_size": 4096},
    "64 KiB clusters": {"cluster_size": 65536},
    "8-bit refcounts": {"cluster_size": 1024, "refcount_bits": 8},
    "64-bit refcounts": {"cluster_size": 512, "refcount_bits": 64},
    "version 2": {"cluster_size": 1024, "compat": "0.10"},
}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_what_is_written_after_a_snapshot_never_reaches_it(
    options: dict[str, Any], compressed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    states = {"empty": image_with_data(path, compressed=compressed, **options)}
    oracles.qemu_img("snapshot", "-c", "empty", path)
    states["changed"] = change(path, states["empty"], 1)
    oracles.assert_clean(path)
    oracles.qemu_img("snapshot", "-c", "changed", path)
    last = change(path, states["changed"], 2)
    oracles.assert_clean(path)
    assert contents(path) == last
    for name in ("changed", "empty", "changed"):
        oracles.qemu_img("snapshot", "-a", name, path)
        assert contents(path) == states[name], name
    # A snapshot that was gone back to may be written over and deleted, and the other is still there.
    change(path, states["changed"], 3)
    oracles.qemu_img("snapshot", "-d", "changed", path)
    oracles.assert_clean(path)
    oracles.qemu_img("snapshot", "-a", "empty", path)
    assert contents(path) == states["empty"]
    oracles.assert_clean(path)


def test_a_disk_written_after_its_snapshot_was_deleted_leaves_no_leaks(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    tags = image_with_data(path, cluster_size=512)
    oracles.qemu_img("snapshot", "-c", "gone", path)
    tags = change(path, tags, 1)
    oracles.qemu_img("snapshot", "-d", "gone", path)
    tags = change(path, tags, 2)
    oracles.assert_clean(path)
    assert contents(path) == tags


ENTRY_FIELDS = [
    ("an L1 table of 4 Gi entries", ((8, ">I", (1 << 32) - 1),), "L1 table of 4294967295 entries"),
    ("an L1 table just above 32 MiB", ((8, ">I", (4 << 20) + 1),), "exceeds the limit of 32 MiB"),
    ("an L1 table past the end", ((0, ">Q", 1 << 40),), "past the end"),
    ("an L1 table past every end", ((0, ">Q", (1 << 64) - 512),), "past the end"),
    ("an unaligned L1 table", ((0, ">Q", 520),), "unaligned"),
    ("an L1 table on the header", ((0, ">Q", 0),), "where the header lies"),
    ("extra data of 4 GiB", ((36, ">I", (1 << 32) - 1),), "exceed the limit of 1024"),
    ("extra data of 1025 bytes", ((36, ">I", 1025),), "exceed the limit of 1024"),
    ("an id past the end of the file", ((12, ">H", 65535),), "past the end"),
    ("a name past the end of the file", ((14, ">H", 65535),), "past the end"),
]


@pytest.mark.parametrize(
    ("changes", "named"), [item[1:] for item in ENTRY_FIELDS], ids=[item[0] for item in ENTRY_FIELDS]
)
def test_a_broken_field_of_a_snapshot_is_named(changes: tuple[tuple[int, str, int], ...], named: str) -> None:
    data = image_with_a_snapshot()
    table = struct.unpack_from(">Q", data, 64)[0]
    for offset, form, value in changes:
        struct.pack_into(form, data, table + offset, value)
    with pytest.raises(ImageError, match=named) as caught:
        open_image(LabFile(Scheduler(), data, read_only=True))
    assert "snapshot 0" in str(caught.value)


def image_with_a_snapshot() -> bytearray:
    file = new_image(40 * 512, cluster_size=512)
    image = open_image(file)
    put(image, 0, b"x" * 4096)
    file.scheduler.run(image.snapshots.create("one"))
    file.scheduler.run(image.close())
    return file.data


def test_a_snapshot_table_has_a_longest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB, here 40 bytes: 65,536 entries with all that they may hold would be 8 GiB."""
    monkeypatch.setattr(snapshot_table, "MAX_TABLE_BYTES", 40)
    with pytest.raises(ImageError, match="is longer than 64 MiB"):
        open_image(LabFile(Scheduler(), image_with_a_snapshot(), read_only=True))
