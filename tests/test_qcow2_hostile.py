"""Images made to break us: one line that names file and field, nothing allocated, what is sound still works."""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block import open_disk
from e2kdisk.block.memory import MemoryNode
from e2kdisk.block.node import Node
from e2kdisk.errors import E2kDiskError, ImageError, UnsupportedFeature, UsageError
from e2kdisk.qcow2.create import CreateOptions, format_file
from tests import oracles
from tests.qcow2_model import LabFile, open_image, pattern, read_all, tags_of

CLUSTER = 1024
GRANULE = 512
SIZE = 128 * 1024
NAME = "bad.qcow2"

U16, U32, U64 = ">H", ">I", ">Q"


@cache
def valid() -> bytes:
    """A version 3 image, 1 KiB clusters: some data, zero clusters, holes."""
    scheduler = Scheduler()
    file = LabFile(scheduler)
    scheduler.run(format_file(file, CreateOptions(SIZE, cluster_size=CLUSTER)))
    image = open_image(file)
    scheduler.run(image.write(0, [memoryview(pattern(7, 0, 60, GRANULE))]))
    scheduler.run(image.write_zeroes(20 * CLUSTER, 4 * CLUSTER))
    scheduler.run(image.write(SIZE - 8192, [memoryview(pattern(8, 240, 16, GRANULE))]))
    scheduler.run(image.close())
    return bytes(file.data)


def put(data: bytes, *changes: tuple[int, str, int]) -> bytes:
    """Change fields: (offset, struct format, value)."""
    changed = bytearray(data)
    for offset, kind, value in changes:
        struct.pack_into(kind, changed, offset, value)
    return bytes(changed)


def field(data: bytes, offset: int, kind: str) -> int:
    return struct.unpack_from(kind, data, offset)[0]


def opened(data: bytes, *, read_only: bool = False, backing: Node | None = None) -> tuple[LabFile, Any]:
    file = LabFile(Scheduler(), data, name=NAME, read_only=read_only)
    return file, open_image(file, backing)


BIG32, BIG64 = (1 << 32) - 1, (1 << 64) - 1

# (what it is, (offset, width, value)..., what the error must name)
HEADERS: list[tuple[str, list[tuple[int, str, int]], str]] = [
    ("magic", [(0, U32, 0x51464900)], "magic"),
    ("version 1", [(4, U32, 1)], "version"),
    ("version 4", [(4, U32, 4)], "version"),
    ("version absurd", [(4, U32, BIG32)], "version"),
    ("cluster_bits 0", [(20, U32, 0)], "cluster_bits"),
    ("cluster_bits 8", [(20, U32, 8)], "cluster_bits"),
    ("cluster_bits 22", [(20, U32, 22)], "cluster_bits"),
    ("cluster_bits 63", [(20, U32, 63)], "cluster_bits"),
    ("cluster_bits absurd", [(20, U32, BIG32)], "cluster_bits"),
    ("size absurd", [(24, U64, BIG64)], "size"),
    ("size 2^63", [(24, U64, 1 << 63)], "size"),
    ("size more than L1 maps", [(24, U64, 1 << 40)], "l1_size"),
    ("encryption AES", [(32, U32, 1)], "AES"),
    ("encryption LUKS", [(32, U32, 2)], "LUKS"),
    ("encryption unknown", [(32, U32, 77)], "77"),
    ("l1_size 0", [(36, U32, 0)], "l1_size"),
    ("l1_size absurd", [(36, U32, BIG32)], "l1_size"),
    ("l1_size just above 32 MiB", [(36, U32, (4 << 20) + 1)], "l1_size"),
    ("l1_size past the end of the file", [(36, U32, 1 << 20)], "l1_table_offset"),
    ("l1_table_offset 0", [(40, U64, 0)], "l1_table_offset"),
    ("l1_table_offset unaligned", [(40, U64, CLUSTER + 8)], "l1_table_offset"),
    ("l1_table_offset outside", [(40, U64, 1 << 40)], "l1_table_offset"),
    ("l1_table_offset absurd", [(40, U64, BIG64 & -CLUSTER)], "l1_table_offset"),
    ("refcount table at 0", [(48, U64, 0)], "refcount_table_offset"),
    ("refcount table unaligned", [(48, U64, CLUSTER + 1)], "refcount_table_offset"),
    ("refcount table outside", [(48, U64, 1 << 40)], "refcount_table_offset"),
    ("refcount table absurd", [(48, U64, BIG64 & -CLUSTER)], "refcount_table_offset"),
    ("refcount table of no clusters", [(56, U32, 0)], "refcount_table_clusters"),
    ("refcount table too large", [(56, U32, BIG32)], "refcount_table_clusters"),
    ("refcount table of 8 MiB and one cluster", [(56, U32, (8 << 20) // CLUSTER + 1)], "refcount_table_clusters"),
    ("nb_snapshots absurd", [(60, U32, BIG32)], "nb_snapshots"),
    ("nb_snapshots 65537", [(60, U32, 65537)], "nb_snapshots"),
    ("snapshots at 0", [(60, U32, 1), (64, U64, 0)], "snapshots_offset"),
    ("snapshots unaligned", [(60, U32, 1), (64, U64, 24)], "snapshots_offset"),
    ("snapshots outside", [(60, U32, 1), (64, U64, 1 << 50)], "snapshots_offset"),
    ("incompatible bit 5", [(72, U64, 1 << 5)], "unknown feature bit 5"),
    ("incompatible bit 63", [(72, U64, 1 << 63)], "unknown feature bit 63"),
    ("external data file", [(72, U64, 1 << 2)], "external data file"),
    ("extended L2", [(72, U64, 1 << 4)], "extended L2 entries"),
    ("corrupt", [(72, U64, 1 << 1)], "corrupt"),
    ("zstd", [(72, U64, 1 << 3), (104, ">B", 1)], "zstd"),
    ("compression type without its bit", [(104, ">B", 1)], "compression_type"),
    ("compression bit without its type", [(72, U64, 1 << 3)], "compression_type"),
    ("compression type unknown", [(72, U64, 1 << 3), (104, ">B", 9)], "compression_type"),
    ("refcount_order 7", [(96, U32, 7)], "refcount_order"),
    ("refcount_order absurd", [(96, U32, BIG32)], "refcount_order"),
    ("header_length 0", [(100, U32, 0)], "header_length"),
    ("header_length 72", [(100, U32, 72)], "header_length"),
    ("header_length above a cluster", [(100, U32, CLUSTER + 8)], "header_length"),
    ("header_length absurd", [(100, U32, BIG32)], "header_length"),
    ("backing name past the cluster", [(8, U64, CLUSTER), (16, U32, 10)], "backing_file_offset"),
    ("backing name in the header", [(8, U64, 16), (16, U32, 10)], "backing_file_offset"),
    ("backing name absurd", [(8, U64, BIG64), (16, U32, 10)], "backing_file_offset"),
    ("backing name across the end of the cluster", [(8, U64, CLUSTER - 4), (16, U32, 10)], "backing_file_offset"),
    ("backing name too long", [(8, U64, 200), (16, U32, 1024)], "backing_file_size"),
    ("backing name of absurd length", [(8, U64, 200), (16, U32, BIG32)], "backing_file_size"),
    ("extension longer than the header", [(112, U32, 0x12345678), (116, U32, CLUSTER)], "0x12345678"),
    ("extension of absurd length", [(112, U32, 0x12345678), (116, U32, BIG32)], "0x12345678"),
]


@pytest.mark.parametrize(("changes", "named"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_broken_header_field_is_named(changes: list[tuple[int, str, int]], named: str) -> None:
    with pytest.raises((ImageError, UsageError)) as caught:  # UsageError: legacy AES only lacks its key
        opened(put(valid(), *changes))
    line = str(caught.value)
    assert line.startswith(f"{NAME}: ") and named in line and "\n" not in line


@pytest.mark.parametrize("length", range(0, 121, 8))
def test_a_file_cut_in_its_header_is_refused(length: int) -> None:
    with pytest.raises(ImageError, match=NAME):
        opened(valid()[:length])


@pytest.mark.parametrize("clusters", range(1, 5))
def test_a_file_cut_before_its_tables_is_refused(clusters: int) -> None:
    def write_to(data: bytes) -> None:
        file, image = opened(data)
        file.scheduler.run(image.write(0, [memoryview(bytes(4096))]))

    with pytest.raises(ImageError, match=r"l1_table_offset|refcount|L1 entry"):
        write_to(valid()[: clusters * CLUSTER])


@pytest.mark.parametrize("bit", [0, 1])
def test_a_dirty_or_corrupt_image_may_be_read_only(bit: int) -> None:
    data = put(valid(), (72, U64, 1 << bit))
    _, image = opened(data, read_only=True)
    assert tags_of(read_all(image), 0, GRANULE)[:40] == [7] * 40


def test_an_unknown_feature_has_the_name_that_the_image_gives_it() -> None:
    data = valid()
    table = data.index(b"dirty bit") - 2
    renamed = bytearray(put(data, (72, U64, 1 << 9)))
    renamed[table : table + 48] = struct.pack(">BB46s", 0, 9, b"teleportation")
    with pytest.raises(UnsupportedFeature, match="teleportation"):
        opened(bytes(renamed))


# -- tables ------------------------------------------------------------------------------------------

L1 = field(valid(), 40, U64)
L2 = field(valid(), L1, U64) & 0x00FFFFFFFFFFFE00
"""The L2 table of guest offset 0; 128 entries map everything."""
REFTABLE = field(valid(), 48, U64)
REFBLOCK = field(valid(), REFTABLE, U64)
COPIED, COMPRESSED = 1 << 63, 1 << 62


def broken_entry(changes: list[tuple[int, str, int]], named: str, guest: int) -> None:
    """Reading and writing at a guest offset names the entry; elsewhere the image still works."""
    for writing in (False, True):
        file, image = opened(put(valid(), *changes))
        request = (
            image.write(guest + 512, [memoryview(bytes(512))])
            if writing
            else image.read(guest, [memoryview(bytearray(512))])
        )
        with pytest.raises(ImageError) as caught:
            file.scheduler.run(request)
        line = str(caught.value)
        assert line.startswith(f"{NAME}: ") and named in line and "\n" not in line


L2_ENTRIES = {
    "unaligned": COPIED | L2 + 512,
    "reserved bits": COPIED | 1 << 60 | 8 * CLUSTER,
    "past the end of the file": COPIED | 1 << 40,
    "far past the end of the file": COPIED | (1 << 56) - CLUSTER,
}


@pytest.mark.parametrize("entry", L2_ENTRIES.values(), ids=L2_ENTRIES)
def test_a_broken_l2_entry_is_named_and_other_clusters_work(entry: int) -> None:
    change = (L2 + 8, U64, entry)
    broken_entry([change], f"{L2 + 8:#x}", CLUSTER)
    file, image = opened(put(valid(), change))
    data = bytearray(CLUSTER)
    file.scheduler.run(image.read(0, [memoryview(data)]))
    assert tags_of(data, 0, GRANULE) == [7, 7]
    file.scheduler.run(image.write(2 * CLUSTER, [memoryview(pattern(9, 4, 2, GRANULE))]))
    file.scheduler.run(image.write(40 * CLUSTER, [memoryview(pattern(9, 80, 2, GRANULE))]))
    file.scheduler.run(image.read(40 * CLUSTER, [memoryview(data)]))
    assert tags_of(data, 80, GRANULE) == [9, 9]


COMPRESSED_ENTRIES = {
    "outside the file": COMPRESSED | 1 << 40,
    "not compressed data": COMPRESSED | 1 << 60 | L2,
}


@pytest.mark.parametrize("entry", COMPRESSED_ENTRIES.values(), ids=COMPRESSED_ENTRIES)
def test_a_broken_compressed_cluster_is_named(entry: int) -> None:
    broken_entry([(L2 + 8, U64, entry)], "compressed cluster", CLUSTER)


L1_ENTRIES = {
    "unaligned": COPIED | L2 + 512,
    "reserved bits": COPIED | 1 << 58 | L2,
    "past the end of the file": COPIED | 1 << 40,
    "copied but nowhere": COPIED,
}


@pytest.mark.parametrize("entry", L1_ENTRIES.values(), ids=L1_ENTRIES)
def test_a_broken_l1_entry_is_named(entry: int) -> None:
    file, image = opened(put(valid(), (L1, U64, entry)))
    with pytest.raises(ImageError, match=f"L1 entry 0 .offset {L1:#x}"):
        file.scheduler.run(image.write(0, [memoryview(bytes(512))]))


REFTABLE_ENTRIES = {
    "unaligned": REFBLOCK + 512,
    "reserved bits": REFBLOCK | 1,
    "outside the file": 1 << 40,
    "absurd": BIG64 & -CLUSTER,
}


@pytest.mark.parametrize("entry", REFTABLE_ENTRIES.values(), ids=REFTABLE_ENTRIES)
def test_a_broken_refcount_table_entry_is_named_and_data_can_be_read_and_overwritten(entry: int) -> None:
    file, image = opened(put(valid(), (REFTABLE, U64, entry)))
    assert tags_of(read_all(image), 0, GRANULE)[:40] == [7] * 40
    file.scheduler.run(image.write(0, [memoryview(bytes(512))]))
    with pytest.raises(ImageError, match="refcount table entry 0"):
        file.scheduler.run(image.write(64 * CLUSTER, [memoryview(bytes(512))]))


@pytest.mark.parametrize("what", ["no refcount block", "all refcounts 0"])
def test_refcounts_that_call_metadata_free_never_lead_to_its_loss(what: str) -> None:
    data = valid()
    if what == "no refcount block":
        data = put(data, (REFTABLE, U64, 0))
    else:
        data = data[:REFBLOCK] + bytes(CLUSTER) + data[REFBLOCK + CLUSTER :]
    file, image = opened(data)

    def write_much() -> None:
        for offset in range(64 * CLUSTER, 80 * CLUSTER, 512):
            file.scheduler.run(image.write(offset, [memoryview(b"x" * 512)]))
            file.scheduler.run(image.flush())

    with pytest.raises(ImageError):
        write_much()
    assert file.data[:64] == data[:64]
    assert file.data[L1 : L1 + 8] == data[L1 : L1 + 8]


def test_a_zero_cluster_in_a_version_2_image_is_refused() -> None:
    scheduler = Scheduler()
    file = LabFile(scheduler)
    scheduler.run(format_file(file, CreateOptions(SIZE, cluster_size=CLUSTER, version=2)))
    image = open_image(file)
    scheduler.run(image.write(0, [memoryview(pattern(7, 0, 4, GRANULE))]))
    scheduler.run(image.close())
    data = bytes(file.data)
    l2 = field(data, field(data, 40, U64), U64) & 0x00FFFFFFFFFFFE00
    _, image = opened(put(data, (l2, U64, 1)))
    with pytest.raises(ImageError, match="L2 entry"):
        read_all(image)


# -- random damage -----------------------------------------------------------------------------------


@cache
def victims() -> tuple[tuple[bytes, bytes | None], ...]:
    """Valid images of several kinds, each with its backing file."""
    made = [(valid(), None)]
    scheduler = Scheduler()
    for options in (
        CreateOptions(SIZE, cluster_size=512, refcount_bits=1),
        CreateOptions(SIZE, cluster_size=512, version=2),
        CreateOptions(SIZE, cluster_size=2048, refcount_bits=64),
        CreateOptions(SIZE, cluster_size=1024, backing_file="base", backing_format="raw"),
    ):
        file = LabFile(scheduler)
        scheduler.run(format_file(file, options))
        backing = pattern(3, 0, 100, GRANULE) if options.backing_file else None
        below = MemoryNode(scheduler, len(backing)) if backing else None
        if below and backing:
            below.data[:] = backing
        image = open_image(file, below)
        scheduler.run(image.write(3000, [memoryview(bytes(20000))]))
        scheduler.run(image.write(SIZE - 3000, [memoryview(b"y" * 3000)]))
        scheduler.run(image.write_zeroes(8192, 8192))
        scheduler.run(image.close())
        made.append((bytes(file.data), backing))
    return tuple(made)


def damage(dice: random.Random) -> tuple[bytes, bytes | None]:
    """A valid image with a few bytes of its metadata changed: header, tables, and where they point."""
    data, backing = dice.choice(victims())
    bad = bytearray(data)
    size = 1 << field(data, 20, U32)
    tables = [0, field(data, 40, U64), field(data, 48, U64), field(data, field(data, 48, U64), U64)]
    tables += [entry & 0x00FFFFFFFFFFFE00 for entry in struct.unpack_from(">2Q", data, tables[1])]
    for _ in range(dice.randrange(1, 5)):
        table = dice.choice(tables)
        place = table + dice.choice([dice.randrange(0, 128), dice.randrange(0, size)])
        kind = dice.randrange(5)
        if kind == 0:
            bad[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            bad[place] = dice.randrange(256)
        else:
            place &= -8
            entry = dice.choice(
                [0, 1, dice.choice(tables), dice.randrange(len(data)) & -size, dice.getrandbits(64), BIG64]
            )
            struct.pack_into(U64, bad, place, entry | dice.choice([0, COPIED, COMPRESSED, 1]))
    if dice.random() < 0.1:
        del bad[dice.randrange(len(bad)) :]
    return bytes(bad), backing


def need_one_line(error: Exception) -> None:
    assert "\n" not in str(error)
    assert NAME in str(error)


def survive(seed: int) -> str:
    """Open, read and write a damaged image: it works or says what is wrong. Returns what happened."""
    dice = random.Random(seed)
    data, backing = damage(dice)
    scheduler = Scheduler()
    file = LabFile(scheduler, data, name=NAME)
    below = None
    if backing is not None:
        below = MemoryNode(scheduler, len(backing))
        below.data[:] = backing
    try:
        image = open_image(file, below)
    except E2kDiskError as error:
        need_one_line(error)
        return "refused"
    trouble = 0
    size = min(image.size, 256 * 1024)
    works: list[Callable[[], object]] = [
        lambda start=start: image.read(start, [memoryview(bytearray(4096))]) for start in range(0, size, 4096)
    ]
    for _ in range(8):
        start = dice.randrange(max(1, size)) // 512 * 512
        length = max(0, min(dice.choice([512, 3000, 20000]), size - start))
        works.append(lambda start=start, length=length: image.write(start, [memoryview(b"z" * length)]))
        works.append(lambda start=start, length=length: image.discard(start, length))
        works.append(lambda start=start, length=length: image.write_zeroes(start, length, unmap=bool(start & 512)))
    works += [image.flush, image.close]
    for work in works:
        try:
            scheduler.run(work())
        except (E2kDiskError, OSError) as error:
            need_one_line(error)
            trouble += 1
        assert not image.lock.locked
    return "trouble" if trouble else "fine"


def survive_all(seeds: range) -> dict[str, int]:
    counts = {"refused": 0, "trouble": 0, "fine": 0}
    for seed in seeds:
        try:
            counts[survive(seed)] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return counts


def test_damaged_metadata_leads_to_errors_of_ours_only() -> None:
    print(survive_all(range(1500)))


def test_damaged_metadata_never_costs_much_memory() -> None:
    script = (
        "import resource\n"
        "from tests.test_qcow2_hostile import survive_all, victims\n"
        "victims()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (160 << 20),) * 2)\n"
        "print(survive_all(range(1500, 2000)))\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_much_more_damaged_metadata_leads_to_errors_of_ours_only() -> None:
    print(survive_all(range(2000, 22000)))


# -- refused by name, as qemu-img makes them ---------------------------------------------------------

FOREIGN = {
    "extended L2 entries": ["-o", "extended_l2=on"],
    "zstd": ["-o", "compression_type=zstd"],
    "LUKS": [
        "--object",
        "secret,id=s,data=abc",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100",
    ],
    "external data file": ["-o", "data_file=data.raw"],
}


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("named", FOREIGN)
def test_a_feature_that_is_not_built_yet_is_refused_by_name(named: str, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    for _ in range(5):
        done = oracles.run("qemu-img", "create", "-f", "qcow2", *FOREIGN[named], path, "1M", cwd=tmp_path, check=False)
        if "accurate CPU usage" not in done.stderr:  # LUKS measures how fast it is, and fails on a busy machine
            break
    assert done.returncode == 0, done.stderr
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(UnsupportedFeature, match=named) as caught:
            open_disk(path, format="qcow2", read_only=read_only)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.needs("qemu-utils")
def test_an_encrypted_image_is_never_read_or_written_in_the_clear(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    options = ["-o", "encrypt.format=aes,encrypt.key-secret=s"]
    oracles.qemu_img("create", "-f", "qcow2", "--object", "secret,id=s,data=abc", *options, path, "1M")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(UsageError, match="AES"):
            open_disk(path, format="qcow2", read_only=read_only)
    assert path.read_bytes() == before
