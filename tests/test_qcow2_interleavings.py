"""Overlapping requests in flight: whatever order their I/O completes in, the disk holds what some serial order leaves.

Each scenario is an image and a few requests that start together on an engine which asks what completes next; every
sequence of answers is tried, depth first, up to a bound, and random ones beyond it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.block.memory import MemoryNode
from e2kdisk.qcow2.create import CreateOptions, format_file
from tests import oracles
from tests.qcow2_model import (
    BASE_TAG,
    OWN_TAG,
    ZERO,
    LabFile,
    Model,
    Traffic,
    alternate,
    check_bytes,
    open_image,
    orders,
    pattern,
    read_all,
    tags_of,
    write_pattern,
)

GRANULE = 512
CLUSTER = 2048
SIZE = 64 * 1024
TOTAL = SIZE // GRANULE


@dataclass(frozen=True)
class Start:
    """An image to begin with, and what it shows."""

    image: bytes
    tags: tuple[int, ...]
    backing: bytes | None = None
    snapshot: tuple[int, ...] | None = None
    """What its internal snapshot holds."""


def made(
    size: int = SIZE, *, backing: bytes | None = None, fill: Sequence[tuple[int, int]] = (), **options: Any
) -> Start:
    """An image made by us, filled with OWN_TAG."""
    scheduler = Scheduler()
    file = LabFile(scheduler)
    scheduler.run(format_file(file, CreateOptions(size, **{"cluster_size": CLUSTER, **options})))
    tags = [ZERO] * (size // GRANULE)
    below = None
    if backing is not None:
        below = MemoryNode(scheduler, len(backing))
        below.data[:] = backing
        tags = tags_of(backing[:size].ljust(size, b"\0"), 0, GRANULE)
    image = open_image(file, below)
    for first, count in fill:
        scheduler.run(image.write(first * GRANULE, [memoryview(pattern(OWN_TAG, first, count, GRANULE))]))
        tags[first : first + count] = [OWN_TAG] * count
    scheduler.run(image.close())
    check_bytes(file.data)
    return Start(bytes(file.data), tuple(tags), backing)


@cache
def empty() -> Start:
    return made()


@cache
def filled() -> Start:
    return made(fill=[(0, TOTAL)])


@cache
def filled_beyond() -> Start:
    """Allocated in the second half: what is written in the first half is new."""
    return made(fill=[(TOTAL // 2, TOTAL // 2)])


@cache
def over_backing() -> Start:
    return made(backing=pattern(BASE_TAG, 0, TOTAL - 9, GRANULE))


@cache
def partly_over_backing() -> Start:
    return made(backing=pattern(BASE_TAG, 0, TOTAL, GRANULE), fill=[*alternate(TOTAL, 4)])


@cache
def with_snapshot() -> Start:
    with TemporaryDirectory() as place:
        path = Path(place) / "disk.qcow2"
        start = filled()
        path.write_bytes(start.image)
        oracles.qemu_img("snapshot", "-c", "before", path)
        return Start(path.read_bytes(), start.tags, snapshot=start.tags)


@cache
def compressed() -> Start:
    with TemporaryDirectory() as place:
        raw, path = Path(place) / "disk.raw", Path(place) / "disk.qcow2"
        tags = write_pattern(raw, OWN_TAG, [(0, TOTAL)], GRANULE, SIZE)
        oracles.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"cluster_size={CLUSTER}", raw, path)
        return Start(path.read_bytes(), tuple(tags))


@cache
def small_refcounts() -> Start:
    """512-byte clusters and 64-bit refcounts: a block counts 64 clusters, so that blocks are made all the time."""
    return made(cluster_size=512, refcount_bits=64, fill=[(0, 50)])


@cache
def full_reftable() -> Start:
    """The refcount table of one cluster is full but for a few clusters: it grows while requests are in flight."""
    return made(4200 * GRANULE, cluster_size=512, refcount_bits=64, fill=[(0, 3860)])


Request = tuple[str, int, int]
MANY: list[Request] = [
    ("write", 0, 3),
    ("read", 0, 12),
    ("write", 2, 5),
    ("zero", 4, 8),
    ("write", 5, 2),
    ("discard", 0, 8),
    ("flush", 0, 0),
    ("write", 9, 6),
]
SCENARIOS: dict[str, tuple[Callable[[], Start], list[Request]]] = {
    "two allocations of one cluster": (empty, [("write", 0, 2), ("write", 1, 2)]),
    "three allocations of one cluster": (empty, [("write", 0, 1), ("write", 1, 1), ("write", 3, 1)]),
    "allocations that share a cluster at their ends": (empty, [("write", 2, 4), ("write", 7, 4), ("write", 5, 1)]),
    "first L2 table, two writers": (empty, [("write", 0, 4), ("write", 100, 4)]),
    "write against zeroes, empty": (empty, [("write", 1, 6), ("zero", 0, 8)]),
    "write, unmap and read, empty": (empty, [("write", 1, 6), ("unmap", 0, 8), ("read", 0, 8)]),
    "write and flush": (empty, [("write", 1, 2), ("flush", 0, 0), ("write", 2, 2)]),
    "writes that meet flushes": (
        filled_beyond,
        [("write", 1, 2), ("flush", 0, 0), ("write", 2, 2), ("flush", 0, 0), ("write", 100, 2), ("flush", 0, 0)],
    ),
    "copies on write that meet flushes": (
        over_backing,
        [("write", 1, 2), ("write", 2, 2), ("flush", 0, 0), ("discard", 0, 8), ("flush", 0, 0), ("write", 70, 9)],
    ),
    "four writers and a reader of one cluster": (
        over_backing,
        [("write", 0, 1), ("write", 1, 1), ("write", 2, 1), ("zero", 0, 4), ("read", 0, 4)],
    ),
    "in place, twice": (filled, [("write", 0, 3), ("write", 2, 3)]),
    "in place against discard and write": (filled, [("write", 1, 2), ("discard", 0, 4), ("write", 2, 4)]),
    "in place against zeroes and write": (filled, [("write", 1, 2), ("zero", 0, 4), ("write", 2, 1)]),
    "read against discard, flush, and write": (
        filled,
        [("read", 0, 4), ("discard", 0, 4), ("flush", 0, 0), ("write", 8, 4)],
    ),
    "discard, flush, discard, write": (
        filled,
        [("discard", 0, 8), ("flush", 0, 0), ("discard", 8, 8), ("write", 0, 3)],
    ),
    "unmap across clusters in use": (filled, [("unmap", 2, 10), ("write", 3, 6), ("read", 0, 12)]),
    "copy on write from the backing file": (over_backing, [("write", 1, 1), ("write", 2, 1), ("read", 0, 4)]),
    "copy on write against zeroes": (over_backing, [("write", 1, 2), ("zero", 0, 4), ("read", 0, 4)]),
    "copy on write against discard": (over_backing, [("write", 1, 4), ("discard", 0, 8), ("write", 6, 1)]),
    "copy on write where the backing file ends": (over_backing, [("write", TOTAL - 11, 2), ("write", TOTAL - 9, 2)]),
    "in place next to copy on write": (partly_over_backing, [("write", 1, 6), ("write", 3, 4), ("discard", 0, 4)]),
    "compressed, overwritten twice": (compressed, [("write", 1, 1), ("write", 2, 1), ("read", 0, 4)]),
    "compressed, neighbours in one host cluster": (compressed, [("write", 3, 2), ("discard", 0, 4), ("read", 4, 4)]),
    "a snapshot's clusters": (with_snapshot, [("write", 1, 2), ("write", 2, 4)]),
    "a snapshot's clusters, L2 table copied": (with_snapshot, [("write", 1, 1), ("unmap", 0, 4), ("read", 0, 4)]),
    "refcount blocks are made": (small_refcounts, [("write", 52, 3), ("write", 54, 3), ("discard", 3, 2)]),
    "a run longer than a refcount block counts": (small_refcounts, [("write", 50, 70), ("write", 60, 4)]),
    "many at once, empty": (empty, MANY),
    "many at once, in place": (filled, MANY),
    "many at once, over a backing file": (partly_over_backing, MANY),
    "many at once, compressed": (compressed, MANY),
    "many at once, over a snapshot": (with_snapshot, MANY),
    "many at once, refcount blocks are made": (small_refcounts, [(kind, at + 48, n) for kind, at, n in MANY]),
    "refcount table grows": (full_reftable, [("write", 3900, 180), ("write", 4100, 2)]),
}


def go(
    start: Start, requests: Sequence[Request], choose: Callable[[Sequence[Any]], int], prepare: Any = None
) -> LabFile:
    """Run the requests together in one order of completion and judge the result."""
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler, oldest_first)
    file = LabFile(scheduler, start.image)
    below = None
    if start.backing is not None:
        below = LabFile(scheduler, start.backing, read_only=True)
    image = open_image(file, below)
    file.engine = engine
    if below is not None:
        below.engine = engine
    engine.choose = choose
    traffic = Traffic(image, Model(start.tags), GRANULE)
    for request in requests:
        traffic.start(*request)
    if prepare is not None:
        prepare(scheduler, engine, traffic)
    else:
        traffic.drain()
    engine.choose = oldest_first
    found = traffic.read_all()
    traffic.model.settle(found)
    scheduler.run(image.close())
    check_bytes(file.data)
    # The same again with nothing in memory.
    file.engine = None
    if below is not None:
        below.engine = None
    file.read_only = True
    again = tags_of(read_all(open_image(file, below)), 0, GRANULE)
    assert again == found
    if start.snapshot is not None:
        check_snapshot(file.data, start.snapshot)
    return file


def check_snapshot(data: bytearray, tags: Sequence[int]) -> None:
    """The first snapshot of an image holds these tags: read through its own L1 table."""
    place = int.from_bytes(data[64:72], "big")
    switched = bytearray(data)
    switched[40:48] = data[place : place + 8]
    switched[36:40] = data[place + 8 : place + 12]
    file = LabFile(Scheduler(), switched, read_only=True)
    assert tags_of(read_all(open_image(file)), 0, GRANULE) == list(tags)


def explore(name: str, limit: int) -> None:
    begin, requests = SCENARIOS[name]
    start = begin()
    count, all_of_them = orders(lambda choose: void(go(start, requests, choose)), limit)
    extra = 0
    if not all_of_them:
        extra = limit // 2
        for seed in range(extra):
            dice = random.Random(seed)
            try:
                go(start, requests, lambda pending, dice=dice: dice.randrange(len(pending)))
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    print(f"{name}: {count} orders{' (all)' if all_of_them else f', {extra} random ones'}")


def void(result: object) -> None:
    """Drop a result."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_of_completion_is_some_serial_order(name: str) -> None:
    explore(name, 4 if "table grows" in name else 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_more_orders_of_completion_are_some_serial_order(name: str) -> None:
    explore(name, 4000)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", SCENARIOS)
def test_qemu_img_finds_the_result_of_requests_in_flight_clean(name: str, tmp_path: Path) -> None:
    begin, requests = SCENARIOS[name]
    dice = random.Random(name)
    file = go(begin(), requests, lambda pending: dice.randrange(len(pending)))
    path = tmp_path / "disk.qcow2"
    path.write_bytes(file.data)
    oracles.assert_clean(path)


# -- cancellation ------------------------------------------------------------------------------------


def cancel_everywhere(name: str, stride: int) -> int:
    """Cancel each request of a scenario after each number of completions, in several orders; returns how many times."""
    begin, requests = SCENARIOS[name]
    start = begin()
    count = 0
    for victim in range(1, len(requests) + 1):
        for seed in range(stride):
            step = 0
            while True:
                done = _cancel_one(start, requests, victim, step, seed)
                count += 1
                step += 1
                if done:
                    break
    return count


def _cancel_one(start: Start, requests: Sequence[Request], victim: int, step: int, seed: int) -> bool:
    """Cancel request number `victim` after `step` completions; True if it had ended by then."""
    dice = random.Random(seed)
    ended = False

    def prepare(scheduler: Scheduler, engine: SimulatedEngine, traffic: Traffic) -> None:
        nonlocal ended
        for _ in range(step):
            if engine.pending:
                engine.complete(engine.pending[dice.randrange(len(engine.pending))])
                scheduler.poll()
            if seed % 3 == 2 and dice.random() < 0.3:
                traffic.start("flush")  # somebody who queues for the lock behind the others
        task = traffic.tasks.get(victim)
        ended = task is None
        if task is not None:
            task.cancel()
        scheduler.drain()
        assert not traffic.in_flight
        others = [error for error in traffic.errors if type(error).__name__ != "Cancelled"]
        assert not others, others
        assert not traffic.image.lock.locked, "the metadata lock was left locked"
        assert not traffic.image.allocator.allocations, "an allocation was left in flight"
        assert not traffic.image.inflight._ranges

    try:
        go(start, requests, lambda pending: dice.randrange(len(pending)), prepare)
    except BaseException as error:
        error.add_note(f"request {victim} cancelled after {step} completions, seed {seed}")
        raise
    return ended


CANCELLED = [name for name in SCENARIOS if "table grows" not in name]


@pytest.mark.parametrize("name", CANCELLED)
def test_a_cancelled_request_leaves_the_others_and_the_image_unharmed(name: str) -> None:
    print(f"{name}: {cancel_everywhere(name, 3)} cancellations")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_request_cancelled_in_many_orders_leaves_the_others_and_the_image_unharmed(name: str) -> None:
    print(f"{name}: {cancel_everywhere(name, 5 if 'table grows' in name else 100)} cancellations")
