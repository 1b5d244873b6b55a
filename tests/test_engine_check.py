"""Check and repair: the same counts as qemu-img's over valid and broken images; what was readable stays readable."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.check import CheckResult, check, check_file
from e2kdisk.qcow2.check_kernel import NumpyKernel, PythonKernel
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from tests import oracles
from tests.engine_lab import Mirror, get, new_image, put, qemu_reads, reopened
from tests.qcow2_model import LabFile, open_image, read_all

CLUSTER = 4096
SIZE = 40 * CLUSTER + 512


class Broken:
    """The bytes of a valid image, and where its structures are, to be broken."""

    def __init__(self, seed: int = 1, *, cluster_size: int = CLUSTER, version: int = 3, kinds: str = "all") -> None:
        file = new_image(SIZE, cluster_size=cluster_size, version=version)
        image = open_image(file)
        mirror = Mirror(image, bytearray(SIZE), random.Random(seed))
        put(image, 0, b"first" * 2000)
        mirror.model[:10000] = b"first" * 2000
        if kinds == "all":
            mirror.change(25, ("write", "zeroes", "discard", "compressed", "snapshot", "write"))
        file.scheduler.run(image.close())
        self.data = bytearray(file.data)
        self.model = mirror.model
        self.header = Header.parse("t", bytes(self.data[:cluster_size]))
        self.geometry = Geometry(self.header.cluster_bits, self.header.refcount_order)

    def u64(self, offset: int) -> int:
        return int(struct.unpack_from(">Q", self.data, offset)[0])

    def set64(self, offset: int, value: int) -> None:
        struct.pack_into(">Q", self.data, offset, value)

    @property
    def l1(self) -> int:
        return self.header.l1_table_offset

    @property
    def l2(self) -> int:
        return self.u64(self.l1) & layout.OFFSET_MASK

    @property
    def refblock(self) -> int:
        return self.u64(self.header.refcount_table_offset)

    def entries(self) -> list[int]:
        """Where the L2 entries of allocated clusters are."""
        places = range(self.l2, self.l2 + self.geometry.cluster_size, 8)
        return [
            place
            for place in places
            if not self.u64(place) & layout.COMPRESSED and self.u64(place) & layout.OFFSET_MASK
        ]

    def data_cluster(self) -> int:
        return (self.u64(self.entries()[0]) & layout.OFFSET_MASK) >> self.header.cluster_bits

    def refcount(self, cluster: int, value: int) -> None:
        struct.pack_into(">H", self.data, self.refblock + 2 * cluster, value)


def too_high(image: Broken) -> None:
    image.refcount(image.data_cluster(), 9)


def too_low(image: Broken) -> None:
    image.refcount(image.data_cluster(), 0)


def copied_flipped(image: Broken) -> None:
    place = image.entries()[0]
    image.set64(place, image.u64(place) ^ layout.COPIED)


def copied_flipped_in_l1(image: Broken) -> None:
    image.set64(image.l1, image.u64(image.l1) ^ layout.COPIED)


def l2_entry_unaligned(image: Broken) -> None:
    place = image.entries()[-1]
    image.set64(place, image.u64(place) + 512)


def l2_entry_past_the_end(image: Broken) -> None:
    image.set64(image.entries()[-1], layout.COPIED | (len(image.data) + 64 * CLUSTER))


def l1_entry_past_the_end(image: Broken) -> None:
    image.set64(image.l1, layout.COPIED | (len(image.data) + 64 * CLUSTER))


def l1_entry_unaligned(image: Broken) -> None:
    image.set64(image.l1, image.u64(image.l1) + 512)


def refblock_missing(image: Broken) -> None:
    image.set64(image.header.refcount_table_offset, 0)


def reftable_entry_unaligned(image: Broken) -> None:
    image.set64(image.header.refcount_table_offset, image.refblock + 512)


def reftable_entry_past_the_end(image: Broken) -> None:
    image.set64(image.header.refcount_table_offset + 8, len(image.data) + 64 * CLUSTER)


def reftable_garbage(image: Broken) -> None:
    place = image.header.refcount_table_offset
    image.data[place : place + CLUSTER] = random.Random(3).randbytes(CLUSTER)


def refblock_zeroed(image: Broken) -> None:
    image.data[image.refblock : image.refblock + CLUSTER] = bytes(CLUSTER)


def refblock_is_the_l1_table(image: Broken) -> None:
    image.set64(image.header.refcount_table_offset, image.l1)


def l2_table_is_the_refblock(image: Broken) -> None:
    image.set64(image.l1, layout.COPIED | image.refblock)


def two_entries_share_a_cluster(image: Broken) -> None:
    first, second = image.entries()[:2]
    image.set64(second, image.u64(first))


def cluster_leaked_at_the_end(image: Broken) -> None:
    image.refcount(len(image.data) >> image.header.cluster_bits, 1)
    image.data += bytes(-len(image.data) % CLUSTER + CLUSTER)


def counted_past_the_end(image: Broken) -> None:
    image.refcount((len(image.data) >> image.header.cluster_bits) + 9, 1)


def compressed_is_copied(image: Broken) -> None:
    for place in range(image.l2, image.l2 + CLUSTER, 8):
        if image.u64(place) & layout.COMPRESSED:
            image.set64(place, image.u64(place) | layout.COPIED)
            return


BREAKS: tuple[Callable[[Broken], None], ...] = (
    too_high,
    too_low,
    copied_flipped,
    copied_flipped_in_l1,
    l2_entry_unaligned,
    l2_entry_past_the_end,
    l1_entry_past_the_end,
    l1_entry_unaligned,
    refblock_missing,
    reftable_entry_unaligned,
    reftable_entry_past_the_end,
    reftable_garbage,
    refblock_zeroed,
    refblock_is_the_l1_table,
    l2_table_is_the_refblock,
    two_entries_share_a_cluster,
    cluster_leaked_at_the_end,
    counted_past_the_end,
    compressed_is_copied,
)


def compare_with_qemu(path: Path) -> CheckResult:
    """Our check and qemu's: corruptions yes or no, the number of leaks, what is allocated and how."""
    theirs = oracles.check_image(path)
    ours = check(path)
    assert bool(ours.corruptions) == bool(theirs.get("corruptions") or theirs.get("check-errors")), (
        ours.problems,
        theirs,
    )
    if not ours.corruptions:
        assert ours.leaks == theirs.get("leaks", 0), (ours.problems, theirs)
        for count, name in (
            (ours.allocated_clusters, "allocated-clusters"),
            (ours.compressed_clusters, "compressed-clusters"),
            (ours.fragmented_clusters, "fragmented-clusters"),
            (ours.total_clusters, "total-clusters"),
        ):
            assert count == theirs.get(name, 0), (name, theirs)
        assert ours.image_end == theirs["image-end-offset"]
    return ours


def readable(data: bytes) -> list[bytes | None]:
    """Each sector of the disk as it reads, None where there is an error."""
    file = LabFile(Scheduler(), data, read_only=True)
    try:
        image = open_image(file)
    except ImageError:
        return []
    found: list[bytes | None] = []
    for offset in range(0, SIZE, 512):
        try:
            found.append(get(image, offset, 512))
        except ImageError:
            found.append(None)
    return found


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(12))
def test_valid_images_count_as_qemu_counts_them(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(Broken(seed, version=2 + seed % 2, cluster_size=(512, 4096, 65536)[seed % 3]).data)
    assert compare_with_qemu(path).clean


def count_around_the_end(image: Broken, dice: random.Random) -> None:
    """Leak clusters, count some behind the end, make blocks for far ones, cut the file or lengthen it."""
    size, data = image.geometry.cluster_size, image.data
    end = -(-len(data) // size)
    match dice.choice(["past", "cut", "grow", "leak", "far block"]):
        case "past":
            for cluster in dice.sample(range(end, end + 30), 3):
                image.refcount(min(cluster, image.geometry.refblock_entries - 1), dice.randint(1, 3))
        case "cut":
            del data[max(5 * size, len(data) - dice.choice([1, 100, size, 2 * size, 3 * size])) :]
        case "grow":
            data += bytes(dice.randint(1, 3 * size))
        case "leak":
            image.refcount(dice.randrange(min(end, image.geometry.refblock_entries)), 7)
        case "far block":
            data += bytes(-len(data) % size)
            block = len(data)
            data += bytes(size)
            image.refcount(min(block // size, image.geometry.refblock_entries - 1), 1)
            image.set64(image.header.refcount_table_offset + 8 * 3, block)
            struct.pack_into(">H", data, block + 2 * dice.randrange(image.geometry.refblock_entries), 1)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(40))
def test_counts_around_the_end_of_the_file_are_judged_as_qemu_judges_them(seed: int, tmp_path: Path) -> None:
    """A count behind the end is no leak: nothing lies there."""
    path = tmp_path / "disk.qcow2"
    dice = random.Random(seed)
    image = Broken(seed % 5, version=2 + seed % 2, cluster_size=dice.choice([512, 4096, 65536]), kinds="writes")
    for _ in range(dice.randint(1, 3)):
        count_around_the_end(image, dice)
    path.write_bytes(image.data)
    found = compare_with_qemu(path)
    if not found.corruptions:
        ours = check(path, fix="leaks")
        assert (ours.leaks, ours.leaks_fixed) == (0, found.leaks)
        oracles.assert_clean(path)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("damage", BREAKS, ids=lambda item: item.__name__)
def test_broken_images_are_judged_as_qemu_judges_them_and_repaired(
    damage: Callable[[Broken], None], seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    image = Broken(seed, version=2 if seed == 2 else 3)
    damage(image)
    path.write_bytes(image.data)
    found = compare_with_qemu(path)
    before = readable(bytes(image.data))

    leaks_only = check(path, fix="leaks")
    assert not leaks_only.leaks or found.corruptions
    assert leaks_only.corruptions <= found.corruptions, "repairing leaks made new corruptions"
    _same_contents(before, path)

    path.write_bytes(image.data)
    fixed = check(path, fix="all")
    assert fixed.clean, fixed.problems
    # As qemu-img counts: a COPIED flag that only a leak makes wrong is right when the leak is gone.
    flags = sum("COPIED" in text for text in found.problems)
    assert fixed.corruptions_fixed or found.corruptions == flags
    assert found.corruptions or not fixed.corruptions_fixed
    assert check(path).clean
    oracles.assert_clean(path)
    _same_contents(before, path)
    if damage not in (l1_entry_past_the_end, l1_entry_unaligned, l2_table_is_the_refblock):
        assert sum(old is None for old in before) <= 8
    with_more = reopened(path.read_bytes())
    put(with_more, 512, b"after" * 100)
    with_more.scheduler.run(with_more.close())
    assert qemu_reads(path) is not None


def _same_contents(before: list[bytes | None], path: Path) -> None:
    after = readable(path.read_bytes())
    for number, (old, new) in enumerate(zip(before, after, strict=False)):
        assert old is None or new == old, f"sector {number} was readable and has changed"


@pytest.mark.needs("qemu-utils")
def test_bitmaps_are_counted_as_qemu_counts_them(tmp_path: Path) -> None:
    path = oracles.create_image(tmp_path / "disk.qcow2", "8M", cluster_size=4096)
    oracles.qemu_img("bitmap", "--add", "--enable", path, "one")
    oracles.qemu_io(path, "write -P 3 1M 2M", "write -P 4 5M 4k")
    oracles.qemu_img("bitmap", "--add", "-g", "4096", path, "two")
    assert compare_with_qemu(path).clean
    data = bytearray(path.read_bytes())
    header = Header.parse("t", bytes(data[:4096]))
    extension = header.extension(layout.EXT_BITMAPS)
    assert extension is not None
    directory = struct.unpack(">IIQQ", extension)[3]
    block = struct.unpack_from(">Q", data, header.refcount_table_offset)[0]
    struct.pack_into(">H", data, block + 2 * (directory >> 12), 0)
    path.write_bytes(data)
    assert compare_with_qemu(path).corruptions
    assert check(path, fix="all").clean
    oracles.assert_clean(path)
    assert "two" in oracles.qemu_img("info", path)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("refcount_bits", [16, 64])
def test_snapshots_that_lack_what_version_3_asks_for_are_completed(refcount_bits: int, tmp_path: Path) -> None:
    """As an old program leaves them that makes version 3 of version 2; the new table may need a refcount block."""
    size = 300 * 512
    file = new_image(size, cluster_size=512, refcount_bits=refcount_bits)
    image = open_image(file)
    for name in ("one", "two"):
        put(image, 0, name.encode() * 5000)
        image.scheduler.run(image.snapshots.create(name))
    image.scheduler.run(image.close())
    data = file.data
    at = Header.parse("t", bytes(data[:512])).snapshots_offset
    for number, name in enumerate(("one", "two"), 1):
        fixed = bytearray(data[at : at + 40])
        length = 40 + struct.unpack_from(">I", fixed, 36)[0] + 4
        if number == 1:
            following = bytes(data[at + (length + 7 & -8) :][:80])
        struct.pack_into(">I", fixed, 36, 0)
        entry = bytes(fixed) + f"{number}{name}".encode()
        data[at : at + 48] = entry.ljust(48, b"\0")
        at += 48
        data[at : at + 80] = following
    path = tmp_path / "disk.qcow2"
    path.write_bytes(data)
    assert compare_with_qemu(path).corruptions == 2
    mended = check(path, fix="all")
    assert mended.clean and mended.corruptions_fixed == 2
    oracles.assert_clean(path)
    for name in ("one", "two"):
        assert qemu_reads(path, snapshot=name)[:15000] == name.encode() * 5000


def test_an_image_that_was_not_closed_is_repaired_when_it_is_opened_for_writing() -> None:
    file = new_image(SIZE, cluster_size=CLUSTER, lazy_refcounts=True)
    image = open_image(file)
    put(image, 0, b"lazy" * 5000)
    image.scheduler.run(image.flush())
    left = bytes(file.data)  # the process is killed
    assert Header.parse("t", left[:CLUSTER]).incompatible_features & layout.INCOMPAT_DIRTY
    reader = open_image(LabFile(Scheduler(), left, read_only=True))
    assert get(reader, 0, 20000) == b"lazy" * 5000
    writer = reopened(left)
    assert get(writer, 0, 20000) == b"lazy" * 5000
    put(writer, 30 * CLUSTER, b"more" * 2000)
    writer.scheduler.run(writer.close())
    result = Scheduler().run(check_file(LabFile(Scheduler(), writer.file.data)))
    assert result.clean, result.problems
    assert not Header.parse("t", bytes(writer.file.data[:CLUSTER])).incompatible_features & layout.INCOMPAT_DIRTY
    assert get(reopened(writer.file.data), 0, 20000) == b"lazy" * 5000


@pytest.mark.parametrize("seed", range(30))
def test_repair_of_random_damage_to_counts_and_flags_loses_nothing(seed: int) -> None:
    dice = random.Random(seed)
    image = Broken(seed % 5, version=2 + seed % 2)
    end = len(image.data) >> image.header.cluster_bits
    for _ in range(dice.randrange(1, 12)):
        if dice.random() < 0.7:
            image.refcount(dice.randrange(end), dice.choice([0, 1, 2, 3, 0xFFFF]))
        else:
            place = dice.choice(image.entries())
            image.set64(place, image.u64(place) ^ layout.COPIED)
    file = LabFile(Scheduler(), image.data)
    result = file.scheduler.run(check_file(file, "all"))
    assert result.clean, result.problems
    assert read_all(reopened(file.data)) == image.model


@pytest.mark.parametrize("bits", [1, 16, 64, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (2, 4, 8, 32))])
@given(data=st.data())
def test_both_kernels_give_the_same_answers(bits: int, data: st.DataObject) -> None:
    pytest.importorskip("numpy")
    geometry = Geometry(9, bits.bit_length() - 1)
    clusters = data.draw(st.integers(1, 90))
    kernels = PythonKernel(geometry, clusters), NumpyKernel(geometry, clusters)
    flags = st.sampled_from([0, layout.COPIED, layout.ZERO, layout.COMPRESSED, 1 << 61, 512, 256, 1 << 56])
    entry = st.builds(lambda place, flag: place * 512 | flag, st.integers(0, 100), flags)
    tables = data.draw(st.lists(st.lists(entry, min_size=64, max_size=64), max_size=3))
    for table in tables:
        raw = bytearray(struct.pack(">64Q", *table))
        assert kernels[0].count_table(raw) == kernels[1].count_table(raw)
    for first_cluster, count in data.draw(st.lists(st.tuples(st.integers(0, clusters - 1), st.integers(0, 5)))):
        for kernel in kernels:
            kernel.reference(first_cluster, min(count, clusters - first_cluster))
    for first_cluster in range(0, clusters, geometry.refblock_entries):
        block = bytearray(data.draw(st.binary(min_size=512, max_size=512)))
        if bits >= 8 and data.draw(st.booleans()):
            block = bytearray((1).to_bytes(bits // 8, "big") * (4096 // bits))
        assert len({kernel.load_block(first_cluster, block) for kernel in kernels}) == 1
    assert list(kernels[0].differences()) == list(kernels[1].differences())
    for table in tables:
        raw = bytearray(struct.pack(">64Q", *table))
        assert list(kernels[0].wrong_flags(raw)) == list(kernels[1].wrong_flags(raw))
    assert kernels[0].references_of(0, clusters + 9) == kernels[1].references_of(0, clusters + 9)
    assert kernels[0].last_used() == kernels[1].last_used()
    assert [kernels[0].refcount(n) for n in range(clusters)] == [kernels[1].refcount(n) for n in range(clusters)]
