"""Persistent dirty bitmaps: what each operation promises, judged by qemu-nbd, qemu-img and a reader of our own."""

import errno
import random
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block import open_disk
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.check import check
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.dirty_bits import DirtyBits
from e2kdisk.qcow2.vm_state import write_vm_state
from tests import oracles
from tests.bitmap_lab import AUTO, IN_USE, extension_place, seen_by_qemu, set_flags, stored, stored_in
from tests.engine_lab import new_image, put
from tests.qcow2_model import LabFile, open_image

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
SIZE = 4 * MIB


def bitmaps_of(disk: Any) -> Any:
    return disk.node.bitmaps


def made(path: Path, *names: str, size: int = SIZE, granularity: int | None = None, **options: Any) -> Path:
    """An image of ours with enabled bitmaps."""
    create(path, size, **options)
    with open_disk(path, format="qcow2") as disk:
        for name in names:
            bitmaps_of(disk).add(name, granularity)
    return path


# -- writes are marked -------------------------------------------------------------------------------


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize(("cluster_size", "granularity"), [(512, 4096), (65536, None), (2 * MIB, 512)])
def test_qemu_finds_dirty_what_we_have_written(cluster_size: int, granularity: int | None, tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", granularity=granularity, cluster_size=cluster_size)
    step = stored(path)["b"].granularity
    dirty = set()
    dice = random.Random(cluster_size)
    with open_disk(path, format="qcow2") as disk:
        for _ in range(30):
            offset, length = dice.randrange(SIZE - 9000) & -512, dice.choice([512, 4096, 9000 & -512])
            kind = dice.choice(["write", "write", "zero", "discard"])
            if kind == "write":
                disk.pwrite(offset, dice.randbytes(length))
            elif kind == "zero":
                disk.scheduler.run(disk.write_zeroes(offset, length))
            else:
                disk.scheduler.run(disk.discard(offset, length))
            dirty |= set(range(offset // step, (offset + length - 1) // step + 1))
    seen = {
        number
        for offset, length in seen_by_qemu(path, "b")
        for number in range(offset // step, (offset + length) // step)
    }
    assert seen == dirty
    assert stored(path)["b"].dirty == seen_by_qemu(path, "b")
    oracles.assert_clean(path)


@pytest.mark.needs("qemu-utils")
def test_we_find_dirty_what_qemu_io_has_written(tmp_path: Path) -> None:
    path = oracles.create_image(tmp_path / "disk.qcow2", SIZE)
    oracles.qemu_img("bitmap", "--add", "-g", "4k", path, "b")
    oracles.qemu_io(path, "write 100k 5k", "write -z 1M 64k", "write 4193792 512")
    with open_disk(path, format="qcow2", read_only=True) as disk:
        assert list(bitmaps_of(disk).find("b").bits.ranges()) == seen_by_qemu(path, "b")
        assert next(iter(bitmaps_of(disk).find("b").bits.ranges())) == (100 * 1024, 8192)


IO = "import sys; sys.path.insert(0, {root!r}); from e2kdisk.tools.io.program import script; script()"
SCRIPTS = {
    "write": ("write 100k 5k", "writev 1M 512 512 1k", "aio_write 2M 4k", "aio_flush", "flush"),
    "zeroes": ("write -z 64k 512", "write -z -u 1M 1M", "write 1M 4k", "write -z 1M 64k"),
    "compressed": ("write -c 128k 64k", "write 130k 512"),
    "discard": ("write 0 1M", "discard 1M 100k", "discard 0 64k"),
    "unmap": ("open -d unmap disk.qcow2", "discard 1M 100k", "discard 3000k 1k"),
    "truncate": ("write 3M 1M", "truncate 2M", "truncate 6M", "write 5M 512"),
    "reopen": ("write 0 512", "reopen -r", "reopen -w", "write 1M 512"),
    "read-only": ("open -r disk.qcow2", "read 0 64k"),
}


@cache
def three_of_qemus() -> bytes:
    """An image with three bitmaps that qemu-img has made."""
    with TemporaryDirectory() as place:
        path = oracles.create_image(Path(place) / "disk.qcow2", SIZE)
        for number, options in enumerate(((), ("-g", "512"), ("--disable",))):
            oracles.qemu_img("bitmap", "--add", *options, path, f"b{number}")
        return path.read_bytes()


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_qemu_io_leaves_the_same_bits(name: str, tmp_path: Path) -> None:
    script = SCRIPTS[name] if SCRIPTS[name][0].startswith("open") else ("open disk.qcow2", *SCRIPTS[name])
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for place in (theirs, ours):
        place.mkdir()
        (place / "disk.qcow2").write_bytes(three_of_qemus())
    commands = [word for command in script for word in ("-c", command)]
    done = oracles.run("qemu-io", *commands, cwd=theirs)
    mine = subprocess.run(
        [sys.executable, "-I", "-c", IO.format(root=str(ROOT)), *commands],
        cwd=ours,
        capture_output=True,
        text=True,
        check=True,
    )
    assert mine.stderr == done.stderr
    assert stored(ours / "disk.qcow2") == {
        name: replace(item, place=ANY, table=ANY) for name, item in stored(theirs / "disk.qcow2").items()
    }
    oracles.assert_clean(ours / "disk.qcow2")


def test_a_write_that_is_on_its_way_while_a_bitmap_is_cleared_is_marked() -> None:
    file = new_image(SIZE, cluster_size=4096)
    image = open_image(file)
    bits = image.bitmaps.add("b", 512).bits
    put(image, 0, b"allocated" * 1000)
    engine = SimulatedEngine(file.scheduler)
    file.engine = engine
    for offset in (0, MIB):
        file.scheduler.start(image.write(offset, [memoryview(b"new" * 512)]))
        file.scheduler.poll()
        assert engine.pending
        image.bitmaps.clear("b")
        file.scheduler.drain()
        assert list(bits.ranges()) == [(offset, 1536)]


def test_a_disabled_bitmap_stays_as_it_was(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "on", "off")
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, bytes(512))
        bitmaps_of(disk).enable("off", enabled=False)
        disk.pwrite(MIB, bytes(512))
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(2 * MIB, bytes(512))
    assert [offset for offset, _ in stored(path)["on"].dirty] == [0, MIB, 2 * MIB]
    assert stored(path)["off"].dirty == [(0, 65536)]
    assert (stored(path)["on"].flags, stored(path)["off"].flags) == (AUTO, 0)


def test_compressed_and_encrypted_writes_are_marked_like_others(tmp_path: Path) -> None:
    file = new_image(SIZE, cluster_size=4096)
    image = open_image(file)
    image.bitmaps.add("b", 512)
    file.scheduler.run(image.write_compressed(8192, [memoryview(b"c" * 4096)]))
    file.scheduler.run(image.close())
    assert stored_in(bytes(file.data))["b"].dirty == [(8192, 4096)]
    file = new_image(SIZE, cluster_size=4096, encrypted=True)
    image = open_image(file, key="sesame")
    image.bitmaps.add("b", 512)
    put(image, 700, b"not a whole sector")
    file.scheduler.run(image.close())
    assert stored_in(bytes(file.data))["b"].dirty == [(512, 512)]


def test_a_failed_write_counts_as_a_change() -> None:
    file = new_image(SIZE)
    image = open_image(file)
    image.bitmaps.add("b", 512)

    async def full(offset: int, iov: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write, file.write = file.write, full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"):
        put(image, 1024, bytes(512))
    file.write = write  # type: ignore[method-assign]
    assert list(image.bitmaps.find("b").bits.ranges()) == [(1024, 512)]


def test_vm_state_behind_the_disk_is_no_change_of_the_disk() -> None:
    file = new_image(SIZE, cluster_size=4096)
    image = open_image(file)
    image.bitmaps.add("b")
    file.scheduler.run(write_vm_state(image, 0, [memoryview(bytes(8192))]))
    file.scheduler.run(image.snapshots.create("s"))
    assert not list(image.bitmaps.find("b").bits.ranges())


# -- the mark "in use" -------------------------------------------------------------------------------


def test_bitmaps_are_in_use_while_an_image_is_open_for_writing_and_only_then(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", "c")
    with open_disk(path, format="qcow2", read_only=True):
        assert {item.flags for item in stored(path).values()} == {AUTO}
    with open_disk(path, format="qcow2") as disk:
        assert {item.flags for item in stored(path).values()} == {AUTO | IN_USE}
        disk.sync()
        assert {item.flags for item in stored(path).values()} == {AUTO | IN_USE}
    assert {item.flags for item in stored(path).values()} == {AUTO}


@pytest.mark.needs("qemu-utils")
def test_a_bitmap_that_was_not_stored_can_only_be_removed(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", "good")
    set_flags(path, "b", AUTO | IN_USE)
    with open_disk(path, format="qcow2") as disk:
        bitmaps = bitmaps_of(disk)
        bad, good = bitmaps.find("b"), bitmaps.find("good")
        assert (bad.inconsistent, good.inconsistent) == (True, False)
        for refused in (
            lambda: bitmaps.clear("b"),
            lambda: bitmaps.enable("b"),
            lambda: bitmaps.merge("b", good),
            lambda: bitmaps.merge("good", bad),
            lambda: disk.resize(2 * SIZE),
        ):
            with pytest.raises(ImageError, match="'b' is inconsistent and cannot be used"):
                refused()
        disk.pwrite(0, b"written")
    assert stored(path)["b"].flags == AUTO | IN_USE
    assert stored(path)["good"].dirty == [(0, 65536)]
    with open_disk(path, format="qcow2") as disk:
        disk.scheduler.run(bitmaps_of(disk).remove("b"))
    assert list(stored(path)) == ["good"]
    oracles.assert_clean(path)


@pytest.mark.parametrize("what", ["table", "data"])
def test_a_bitmap_that_is_not_all_in_the_file_is_not_taken_for_a_clean_one(what: str, tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b")
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, b"written")
    found = stored(path)["b"]
    with open(path, "r+b") as file:
        file.seek(found.place if what == "table" else found.table)
        file.write(struct.pack(">Q", 1 << 40))
    with open_disk(path, format="qcow2", read_only=True) as disk:
        assert bitmaps_of(disk).find("b").inconsistent
    assert check(path).corruptions == 1


def test_the_bitmaps_that_stay_when_one_is_removed_are_still_in_use(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", "c", "d")
    with open_disk(path, format="qcow2") as disk:
        disk.scheduler.run(bitmaps_of(disk).remove("c"))
        assert {name: item.flags for name, item in stored(path).items()} == {"b": AUTO | IN_USE, "d": AUTO | IN_USE}
        disk.pwrite(0, b"written")
    assert {name: item.dirty for name, item in stored(path).items()} == {"b": [(0, 65536)], "d": [(0, 65536)]}


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("room", range(5))
def test_bitmaps_that_cannot_be_stored_stay_in_use_and_everything_else_is_closed_in_order(
    room: int, tmp_path: Path
) -> None:
    path = made(tmp_path / "disk.qcow2", "b", "c")
    disk = open_disk(path, format="qcow2")
    disk.pwrite(0, b"written")
    disk.sync()
    refcounts: Any = disk.node.refcounts  # type: ignore[attr-defined]
    left, allocate = [None] * room, refcounts.allocate

    async def nearly_full(clusters: int) -> Any:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()
        return await allocate(clusters)

    refcounts.allocate = nearly_full
    with pytest.raises(OSError, match="No space"):
        disk.close()
    assert {item.flags for item in stored(path).values()} == {AUTO | IN_USE}
    oracles.assert_clean(path)
    with open_disk(path, format="qcow2") as disk:
        assert disk.pread(0, 7) == b"written"


# -- operations --------------------------------------------------------------------------------------


def test_what_qemu_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b")
    with open_disk(path, format="qcow2") as disk:
        bitmaps = bitmaps_of(disk)
        for name, granularity, words in (
            ("", None, "Bitmap name cannot be empty"),
            ("b", None, "Bitmap already exists: b"),
            ("n", 511, "Granularity must be power of 2 and at least 512"),
            ("n", 256, "Granularity must be power of 2 and at least 512"),
            ("n", 1 << 32, "Granularity must be power of 2 and at least 512"),
            ("n" * 1024, None, r"Name length exceeds maximum \(1023 characters\)"),
        ):
            with pytest.raises(ImageError, match=words):
                bitmaps.add(name, granularity)
        with pytest.raises(ImageError, match="Dirty bitmap 'n' not found"):
            bitmaps.find("n")
    create(tmp_path / "v2", SIZE, version=2)
    with open_disk(tmp_path / "v2", format="qcow2") as disk, pytest.raises(ImageError, match="qcow2 v2 files"):
        bitmaps_of(disk).add("b")


def test_merging_rounds_to_the_granules_of_the_target(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "fine", granularity=512)
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(70000 & -512, bytes(512))
        bitmaps = bitmaps_of(disk)
        coarse = bitmaps.add("coarse", 65536)
        bitmaps.merge("coarse", bitmaps.find("fine"))
        assert list(coarse.bits.ranges()) == [(65536, 65536)]
        bitmaps.clear("fine")
        bitmaps.merge("fine", coarse)
        bitmaps.merge("fine", bitmaps.find("fine"))
    assert stored(path)["fine"].dirty == [(65536, 65536)]
    with (
        open_disk(made(tmp_path / "other", "b", size=SIZE + 512), format="qcow2") as disk,
        open_disk(path, format="qcow2", read_only=True) as other,
        pytest.raises(ImageError, match="different sizes"),
    ):
        bitmaps_of(disk).merge("b", bitmaps_of(other).find("fine"))


def test_resizing_forgets_what_is_cut_off_and_finds_new_bytes_clean(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", granularity=4096)
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, bytes(512))
        disk.pwrite(SIZE - 512, bytes(512))
        disk.resize(MIB)
        disk.resize(2 * SIZE)
    assert stored(path)["b"].dirty == [(0, 4096)]
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(2 * SIZE - 512, bytes(512))
    assert stored(path)["b"].dirty == [(0, 4096), (2 * SIZE - 4096, 4096)]


def test_a_snapshot_is_not_applied_to_a_disk_with_bitmaps(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b")
    with open_disk(path, format="qcow2") as disk:
        run, snapshots = disk.scheduler.run, disk.node.snapshots  # type: ignore[attr-defined]
        run(snapshots.create("s"))
        with pytest.raises(ImageError, match="active dirty bitmaps"):
            run(snapshots.apply("s"))
        run(bitmaps_of(disk).remove("b"))
        run(snapshots.apply("s"))


def test_bitmaps_that_nobody_changed_are_not_written_again(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", "c")
    with open_disk(path, format="qcow2") as disk:
        bitmaps_of(disk).enable("c", enabled=False)
    before = path.read_bytes()
    with open_disk(path, format="qcow2"):
        pass
    assert path.read_bytes() == before


@pytest.mark.needs("qemu-utils")
def test_all_clean_and_all_dirty_clusters_of_bits_take_no_space(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b", size=64 * MIB, granularity=512, cluster_size=4096)
    with open_disk(path, format="qcow2") as disk:
        disk.scheduler.run(disk.write_zeroes(0, 48 * MIB + 512))
    table = struct.unpack_from(">4Q", path.read_bytes(), stored(path)["b"].table)
    assert table[:3] == (1, 1, 1)
    assert table[3] > 1
    assert seen_by_qemu(path, "b") == [(0, 48 * MIB + 512)]
    with open_disk(path, format="qcow2") as disk:
        assert list(bitmaps_of(disk).find("b").bits.ranges()) == [(0, 48 * MIB + 512)]
    oracles.assert_clean(path)


def test_extra_data_that_says_it_is_compatible_is_kept(tmp_path: Path) -> None:
    path = made(tmp_path / "disk.qcow2", "b")
    data = bytearray(path.read_bytes())
    place = extension_place(bytes(data))
    assert place is not None
    entry = stored(path)["b"].place
    table, entries = struct.unpack_from(">QI", data, entry)
    new = struct.pack(">QIIBBHI", table, entries, AUTO | 4, 1, 16, 1, 5) + b"extrab\0\0"
    struct.pack_into(">Q", data, place + 8, len(new))
    data[entry : entry + len(new)] = new
    path.write_bytes(data)
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, b"written")
    found = stored(path)["b"]
    assert (found.flags, found.dirty) == (AUTO | 4, [(0, 65536)])
    assert path.read_bytes()[found.place + 24 : found.place + 30] == b"extrab"
    data[entry + 15] = AUTO
    path.write_bytes(data)
    with pytest.raises(ImageError, match="Bitmap extra data is not supported"):
        open_disk(path, format="qcow2", read_only=True)


# -- memory ------------------------------------------------------------------------------------------


def test_bits_take_memory_only_where_they_differ() -> None:
    tracemalloc.start()
    bits = DirtyBits((1 << 39) - 512, 9)  # 128 MiB as they are stored
    bits.mark(0, 1 << 39)
    bits.mark(1 << 50, 5)
    assert list(bits.ranges()) == [(0, (1 << 39) - 512)]
    bits.resize(1 << 38)
    assert list(bits.ranges()) == [(0, 1 << 38)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MIB


RUN = st.tuples(st.integers(0, 1 << 21), st.one_of(st.integers(1, 2000), st.integers(1, 1 << 21)))


@given(
    order=st.integers(9, 12),
    size=st.integers(1, 1 << 22),
    runs=st.lists(RUN, max_size=8),
    other=st.integers(9, 14),
    part=st.sampled_from([512, 4096, 65536]),
    cut=st.integers(1, 1 << 22),
)
def test_bits_agree_with_a_set_of_granules(
    order: int, size: int, runs: list[tuple[int, int]], other: int, part: int, cut: int
) -> None:
    bits, model = DirtyBits(size, order), set()
    for offset, length in runs:
        bits.mark(offset, length)
        model |= set(range(offset >> order, (min(offset + length, size) - 1 >> order) + 1)) if offset < size else set()
    assert granules(bits) == model
    copy = DirtyBits(size, order)
    for number, data in bits.parts(part):
        copy.load(number * part, data)
    assert copy == bits
    merged = DirtyBits(size, other)
    merged.merge(bits)
    assert granules(merged) == {
        place >> other for number in model for place in range(number << order, min(number + 1 << order, size), 512)
    }
    bits.resize(cut)
    bits.resize(1 << 22)
    assert granules(bits) == {number for number in model if number << order < cut}


def granules(bits: DirtyBits) -> set[int]:
    order = bits.granularity_bits
    return {
        number
        for offset, length in bits.ranges()
        for number in range(offset >> order, (offset + length - 1 >> order) + 1)
    }


def test_a_bitmap_of_128_mib_of_ones_is_read_without_holding_it() -> None:
    """A directory may claim what it likes; the table here says "all dirty" 2048 times."""
    size = 1 << 39
    file = new_image(size, cluster_size=65536)
    image = open_image(file)
    image.bitmaps.add("b", 512)
    image.bitmaps.find("b").bits.mark(0, size)
    file.scheduler.run(image.close())
    tracemalloc.start()
    again = open_image(LabFile(Scheduler(), bytes(file.data), read_only=True))
    assert list(again.bitmaps.find("b").bits.ranges()) == [(0, size)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB
