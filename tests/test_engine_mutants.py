"""Valid images with broken bytes in any structure: our errors at most, no hang, little memory, as strict as qemu."""

import random
import re
import resource
import struct
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.errors import ImageError, UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.check import CheckResult, check_file
from e2kdisk.qcow2.header import Header
from tests import oracles
from tests.engine_lab import Mirror, below, new_image, put
from tests.qcow2_model import LabFile, open_image

SIZE = 24 * 1024 + 512
MEMORY_LIMIT = 256 << 20


@cache
def bitmaps() -> bytes:
    """With two bitmaps, which only qemu-img makes."""
    with TemporaryDirectory() as place:
        path = oracles.create_image(Path(place) / "disk.qcow2", SIZE, cluster_size=512)
        oracles.qemu_img("bitmap", "--add", path, "one")
        oracles.qemu_io(path, "write -P 5 0 9k")
        oracles.qemu_img("bitmap", "--add", "-g", "512", path, "two")
        return path.read_bytes()


@cache
def ours(seed: int) -> bytes:
    options: dict[str, Any] = [
        {"cluster_size": 512},
        {"cluster_size": 1024, "version": 2},
        {"cluster_size": 512, "refcount_bits": 2, "lazy_refcounts": True},
        {"cluster_size": 4096, "refcount_bits": 64},
        {"cluster_size": 1024, "backing_file": "base", "backing_format": "raw"},
    ][seed]
    file = new_image(SIZE, **options)
    image = open_image(file, below(file.scheduler, b"base" * 5000 if "backing_file" in options else None))
    mirror = Mirror(image, bytearray(SIZE), random.Random(seed))
    put(image, 0, b"data" * 2000)
    mirror.model[:8000] = b"data" * 2000
    if "backing_file" not in options:
        mirror.change(16, ("write", "compressed", "snapshot", "zeroes", "discard", "write"))
    file.scheduler.run(image.close())
    return bytes(file.data)


BOUNDARIES = (0, 1, 511, 512, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 55, 1 << 56, (1 << 63) - 1, (1 << 64) - 1)


def structures(data: bytes) -> list[tuple[int, int, int]]:
    """(offset, length, width of a field) of everything in an image that means something."""
    header = Header.parse("t", data[:4096])
    cluster = 1 << header.cluster_bits
    found = [(0, 104, 4), (0, 104, 4), (104, min(cluster, 400) - 104, 1)]
    found += [(header.l1_table_offset, header.l1_size * 8, 8)]
    found += [(header.refcount_table_offset, 16, 8)]
    for entry in struct.unpack_from(f">{header.l1_size}Q", data, header.l1_table_offset):
        if entry & layout.OFFSET_MASK:
            found.append((entry & layout.OFFSET_MASK, min(cluster, 240), 8))
    block = struct.unpack_from(">Q", data, header.refcount_table_offset)[0]
    found.append((block, min(cluster, 128), 2))
    if header.nb_snapshots:
        found += [(header.snapshots_offset, 100, 4)] * 2
        found.append((struct.unpack_from(">Q", data, header.snapshots_offset)[0], 8, 8))
    bitmap = header.extension(layout.EXT_BITMAPS)
    if bitmap:
        directory = struct.unpack(">IIQQ", bitmap)[3]
        found += [(directory, 64, 4)] * 2
        found.append((struct.unpack_from(">Q", data, directory)[0], 8, 8))
    found.append((0, len(data), 1))
    return found


def mutant(seed: int) -> bytes:
    return mutated(bitmaps() if seed % 8 == 7 else ours(seed % 5), random.Random(seed))


def mutated(image: bytes, dice: random.Random) -> bytes:
    data = bytearray(image)
    places = structures(bytes(data))
    for _ in range(dice.choice([1, 1, 1, 2, 3, 8])):
        offset, length, width = dice.choice(places)
        at = offset + dice.randrange(max(1, length // width)) * width
        if at + width > len(data):
            continue
        old = int.from_bytes(data[at : at + width], "big")
        new = dice.choice(
            [
                dice.choice(BOUNDARIES),
                old ^ 1 << dice.randrange(8 * width),
                old + dice.choice([1, -1, 512, -512, 4096]),
                dice.getrandbits(8 * width),
                dice.choice([0, layout.COPIED]) | dice.randrange(0, len(data) + 2048, 512),
            ]
        )
        data[at : at + width] = (new & (1 << 8 * width) - 1).to_bytes(width, "big")
    if dice.random() < 0.05:
        del data[dice.randrange(512, len(data)) :]
    return bytes(data)


class Disk(LabFile):
    """A discard behind the end is nothing."""

    def do_discard(self, offset: int, length: int) -> None:
        if offset < len(self.data):
            super().do_discard(offset, length)


def checked(data: bytes, fix: str | None = None) -> tuple[CheckResult | None, bytes]:
    """What the check says, None for a refusal; and the bytes afterwards."""
    file = LabFile(Scheduler(), data, read_only=fix is None)
    try:
        return file.scheduler.run(check_file(file, fix)), bytes(file.data)
    except (ImageError, OSError):
        return None, bytes(file.data)


def harmless(problem: str, clusters: int) -> bool:
    """Whether a problem was there before, unseen: a flag that costs a copy, a count behind that many clusters."""
    leak = re.fullmatch(r"cluster (0x[0-9a-f]+): refcount \d+ but 0 references", problem)
    return "COPIED is missing" in problem or (leak is not None and int(leak[1], 16) >= clusters)


def use(data: bytes, seed: int) -> bytes:
    """Open, read everything, change something, close; returns the file."""
    dice = random.Random(seed)
    file = Disk(Scheduler(), data)
    backing = below(file.scheduler, b"base" * 5000)
    run = file.scheduler.run
    try:
        image = open_image(file, backing)
    except (ImageError, OSError, UsageError):
        return bytes(file.data)
    size = min(image.size, 64 * 1024) & -512
    actions: list[Any] = [
        lambda at, length: image.read(at, [memoryview(bytearray(length))]),
        lambda at, length: image.write(at, [memoryview(dice.randbytes(length))]),
        image.write_zeroes,
        image.discard,
        lambda at, length: image.snapshots.create("new"),
        lambda at, length: image.snapshots.delete(image.snapshots.all()[0].id if image.snapshots.all() else "0"),
        lambda at, length: image.snapshots.apply(image.snapshots.all()[0].id if image.snapshots.all() else "0"),
        lambda at, length: image.flush(),
    ]
    for offset in range(0, size, 8192):
        try:
            run(actions[0](offset, min(8192, size - offset)))
        except (ImageError, OSError, UsageError):
            continue
    for _ in range(5):
        if not size:
            break
        offset = dice.randrange(size // 512) * 512
        try:
            run(dice.choice(actions)(offset, min(2048, size - offset)))
        except (ImageError, OSError, UsageError):
            continue
    with suppress(ImageError, OSError, UsageError):
        run(image.close())
    return bytes(file.data)


def corruptions(data: bytes) -> int | None:
    found, _ = checked(data)
    return None if found is None else found.corruptions


def torment(seed: int, sample: Path | None) -> bool:
    """Everything with one mutant; whether a repair made it clean, or refused it."""
    data = mutant(seed)
    began = time.monotonic()
    found, _ = checked(data)
    if sample is not None:
        sample.write_bytes(data)
        done = oracles.run("qemu-img", "check", "-f", "qcow2", sample, check=False)
        if done.returncode == 2:
            assert found is None or found.corruptions, (
                f"qemu-img check says corrupt: {done.stdout[:300]}{done.stderr[:300]}"
            )
    fixed, after = checked(data, "all")
    if fixed is not None:
        again, _ = checked(after)
        assert again is not None, "a repair made an image that cannot be checked"
        assert again.corruptions == fixed.corruptions, again.problems[:5]
    used = use(data, seed)
    if found is not None and found.clean:
        assert corruptions(used) == 0, "a clean image was corrupted by using it"
    if fixed is not None and fixed.clean:
        again, _ = checked(use(after, seed))
        # A repaired cluster that two entries name: writing one leaves the other without its flag, which is harmless.
        # What is counted behind the end of the file is no leak (as for qemu-img) until the file has grown past it.
        assert again is not None
        end = len(after)
        assert all(harmless(problem, end >> after[23]) for problem in again.problems), again.problems[:5]
    assert time.monotonic() - began < 20, "took too long"
    return fixed is None or fixed.clean


def torment_many(first: int, count: int, path: Path, every: int) -> None:
    repaired = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for seed in range(first, first + count):
        try:
            repaired += torment(seed, path if seed % every == 0 else None)
        except BaseException as error:
            error.add_note(f"mutant {seed}")
            raise
    # The others name one place twice in the header or a directory, or need wider refcounts: no repair can guess.
    assert repaired > 0.9 * count
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
    assert grown < MEMORY_LIMIT, f"{grown >> 20} MiB more than before"


@pytest.mark.needs("qemu-utils")
def test_mutated_images_meet_errors_of_ours_at_most(tmp_path: Path) -> None:
    torment_many(0, 1000, tmp_path / "mutant.qcow2", 10)


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
def test_twenty_thousand_mutated_images_meet_errors_of_ours_at_most(tmp_path: Path) -> None:
    torment_many(1000, 20000, tmp_path / "mutant.qcow2", 10)
