"""Preallocation: what space an image takes on the host, and that qemu-img makes and finds the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.block import open_disk
from e2kdisk.block.file import FileNode
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.preallocate import preallocate
from tests import oracles
from tests.engine_lab import KEY, new_image, put, qemu_reads
from tests.qcow2_model import check_bytes, open_image, read_all

MIB = 1 << 20
SIZE = 9 * MIB + 512
MODES = ("off", "metadata", "falloc", "full")


def make(path: Path, mode: str, size: int = SIZE, **options: Any) -> None:
    """An image of our own, preallocated."""
    create(path, size, **options)
    with open_disk(path, format="qcow2") as disk:
        disk.scheduler.run(preallocate(disk.node, 0, size, mode))  # type: ignore[arg-type]


def space(path: Path) -> int:
    return path.stat().st_blocks * 512


def seen(path: Path) -> tuple[Any, ...]:
    """What qemu-img finds: how much is allocated, how the guest's bytes are mapped, the image's facts."""
    report = oracles.check_image(path)
    runs: list[list[Any]] = []
    for run in json.loads(oracles.qemu_img("map", "--output=json", path)):
        # Where exactly in the file, and whether the file system already knows of zeros there, is not compared.
        kind = (run["depth"], run["present"], run["data"])
        if runs and runs[-1][0] == kind:
            runs[-1][1] += run["length"]
        else:
            runs.append([kind, run["length"]])
    facts = json.loads(oracles.qemu_img("info", "--output=json", path))
    for unlike in ("actual-size", "filename"):
        facts.pop(unlike)
    return report["status"], report.get("allocated-clusters", 0), runs, facts


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize(("cluster_size", "version"), [(512, 3), (4096, 2), (65536, 3), (2 * MIB, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_a_new_image_is_preallocated_as_qemu_img_does_it(
    mode: str, cluster_size: int, version: int, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    make(ours, mode, version=version, cluster_size=cluster_size)
    oracles.create_image(theirs, SIZE, version=version, cluster_size=cluster_size, preallocation=mode)
    assert seen(ours) == seen(theirs)
    assert qemu_reads(ours) == bytes(SIZE)
    needed = SIZE if mode in ("falloc", "full") else 0
    tables = 64 * 1024 + 5 * cluster_size + SIZE * 8 // cluster_size**2 * 2 * 4096  # blocks that L2 tables touch
    assert needed <= space(ours) <= needed + tables
    assert abs(space(ours) - space(theirs)) <= tables
    if mode != "off":
        # Mapped once and for all: a write changes no metadata, so the file does not grow.
        length = ours.stat().st_size
        with open_disk(ours, format="qcow2") as disk:
            disk.pwrite(SIZE - 700, b"x" * 700)
            disk.pwrite(3 * MIB + 9, b"y" * 700)
        assert ours.stat().st_size == length
    oracles.assert_clean(ours)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("mode", MODES)
def test_what_a_disk_grows_by_is_preallocated_as_qemu_img_does_it(mode: str, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        oracles.create_image(path, 2 * MIB)
        oracles.qemu_io(path, "write -P 7 0 100k")
    before = space(ours)
    with open_disk(ours, format="qcow2") as disk:
        disk.scheduler.run(disk.node.truncate(SIZE))
        disk.scheduler.run(preallocate(disk.node, 2 * MIB, SIZE - 2 * MIB, mode))  # type: ignore[arg-type]
    oracles.qemu_img("resize", "-f", "qcow2", f"--preallocation={mode}", theirs, SIZE)
    assert seen(ours) == seen(theirs)
    assert qemu_reads(ours) == qemu_reads(theirs) == (b"\7" * 102400).ljust(SIZE, b"\0")
    needed = SIZE - 2 * MIB if mode in ("falloc", "full") else 0
    assert needed <= space(ours) - before <= needed + MIB
    oracles.assert_clean(ours)


@pytest.mark.parametrize("mode", MODES)
def test_space_that_is_used_again_shows_nothing_of_what_was_there(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freed clusters keep their bytes where the host cannot punch holes; tables keep theirs anywhere."""

    async def no_holes(*_args: Any) -> None:
        """A hint that is not taken."""

    monkeypatch.setattr(FileNode, "discard", no_holes)
    path = tmp_path / "disk.qcow2"
    make(path, "off", 2 * MIB, cluster_size=512)
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, b"secret!!" * (2 * MIB // 8))
        disk.scheduler.run(disk.node.truncate(64 * 1024))
        disk.scheduler.run(disk.node.truncate(2 * MIB))
        disk.scheduler.run(preallocate(disk.node, 64 * 1024, 2 * MIB - 64 * 1024, mode))  # type: ignore[arg-type]
        assert disk.pread(64 * 1024, 2 * MIB - 64 * 1024) == bytes(2 * MIB - 64 * 1024)
    check_bytes(path.read_bytes())


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_an_encrypted_disk_reads_as_zeros_where_it_is_preallocated(mode: str) -> None:
    file = new_image(SIZE, cluster_size=4096, encrypted=True)
    image = open_image(file, key=KEY)
    put(image, 0, b"x" * 512)
    file.scheduler.run(preallocate(image, 4096, SIZE - 4096, mode))
    length = file.size
    assert read_all(image) == (b"x" * 512).ljust(SIZE, b"\0")
    put(image, 5 * MIB, b"y" * 512)
    file.scheduler.run(image.close())
    assert file.size == length
    check_bytes(file.data)
