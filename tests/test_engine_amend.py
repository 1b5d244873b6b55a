"""Amend across versions: whatever the disk and its snapshots show, they show it afterwards, to qemu-img too."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from tests import oracles
from tests.engine_lab import KEY, Mirror, below, get, new_image, noise, put, qemu_reads, reopened
from tests.qcow2_model import LabFile, check_bytes, open_image

CLUSTER = 1024
SIZE = 200 * 1024 + 512
"""Two L2 tables at 1 KiB clusters."""
CHANGES = ("write", "write", "zeroes", "zeroes", "unmap", "discard", "compressed", "flush")
CHANGES += ("snapshot", "apply", "delete")


def to_version(image: Any, version: int) -> None:
    image.scheduler.run(amend(image, AmendOptions(version=version)))


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("feature", ["plain", "backing", "aes", "aes, backing", "lazy"])
@pytest.mark.parametrize("seed", range(2))
def test_an_image_with_snapshots_goes_back_to_version_2(feature: str, seed: int, tmp_path: Path) -> None:
    dice = random.Random(f"{feature}/{seed}")
    options: dict[str, Any] = {"cluster_size": dice.choice([512, CLUSTER, 4096])}
    backing = noise(dice, SIZE // 2 & -512) if "backing" in feature else None
    key = KEY if "aes" in feature else None
    if backing is not None:
        (tmp_path / "base").write_bytes(backing)
        options |= {"backing_file": "base", "backing_format": "raw"}
    options |= {"lazy_refcounts": feature == "lazy", "encrypted": key is not None}
    file = new_image(SIZE, **options)
    image = open_image(file, below(file.scheduler, backing), **({"key": key} if key else {}))
    mirror = Mirror(image, bytearray((backing or b"").ljust(SIZE, b"\0")), dice)
    mirror.change(60, CHANGES)
    mirror.one("snapshot")
    mirror.change(6, ("zeroes", "write"))
    to_version(image, 2)
    mirror.compare()
    file.scheduler.run(image.close())
    check_bytes(file.data)

    path = tmp_path / "disk.qcow2"
    path.write_bytes(file.data)
    oracles.assert_clean(path, key=key)
    assert "compat: 0.10" in oracles.qemu_img("info", path)
    assert qemu_reads(path, key=key) == mirror.model
    assert mirror.snapshots
    for name, content in mirror.snapshots.items():
        assert qemu_reads(path, key=key, snapshot=name) == content, f"snapshot {name} has changed"
    if key is None:
        for name, content in mirror.snapshots.items():
            oracles.qemu_img("snapshot", "-a", name, path)
            assert qemu_reads(path) == content
            oracles.qemu_img("snapshot", "-d", name, path)
        oracles.assert_clean(path)


@pytest.mark.needs("qemu-utils")
def test_data_of_a_snapshot_behind_a_zero_cluster_of_the_disk_survives_the_downgrade(tmp_path: Path) -> None:
    """The disk's entry is "zeros, with space": the space is what the snapshot shows. qemu-img 7.2 overwrites it."""
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, "1M")
    oracles.qemu_io(path, "write -P 1 0 1M")
    oracles.qemu_img("snapshot", "-c", "before", path)
    oracles.qemu_io(path, "write -z 0 128k")
    oracles.qemu_img("snapshot", "-c", "zeroed", path)
    image = reopened(path.read_bytes())
    to_version(image, 2)
    image.scheduler.run(image.close())
    path.write_bytes(image.file.data)
    oracles.assert_clean(path)
    assert qemu_reads(path, snapshot="before") == b"\1" * (1 << 20)
    assert qemu_reads(path, snapshot="zeroed") == qemu_reads(path) == bytes(128 << 10) + b"\1" * (896 << 10)


def test_a_table_that_snapshots_share_is_replaced_once_and_counted_for_each() -> None:
    file = new_image(SIZE, cluster_size=CLUSTER, backing_file="base", backing_format="raw")
    base = b"\5" * SIZE
    image = open_image(file, below(file.scheduler, base))
    run = file.scheduler.run
    run(image.write_zeroes(0, 8 * CLUSTER))
    for name in "abc":
        run(image.snapshots.create(name))
    to_version(image, 2)
    entry = image.mapping.l1.values[0]
    table = image.file.data[entry & (1 << 48) - 1 :][: 8 * CLUSTER]
    hosts = [value & (1 << 48) - 1 for value in struct.unpack_from(">8Q", table)]
    assert all(run(image.refcounts.get(host // CLUSTER)) == 4 for host in hosts)
    for name in "abc":
        run(image.snapshots.delete(name))
    assert all(run(image.refcounts.get(host // CLUSTER)) == 1 for host in hosts)
    put(image, 0, b"x" * 512)
    assert get(image, 0, 9 * CLUSTER) == b"x" * 512 + bytes(8 * CLUSTER - 512) + b"\5" * CLUSTER
    run(image.close())
    check_bytes(file.data)


@pytest.mark.parametrize("vm_state", [False, True], ids=["disk size", "VM state"])
def test_a_snapshot_that_only_version_3_can_describe_keeps_the_image_version_3(vm_state: bool) -> None:
    file = new_image(SIZE, cluster_size=CLUSTER)
    image = open_image(file)
    run = file.scheduler.run
    put(image, 0, bytes(SIZE))
    run(image.snapshots.create("s", vm_state_size=5 << 30 if vm_state else 0))
    if not vm_state:
        run(image.truncate(SIZE // 2 & -512))
    with pytest.raises(UsageError, match="VM state" if vm_state else "disk of"):
        to_version(image, 2)
    assert image.header.version == 3
    run(image.close())
    check_bytes(file.data)


@pytest.mark.needs("qemu-utils")
def test_the_snapshots_of_an_old_version_2_image_are_complete_in_version_3(tmp_path: Path) -> None:
    """Before 2012 a snapshot had no extra data; version 3 asks for the disk size in it."""
    file = new_image(SIZE, cluster_size=CLUSTER, version=2)
    image = open_image(file)
    put(image, 0, b"old" * 512)
    file.scheduler.run(image.snapshots.create("s"))
    file.scheduler.run(image.close())
    data = file.data
    table = Header.parse("t", bytes(data[:CLUSTER])).snapshots_offset
    extra = struct.unpack_from(">I", data, table + 36)[0]
    entry = data[table : table + 36] + bytes(4) + data[table + 40 + extra : table + 42 + extra]
    data[table : table + 64] = entry.ljust(64, b"\0")
    image = reopened(data)
    to_version(image, 3)
    image.scheduler.run(image.close())
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image.file.data)
    oracles.assert_clean(path)
    shown = open_image(LabFile(image.scheduler, image.file.data, read_only=True), snapshot="s")
    assert (shown.size, get(shown, 0, 3)) == (SIZE, b"old")
    assert len(open_image(LabFile(image.scheduler, image.file.data)).snapshots.all()[0].extra_data) >= 16
