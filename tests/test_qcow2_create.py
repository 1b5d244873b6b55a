"""Images that we make, and what we say of images, as qemu-img sees them."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.block import open_disk
from e2kdisk.errors import UsageError
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.info import info
from tests import oracles
from tests.qcow2_model import check_bytes

pytestmark = pytest.mark.needs("qemu-utils")

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def qemu_info(path: Path) -> dict[str, Any]:
    return json.loads(oracles.qemu_img("info", "--output=json", "-f", "qcow2", path))


def agree(path: Path) -> None:
    """Our info and qemu-img's say the same."""
    ours, theirs = info(path), qemu_info(path)
    data = theirs["format-specific"]["data"]
    assert ours.virtual_size == theirs["virtual-size"]
    assert ours.cluster_size == theirs["cluster-size"]
    assert ours.disk_size == theirs["actual-size"]
    assert ours.compat == data["compat"]
    assert ours.header.backing_file == theirs.get("backing-filename")
    assert ours.header.backing_format == theirs.get("backing-filename-format")
    assert ours.dirty == theirs["dirty-flag"]
    assert ours.corrupt == data.get("corrupt", False)
    assert ours.encryption == (data["encrypt"]["format"].upper() if "encrypt" in data else None)
    if ours.compat == "1.1":
        assert 1 << ours.header.refcount_order == data["refcount-bits"]
        assert ours.compression == data["compression-type"]
        assert bool(ours.header.compatible_features & 1) == data["lazy-refcounts"]


def looks_right(path: Path, size: int, *, check: bool = True) -> None:
    """A new image: the size, clean, the same facts for us and for qemu-img, nothing in it."""
    agree(path)
    assert info(path).virtual_size == (size + 511) // 512 * 512
    if check:
        oracles.assert_clean(path)
    with open_disk(path, format="qcow2") as disk:
        assert disk.size == (size + 511) // 512 * 512
        end = max(0, disk.size - 4096)
        assert disk.pread(end, disk.size - end) == bytes(disk.size - end)
        if disk.size:
            disk.pwrite(disk.size - 512, b"e" * 512)
    if check:
        oracles.assert_clean(path)


WIDTHS = [1, 2, 4, 8, 16, 32, 64]
CLUSTERS = [1 << bits for bits in range(9, 22)]


@pytest.mark.parametrize("cluster_size", CLUSTERS)
def test_every_cluster_size_refcount_width_and_size_makes_a_consistent_image(cluster_size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    for number, (width, size) in enumerate(product(WIDTHS, [0, 1, MIB, 5 * MIB + 512, 3 * GIB])):
        create(path, size, cluster_size=cluster_size, refcount_bits=width)
        if cluster_size <= 65536:
            check_bytes(path.read_bytes())
        # Starting qemu-img three times for each would take minutes: every eleventh, all in the slow tier.
        if number % 11 == cluster_size.bit_length() % 11:
            looks_right(path, size)


@pytest.mark.slow
@pytest.mark.parametrize("cluster_size", CLUSTERS)
def test_qemu_img_agrees_on_every_cluster_size_refcount_width_and_size(cluster_size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    for width, size in product(WIDTHS, [0, 1, 512, MIB, 5 * MIB + 512, 3 * GIB, 100 * GIB]):
        create(path, size, cluster_size=cluster_size, refcount_bits=width)
        looks_right(path, size)


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2 * MIB])
@pytest.mark.parametrize("size", [0, 1, MIB, 3 * GIB])
def test_version_2_images_are_consistent(cluster_size: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, size, version=2, cluster_size=cluster_size)
    looks_right(path, size)


@pytest.mark.parametrize("cluster_size", [65536, 2 * MIB])
def test_eight_tebibytes_cost_nothing(cluster_size: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    create(path, 8 * TIB, cluster_size=cluster_size)
    looks_right(path, 8 * TIB)
    assert path.stat().st_blocks * 512 < 8 * MIB


def test_a_disk_too_large_for_its_clusters_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"precious")
    for options, named in [
        ({"size": 8 * TIB, "cluster_size": 512}, "cluster_size"),
        ({"size": MIB, "cluster_size": 1000}, "cluster_size"),
        ({"size": MIB, "cluster_size": 256}, "cluster_size"),
        ({"size": MIB, "cluster_size": 4 * MIB}, "cluster_size"),
        ({"size": MIB, "refcount_bits": 3}, "refcount_bits"),
        ({"size": MIB, "refcount_bits": 128}, "refcount_bits"),
        ({"size": MIB, "version": 4}, "version"),
        ({"size": MIB, "version": 2, "refcount_bits": 8}, "16-bit"),
        ({"size": -1}, "size"),
        ({"size": 1 << 64}, "size"),
        ({"size": None}, "size"),
        ({"size": MIB, "backing_file": "b"}, "backing_format"),
        ({"size": MIB, "backing_file": "b" * 1024, "backing_format": "raw"}, "1023"),
    ]:
        with pytest.raises(UsageError, match=named):
            create(path, **options)
        assert path.read_bytes() == b"precious", options


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_an_overlay_takes_the_size_of_its_backing_file(version: int, cluster_size: int, tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"base" * 5000 + b"\1" * 100)
    path = tmp_path / "disk.qcow2"
    create(path, version=version, cluster_size=cluster_size, backing_file=base.name, backing_format="raw")
    agree(path)
    oracles.assert_clean(path)
    with open_disk(path, format="qcow2") as disk:
        assert disk.size == 20480
        assert disk.pread(0, 20480) == base.read_bytes().ljust(20480, b"\0")
        disk.pwrite(1000, b"over")
    oracles.assert_clean(path)


def test_a_new_image_looks_like_the_one_qemu_img_makes(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    create(ours, GIB)
    oracles.create_image(theirs, GIB)
    one, two = qemu_info(ours), qemu_info(theirs)
    for facts in (one, two):
        for name in ("filename", "actual-size"):
            del facts[name]
    assert one == two


OPTIONS: list[dict[str, Any]] = [
    {},
    {"version": 2},
    {"cluster_size": 512, "refcount_bits": 1},
    {"cluster_size": 2 * MIB, "refcount_bits": 64},
    {"lazy_refcounts": True},
    {"compression_type": "zstd"},
    {"extended_l2": True},
    {"preallocation": "metadata"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=map(str, OPTIONS))
def test_info_agrees_with_qemu_img(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, 7 * MIB + 512, **options)
    agree(path)
