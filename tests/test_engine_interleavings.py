"""Snapshots, discards, resizes and growing tables among writes in flight: whatever completes first, all is in order.

Every sequence of completions is tried, depth first, up to a bound; random ones beyond it.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.preallocate import preallocate
from tests.engine_lab import below, new_image, put
from tests.qcow2_model import LabFile, check_bytes, open_image, orders, read_all

CLUSTER = 1024
SIZE = 40 * CLUSTER
OLD, SNAP = 0xEE, 0xDD


@dataclass(frozen=True)
class Ask:
    """One request: what it does to which bytes."""

    make: Callable[[Any], Coroutine[Any, Any, Any]]
    first: int = 0
    end: int = 0
    value: int | None = None
    """The byte that it leaves in first..end; None: nothing."""
    sure: bool = True
    """It takes effect there in any case."""


def write(value: int, first: int, length: int) -> Ask:
    data = memoryview(bytes([value]) * length)
    return Ask(lambda image: image.write(first, [data]), first, first + length, value)


def squeeze(value: int, first: int, length: int) -> Ask:
    data = memoryview(bytes([value]) * length)
    return Ask(lambda image: image.write_compressed(first, [data]), first, first + length, value)


def zero(first: int, length: int, *, unmap: bool = False) -> Ask:
    return Ask(lambda image: image.write_zeroes(first, length, unmap=unmap), first, first + length, 0)


def discard(first: int, length: int) -> Ask:
    return Ask(lambda image: image.discard(first, length), first, first + length, 0, sure=False)


CREATE = Ask(lambda image: image.snapshots.create("new"))
DELETE = Ask(lambda image: image.snapshots.delete("old"))
APPLY = Ask(lambda image: image.snapshots.apply("old"), 0, SIZE, SNAP)
FLUSH = Ask(lambda image: image.flush())
GROW = Ask(lambda image: image.truncate(SIZE + (5 << 20)))
WIDEN = Ask(lambda image: amend(image, AmendOptions(refcount_bits=64)))
PREALLOCATE = Ask(lambda image: preallocate(image, 0, SIZE, "metadata"))


def build(prepare: Callable[[Any], None], size: int = SIZE, **options: Any) -> bytes:
    file = new_image(size, **{"cluster_size": CLUSTER, **options})
    image = open_image(file)
    prepare(image)
    file.scheduler.run(image.close())
    return bytes(file.data)


@cache
def shared() -> bytes:
    """All of the disk is shared with a snapshot but one cluster, which has been written since."""

    def prepare(image: Any) -> None:
        put(image, 0, bytes([SNAP]) * SIZE)
        image.scheduler.run(image.snapshots.create("old"))
        put(image, 0, bytes([OLD]) * SIZE)

    return build(prepare)


@cache
def half_shared() -> bytes:
    def prepare(image: Any) -> None:
        put(image, 0, bytes([OLD]) * SIZE)
        image.scheduler.run(image.snapshots.create("old"))
        put(image, 0, bytes([OLD]) * (SIZE // 2))

    return build(prepare)


@cache
def lazy() -> bytes:
    return build(lambda image: put(image, 0, bytes([OLD]) * SIZE), lazy_refcounts=True)


@cache
def filled() -> bytes:
    return build(lambda image: put(image, 0, bytes([OLD]) * SIZE))


@cache
def empty() -> bytes:
    return build(lambda image: None)


@cache
def full_table() -> bytes:
    """64-bit refcounts, 512-byte clusters: 64 counts to a block, 64 blocks in the table, nearly all of them used."""
    size = 4200 * 512
    return build(
        lambda image: put(image, 100 * 512, bytes([OLD]) * (3925 * 512)), size, cluster_size=512, refcount_bits=64
    )


K = CLUSTER
SCENARIOS: dict[str, tuple[Callable[[], bytes], list[Ask]]] = {
    "create among writes in place": (filled, [write(1, 0, 3 * K), CREATE, write(2, K, 700), write(3, 2 * K + 9, K)]),
    "create among writes that allocate": (empty, [write(1, 0, 3 * K), CREATE, write(2, K, 700), write(3, 9 * K, K)]),
    "create among writes, lazy": (lazy, [write(1, 0, 2 * K), CREATE, write(2, K, 700), FLUSH]),
    "create and a discard": (filled, [write(1, 0, 3 * K), CREATE, discard(K, 8 * K), write(2, 2 * K, 700)]),
    "create and compressed": (filled, [squeeze(1, 0, 2 * K), CREATE, write(2, K, 700), squeeze(3, K, K)]),
    "delete among copies on write": (half_shared, [write(1, 20 * K + 5, K), DELETE, write(2, 21 * K, 700)]),
    "delete and a discard": (half_shared, [discard(18 * K, 6 * K), DELETE, write(2, 21 * K, 700), FLUSH]),
    "delete and zeroes": (half_shared, [zero(18 * K, 6 * K), DELETE, write(2, 21 * K, 700), write(3, 0, 200)]),
    "apply among writes": (shared, [write(1, 0, 2 * K), APPLY, write(2, K, 700)]),
    "apply and a discard": (shared, [discard(0, 4 * K), APPLY, write(2, K, 700)]),
    "create and delete": (half_shared, [CREATE, write(1, 20 * K + 5, K), DELETE, write(2, 0, 700)]),
    "discard among writes": (filled, [write(1, 0, 2 * K), discard(K, 6 * K), write(2, 3 * K + 9, K), FLUSH]),
    "unmap among writes": (
        half_shared,
        [write(1, 19 * K, 2 * K), zero(18 * K, 6 * K, unmap=True), write(2, 20 * K, 9)],
    ),
    "the refcount table grows": (full_table, [write(1, 0, 30 * 512), write(2, 40 * 512, 40 * 512), FLUSH]),
    "the refcount table grows, discard": (
        full_table,
        [write(1, 0, 60 * 512), discard(200 * 512, 90 * 512), write(2, 50 * 512, 20 * 512)],
    ),
    "the L1 table grows": (filled, [write(1, 0, 3 * K), GROW, write(2, K, 700), discard(6 * K, 9 * K)]),
    "refcounts widen": (half_shared, [write(1, 19 * K, 2 * K), WIDEN, discard(0, 9 * K), write(2, 20 * K + 100, 900)]),
    "preallocation": (empty, [write(1, 0, 2 * K), PREALLOCATE, write(2, K + 9, 700), zero(8 * K, 2 * K)]),
}


def sectors(asks: Sequence[Ask], base: bytes, *, final: bool) -> list[set[int]]:
    """For each 64 bytes, which byte values may be there: at the end, or at some moment (in a snapshot)."""
    found = []
    for at in range(0, len(base), 64):
        over = [ask for ask in asks if ask.value is not None and ask.first < at + 64 and at < ask.end]
        may = {ask.value for ask in over if ask.value is not None}
        whole = any(ask.sure and ask.first <= at and at + 64 <= ask.end for ask in over)
        if not (final and whole):
            may |= {base[at], base[min(at + 63, len(base) - 1)]}
        found.append(may)
    return found


def judge(found: bytes, may: Sequence[set[int]], what: str) -> None:
    for number, allowed in enumerate(may):
        there = set(found[64 * number : 64 * number + 64])
        assert there <= allowed, f"{what}: bytes {64 * number:#x}...: {there}, possible are {allowed}"


def run(start: bytes, asks: Sequence[Ask], choose: Callable[[Sequence[Any]], int]) -> None:
    scheduler = Scheduler()
    file = LabFile(scheduler, start)
    image = open_image(file)
    base = bytes(read_all(image))
    image.mapping.forget_slices(0)
    image.mapping.slices.limit = 2
    image.refcounts.blocks.limit = 4
    engine = SimulatedEngine(scheduler, oldest_first)
    file.engine = engine
    errors: list[BaseException] = []
    ended = []

    def then(result: Any, error: BaseException | None) -> None:
        ended.append(result)
        if error is not None:
            errors.append(error)

    waiting = list(asks)
    while waiting or engine.pending:
        # Each step completes one transfer, or lets the next request begin: it meets the others at any of their steps.
        step = choose([*engine.pending, *waiting[:1]])
        if step < len(engine.pending):
            engine.complete(engine.pending[step])
            scheduler.poll()
        else:
            scheduler.start(waiting.pop(0).make(image), then)
    assert not errors, errors[0]
    assert len(ended) == len(asks), "deadlock"
    final = bytes(read_all(image))[: len(base)]
    judge(final, sectors(asks, base, final=True), "the disk")
    scheduler.run(image.close())
    check_bytes(file.data)
    file.engine = None
    again = open_image(LabFile(scheduler, file.data, read_only=True))
    assert bytes(read_all(again))[: len(base)] == final
    for snapshot in again.snapshots.all():
        view = open_image(LabFile(scheduler, file.data, read_only=True), below(scheduler, None), snapshot=snapshot.id)
        content = bytes(read_all(view))
        if snapshot.name == "new":
            judge(content[: len(base)], sectors(asks, base, final=False), "the snapshot")
        else:
            assert set(content) <= {SNAP, OLD}


def explore(name: str, limit: int, more: int) -> None:
    make, asks = SCENARIOS[name]
    if make is full_table:
        limit, more = limit // 6, more // 6  # a larger image
    count, all_of_them = orders(lambda choose: run(make(), asks, choose), limit)
    for seed in range(0 if all_of_them else more):
        dice = random.Random(seed)
        mixed = list(asks)
        dice.shuffle(mixed)
        try:
            run(make(), mixed, lambda pending, dice=dice: dice.randrange(len(pending)))
        except BaseException as error:
            error.add_note(f"{name}: random order {seed}")
            raise
    print(f"{name}: {count} orders{' (all)' if all_of_them else f' and {more} random ones'}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_any_order_of_completion_is_as_good_as_one_after_the_other(name: str) -> None:
    explore(name, 30, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_more_orders_of_completion_are_as_good(name: str) -> None:
    explore(name, 600, 300)
