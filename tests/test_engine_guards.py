"""Guards: no write lands on a table, whatever the refcounts say; snapshots and VM state keep what is theirs."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block.open import open_disk
from e2kdisk.errors import CorruptImage, ImageError, UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.overlap import TEMPLATES
from e2kdisk.qcow2.vm_state import read_vm_state, write_vm_state
from tests import oracles
from tests.engine_lab import get, new_image, put, reopened
from tests.qcow2_model import LabFile, check_bytes, open_image, read_all

CLUSTER = 4096
SIZE = 64 * CLUSTER


def with_everything() -> bytes:
    """Data in the first half, a snapshot, and an L2 table that only the snapshot has."""
    file = new_image(SIZE, cluster_size=CLUSTER)
    image = open_image(file)
    put(image, 0, b"old data" * (SIZE // 16))
    file.scheduler.run(image.snapshots.create("s"))
    put(image, 0, b"new data" * 512)
    file.scheduler.run(image.close())
    return bytes(file.data)


def header_of(data: bytes) -> Header:
    return Header.parse("t", data[:CLUSTER])


def u64(data: bytes, offset: int) -> int:
    return int(struct.unpack_from(">Q", data, offset)[0])


WHERE: dict[str, Callable[[bytes], int]] = {
    "header": lambda data: 0,
    "active L1 table": lambda data: header_of(data).l1_table_offset,
    "refcount table": lambda data: header_of(data).refcount_table_offset,
    "snapshot table": lambda data: header_of(data).snapshots_offset,
    "active L2 table": lambda data: u64(data, header_of(data).l1_table_offset) & layout.OFFSET_MASK,
    "refcount block": lambda data: u64(data, header_of(data).refcount_table_offset),
    "inactive L1 table": lambda data: u64(data, header_of(data).snapshots_offset),
    "inactive L2 table": lambda data: u64(data, u64(data, header_of(data).snapshots_offset)) & layout.OFFSET_MASK,
}


def use_up_to(image: Any) -> BaseException | None:
    """Allocate until an error comes."""
    try:
        for offset in range(SIZE // 2, SIZE, CLUSTER):
            put(image, offset, b"unlucky " * 512)
    except ImageError as error:
        return error
    return None


GUARDED = [(template, kind) for template, kinds in TEMPLATES.items() for kind in WHERE if kind in kinds]


@pytest.mark.parametrize(("template", "kind"), GUARDED)
def test_an_allocation_never_lands_on_metadata_that_the_template_guards(template: str, kind: str) -> None:
    data = bytearray(with_everything())
    place = WHERE[kind](bytes(data))
    struct.pack_into(">H", data, WHERE["refcount block"](bytes(data)) + 2 * (place // CLUSTER), 0)
    image = reopened(data, overlap_check=template)
    before = bytes(image.file.data[place : place + CLUSTER])
    error = use_up_to(image)
    assert isinstance(error, CorruptImage)
    assert kind in str(error)
    now = bytes(image.file.data)
    assert header_of(now).incompatible_features & layout.INCOMPAT_CORRUPT
    if kind != "header":
        assert now[place : place + CLUSTER] == before or kind in ("active L2 table", "refcount block")
    with pytest.raises(ImageError, match="no writes any more"):
        put(image, 0, b"x" * 512)
    assert get(image, 0, CLUSTER) == b"new data" * 512
    image.scheduler.run(image.close())
    with pytest.raises(ImageError, match="marked corrupt"):
        reopened(image.file.data)
    file = LabFile(Scheduler(), image.file.data, read_only=True)
    assert get(open_image(file), 0, CLUSTER) == b"new data" * 512


@pytest.mark.parametrize(("template", "kind"), [pair for pair in GUARDED if pair[1] != "header"])
def test_an_entry_that_leads_to_metadata_is_not_written_through(template: str, kind: str) -> None:
    data = bytearray(with_everything())
    place = WHERE[kind](bytes(data))
    struct.pack_into(">Q", data, WHERE["active L2 table"](bytes(data)), layout.COPIED | place)
    image = reopened(data, overlap_check=template)
    with pytest.raises(CorruptImage, match=kind):
        put(image, 512, b"wild" * 128)
    assert image.file.data[place : place + CLUSTER] == data[place : place + CLUSTER]
    assert header_of(bytes(image.file.data)).incompatible_features & layout.INCOMPAT_CORRUPT


POINTERS: dict[str, Callable[[bytes], int]] = {
    "active L1 table": lambda data: 40,
    "refcount table": lambda data: 48,
    "snapshot table": lambda data: 64,
    "active L2 table": lambda data: header_of(data).l1_table_offset,
    "refcount block": lambda data: header_of(data).refcount_table_offset,
    "inactive L1 table": lambda data: header_of(data).snapshots_offset,
    "inactive L2 table": lambda data: u64(data, header_of(data).snapshots_offset),
}
"""Where the offset of each structure stands."""


def misplaced(kind: str, other: str) -> bytes:
    """An image that says of a structure that it lies where another one does."""
    data = bytearray(with_everything())
    place = POINTERS[kind](bytes(data))
    flags = u64(data, place) & layout.COPIED
    struct.pack_into(">Q", data, place, WHERE[other](bytes(data)) | flags)
    return bytes(data)


NOT_SEEN_AT_ONCE = {
    ("refcount table", "refcount block"),
    ("active L1 table", "active L2 table"),
    ("active L1 table", "inactive L2 table"),
    ("refcount table", "inactive L2 table"),
    ("active L2 table", "header"),
    ("active L2 table", "inactive L2 table"),
    ("refcount block", "header"),
    ("refcount block", "inactive L2 table"),
    ("snapshot table", "inactive L1 table"),
    ("inactive L1 table", "inactive L2 table"),
}
"""Not seen when the image is opened: the pointer hides what it points to, or what is there is read as nothing."""


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (kind, other)
        for kind in POINTERS
        for other in WHERE
        if kind not in (other, "inactive L2 table") and (kind, other) not in NOT_SEEN_AT_ONCE
    ],
)
def test_an_image_with_two_structures_in_one_place_is_not_opened_for_writing(
    kind: str, other: str, tmp_path: Path
) -> None:
    """qemu-img check calls each corrupt; qemu-io 7.2 finds some of them while it writes, and writes into others."""
    data = misplaced(kind, other)
    path = tmp_path / "disk.qcow2"
    path.write_bytes(data)
    assert oracles.run("qemu-img", "check", path, check=False).returncode in (1, 2)
    for template in ("cached", "all"):
        with pytest.raises(ImageError), open_disk(path, overlap_check=template):
            pass
    assert path.read_bytes() == data, "refused, but changed"


@pytest.mark.parametrize("other", [other for other in WHERE if "L2" not in other and other != "header"])
def test_a_snapshot_whose_l2_table_is_another_structure_is_neither_applied_nor_changed(other: str) -> None:
    data = misplaced("inactive L2 table", other)
    for act in (
        lambda image: image.snapshots.apply("s"),
        lambda image: image.snapshots.delete("s"),
        lambda image: amend(image, AmendOptions(version=2)),
    ):
        image = reopened(data)
        place = WHERE[other](data)
        with pytest.raises(CorruptImage, match=other):
            image.scheduler.run(act(image))
        assert image.file.data[place : place + CLUSTER] == data[place : place + CLUSTER]
        put(image, 0, b"goes on!" * 64)
        assert get(image, 0, 512) == b"goes on!" * 64


@pytest.mark.needs("qemu-utils")
def test_an_image_marked_corrupt_by_us_is_repaired_by_qemu(tmp_path: Path) -> None:
    data = bytearray(with_everything())
    struct.pack_into(
        ">Q", data, WHERE["active L2 table"](bytes(data)), layout.COPIED | WHERE["active L1 table"](bytes(data))
    )
    image = reopened(data)
    with pytest.raises(CorruptImage):
        put(image, 512, b"wild" * 128)
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image.file.data)
    assert "corrupt: true" in oracles.qemu_img("info", path)
    oracles.run("qemu-img", "check", "-r", "all", path, check=False)
    oracles.assert_clean(path)


# -- snapshots ---------------------------------------------------------------------------------------


def test_snapshots_are_found_by_id_before_name_and_ids_count_upwards() -> None:
    file = new_image(SIZE, cluster_size=CLUSTER)
    image = open_image(file)
    run = image.scheduler.run
    ids = []
    for number, name in enumerate(["first", "1", "first", "Снимок 3"]):
        put(image, 0, bytes([number + 1]) * 512)
        ids.append(run(image.snapshots.create(name)).id)
    assert ids == ["1", "2", "3", "4"]
    assert image.snapshots.find("1").name == "first"
    assert image.snapshots.find("first").id == "1"
    run(image.snapshots.apply("Снимок 3"))
    assert get(image, 0, 512) == b"\4" * 512
    run(image.snapshots.delete("4"))
    run(image.snapshots.delete("2"))
    assert run(image.snapshots.create("again")).id == "4"
    with pytest.raises(ImageError, match="no snapshot"):
        run(image.snapshots.apply("missing"))
    run(image.close())
    check_bytes(file.data)
    assert [(item.id, item.name) for item in reopened(file.data).snapshots.all()] == [
        ("1", "first"),
        ("3", "first"),
        ("4", "again"),
    ]


def test_unknown_extra_data_of_a_snapshot_is_kept() -> None:
    data = bytearray(with_everything())
    header = header_of(bytes(data))
    table = header.snapshots_offset
    entry = bytes(data[table : table + 40])
    extra_size = struct.unpack_from(">I", entry, 36)[0]
    rest = bytes(data[table + 40 : table + 40 + extra_size + 2])
    extra = rest[:extra_size].ljust(24, b"\0") + b"from the future!"
    new = entry[:36] + struct.pack(">I", len(extra)) + extra + rest[extra_size:]
    data[table : table + len(new)] = new
    image = reopened(data)
    run = image.scheduler.run
    run(image.snapshots.create("more"))
    run(image.snapshots.delete("more"))
    run(image.close())
    found = reopened(image.file.data).snapshots.all()
    assert [item.extra_data for item in found] == [extra]
    assert found[0].name == "s"
    check_bytes(image.file.data)


@pytest.mark.needs("qemu-utils")
def test_a_snapshot_is_shown_read_only_with_its_own_l1_size_and_disk_size(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    small, large = 3 << 20, 96 << 20
    path.write_bytes(new_image(small, cluster_size=512).data)
    with open_disk(path) as disk:
        disk.pwrite(small - 512, b"s" * 512)
        disk.scheduler.run(disk.node.snapshots.create("small"))  # type: ignore[attr-defined]
        disk.scheduler.run(disk.node.truncate(large))
        disk.pwrite(large - 512, b"l" * 512)
        disk.scheduler.run(disk.node.snapshots.create("large"))  # type: ignore[attr-defined]
        disk.scheduler.run(disk.node.truncate(small // 2))
        disk.pwrite(0, b"now!" * 128)
    oracles.assert_clean(path)
    for name, size, mark in (("small", small, b"s"), ("large", large, b"l")):
        with open_disk(path, read_only=True, snapshot=name) as disk:
            assert disk.size == size
            assert disk.pread(size - 512, 512) == mark * 512
            assert disk.pread(0, 512) == bytes(512)
            with pytest.raises(OSError, match="reading only"):
                disk.pwrite(0, b"x" * 512)
    with pytest.raises(UsageError, match="read-only"):
        open_disk(path, snapshot="small")
    with open_disk(path) as disk:
        for name, size, mark in (("large", large, b"l"), ("small", small, b"s"), ("large", large, b"l")):
            disk.scheduler.run(disk.node.snapshots.apply(name))  # type: ignore[attr-defined]
            assert disk.node.size == size
            assert disk.pread(size - 512, 512) == mark * 512
    oracles.assert_clean(path)


def test_version_2_images_with_snapshots_keep_their_size() -> None:
    file = new_image(SIZE, cluster_size=CLUSTER, version=2)
    image = open_image(file)
    file.scheduler.run(image.snapshots.create("s"))
    with pytest.raises(ImageError, match="version 2"):
        file.scheduler.run(image.truncate(2 * SIZE))


# -- VM state ----------------------------------------------------------------------------------------


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("version", [2, 3])
def test_vm_state_lies_behind_the_disk_and_goes_with_its_snapshot(version: int, tmp_path: Path) -> None:
    file = new_image(SIZE, cluster_size=512, version=version)
    image = open_image(file)
    run = image.scheduler.run
    states = {"a": b"state of a " * 9000, "b": b"state of b! " * 20000}
    for name, state in states.items():
        put(image, 0, name.encode() * 512)
        run(write_vm_state(image, 0, [memoryview(state)]))
        run(image.snapshots.create(name, vm_state_size=len(state)))
    run(image.close())
    check_bytes(file.data)
    image = reopened(file.data)
    run = image.scheduler.run
    for name, state in (*states.items(), *states.items()):
        run(image.snapshots.apply(name))
        assert get(image, 0, 512) == name.encode() * 512
        size = image.snapshots.find(name).vm_state_size
        found = bytearray(size)
        run(read_vm_state(image, 0, [memoryview(found)]))
        assert found == state
    run(image.snapshots.delete("a"))
    run(image.close())
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image.file.data)
    oracles.assert_clean(path)
    assert " b " in oracles.qemu_img("snapshot", "-l", path)
    assert bytes(read_all(reopened(image.file.data)))[:512] == b"b" * 512


@pytest.mark.parametrize("snapshot", [False, True])
def test_vm_state_never_shows_on_a_disk_that_grows_over_it(snapshot: bool) -> None:
    file = new_image(20 * 1024, cluster_size=512)
    image = open_image(file)
    run = image.scheduler.run
    put(image, 0, b"disk" * 5120)
    run(write_vm_state(image, 0, [memoryview(b"VM state" * 4000)]))
    if snapshot:
        run(image.snapshots.create("s", vm_state_size=32000))
        run(image.snapshots.apply("s"))
    run(image.truncate(128 * 1024))
    assert bytes(read_all(image)) == (b"disk" * 5120).ljust(128 * 1024, b"\0")
    run(image.close())
    check_bytes(file.data)
    assert bytes(read_all(reopened(file.data))) == (b"disk" * 5120).ljust(128 * 1024, b"\0")
    if snapshot:
        image = reopened(file.data)
        image.scheduler.run(image.snapshots.apply("s"))
        found = bytearray(32000)
        image.scheduler.run(read_vm_state(image, 0, [memoryview(found)]))
        assert found == b"VM state" * 4000
