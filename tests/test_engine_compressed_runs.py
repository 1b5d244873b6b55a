"""Reading many compressed clusters at once: the same bytes as one by one, few reads of the file, broken ones named."""

import random
import zlib
from itertools import pairwise
from typing import Any

import pytest

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import compression
from tests.engine_lab import get, new_image, put, reopened
from tests.qcow2_model import LabFile, open_image

CLUSTER = 4096
COUNT = 80


def cluster_of(dice: random.Random) -> bytes:
    """Something that compresses, to very different sizes."""
    return (dice.randbytes(dice.randrange(1, 3000)) * CLUSTER)[:CLUSTER]


def packed_image(dice: random.Random, order: list[int]) -> tuple[LabFile, bytearray]:
    """An image whose clusters were compressed in this order: that is how they lie in the file."""
    file = new_image(COUNT * CLUSTER, cluster_size=CLUSTER)
    image = open_image(file)
    model = bytearray(COUNT * CLUSTER)
    for number in order:
        data = cluster_of(dice)
        image.scheduler.run(image.write_compressed(number * CLUSTER, [memoryview(data)]))
        model[number * CLUSTER : (number + 1) * CLUSTER] = data
    image.scheduler.run(image.close())
    return file, model


def entries(image: Any) -> list[int]:
    get(image, 0, 512)
    return list(image.mapping.resident(0).entries.values[:COUNT])


@pytest.mark.parametrize("with_deflate", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_any_read_of_compressed_clusters_gives_what_was_written(
    monkeypatch: pytest.MonkeyPatch, seed: int, with_deflate: bool
) -> None:
    if with_deflate:
        pytest.importorskip("deflate")
    else:
        monkeypatch.setattr(compression, "inflater", lambda: compression._inflate_zlib)
    dice = random.Random(seed)
    order = list(range(COUNT)) * 2  # what was written first is freed: there are holes between the clusters
    if seed % 2:
        dice.shuffle(order)
    file, model = packed_image(dice, order)
    image = reopened(file.data)
    if seed >= 2:
        for number in dice.sample(range(COUNT), 6):
            put(image, number * CLUSTER, b"plain" * 100)
            model[number * CLUSTER : number * CLUSTER + 500] = b"plain" * 100
    assert get(image, 0, len(model)) == model
    for _ in range(40):
        start = dice.randrange(len(model) // 512) * 512
        end = min(len(model), start + dice.randrange(512, 40 * CLUSTER, 512))
        cuts = sorted({start, end, *(dice.randrange(start, end) for _ in range(3))})
        parts = [bytearray(after - before) for before, after in pairwise(cuts)]
        image.scheduler.run(image.read(start, [memoryview(part) for part in parts]))
        assert b"".join(parts) == model[start:end]


def test_clusters_that_lie_side_by_side_are_read_at_once() -> None:
    file, model = packed_image(random.Random(1), list(range(COUNT)))
    image = reopened(file.data)
    entries(image)
    reads: list[int] = []
    read = image.file.read

    async def counted(offset: int, iov: list[memoryview]) -> None:
        reads.append(offset)
        await read(offset, iov)

    image.file.read = counted
    assert get(image, 0, 32 * CLUSTER) == model[: 32 * CLUSTER]
    assert len(reads) <= 4, "one for each thread; metadata lies between the first clusters"


@pytest.mark.parametrize("broken", [0, 5, 15, 16, 31])
@pytest.mark.parametrize("how", ["garbage", "too short", "past the end"])
def test_a_broken_cluster_among_many_is_named(broken: int, how: str) -> None:
    file, model = packed_image(random.Random(2), list(range(COUNT)))
    image = reopened(file.data)
    entry = entries(image)[broken]
    offset, _ = image.geometry.compressed_extent(entry)
    table = image.mapping.resident(0).offset
    if how == "garbage":
        file.data[offset : offset + 64] = b"\xff" * 64
    elif how == "too short":
        file.data[offset : offset + 8] = zlib.compress(b"", wbits=-12) + bytes(6)
    else:
        offset = len(file.data) + (1 << 20)
        replaced = entry & ~image.geometry.compressed_offset_mask | offset
        file.data[table + 8 * broken : table + 8 * broken + 8] = replaced.to_bytes(8, "big")
    image = reopened(file.data)
    with pytest.raises(ImageError, match=f"compressed cluster at offset {offset:#x}"):
        get(image, 0, 32 * CLUSTER)
    after = (broken + 1) * CLUSTER
    assert get(image, after, 8 * CLUSTER) == model[after : after + 8 * CLUSTER]


def test_a_cluster_that_is_read_in_pieces_is_decompressed_once_and_never_shown_when_it_is_old() -> None:
    file, model = packed_image(random.Random(3), list(range(COUNT)))
    image = reopened(file.data)
    entries(image)
    reads: list[int] = []
    read = image.file.read

    async def counted(offset: int, iov: list[memoryview]) -> None:
        reads.append(offset)
        await read(offset, iov)

    image.file.read = counted
    for start in range(CLUSTER, 2 * CLUSTER, 512):
        assert get(image, start, 512) == model[start : start + 512]
    assert len(reads) == 1
    for number in range(1, 4):  # what replaces it may get its place in the file, and its entry
        data = bytes([number]) * CLUSTER
        image.scheduler.run(image.write_compressed(CLUSTER, [memoryview(data)]))
        image.scheduler.run(image.flush())
        assert get(image, CLUSTER, CLUSTER) == data
