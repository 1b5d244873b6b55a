"""Promises about the VM state area: bytes behind the end of the disk, with contents of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2kdisk.block.disk import Disk
from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.image import Qcow2Image
from e2kdisk.qcow2.vm_state import read_vm_state, write_vm_state
from tests.oracles import assert_clean

STATE = bytes(range(256)) * 1200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk over a backing file that is much longer."""
    (tmp_path / "base.raw").write_bytes(b"\xee" * (40 << 20))
    create(tmp_path / "disk.qcow2", 1 << 20, cluster_size=4096, backing_file="base.raw", backing_format="raw")
    with open_disk(tmp_path / "disk.qcow2", format="qcow2") as opened:
        yield opened
    assert_clean(tmp_path / "disk.qcow2")


def read_state(image: Qcow2Image, offset: int, length: int) -> bytes:
    data = bytearray(length)
    image.scheduler.run(read_vm_state(image, offset, [memoryview(data)]))
    return bytes(data)


def test_the_vm_state_never_shows_a_longer_backing_file(disk: Disk) -> None:
    image = disk.node
    assert isinstance(image, Qcow2Image)
    assert read_state(image, 0, 100_000) == bytes(100_000)
    image.scheduler.run(write_vm_state(image, 5000, [memoryview(STATE)]))
    assert read_state(image, 0, 400_000) == bytes(5000) + STATE + bytes(395_000 - len(STATE))


def test_changing_a_part_of_a_snapshots_vm_state_keeps_the_rest(disk: Disk) -> None:
    image = disk.node
    assert isinstance(image, Qcow2Image)
    run = image.scheduler.run
    run(write_vm_state(image, 0, [memoryview(STATE)]))
    run(image.snapshots.create("a", vm_state_size=len(STATE)))
    assert read_state(image, 0, len(STATE)) == bytes(len(STATE))
    run(image.snapshots.apply("a"))
    run(write_vm_state(image, 1000, [memoryview(b"new")]))
    assert read_state(image, 0, len(STATE)) == STATE[:1000] + b"new" + STATE[1003:]
    run(image.snapshots.apply("a"))
    assert read_state(image, 0, len(STATE)) == STATE
    assert disk.pread(0, 1 << 20) == b"\xee" * (1 << 20)
