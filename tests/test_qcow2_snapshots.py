"""Internal snapshots made by qemu-img are never damaged, whatever is written to the disk afterwards."""

import random
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.block import open_disk
from tests import oracles
from tests.qcow2_model import OWN_TAG, pattern, tags_of, write_pattern

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
