"""Snapshots, discards, resizes and growing tables among writes in flight: whatever completes first, all is in order.

Requests may begin in any order and at any moment, and what they wait for completes in any order: every order is tried,
but orders that meet in one state go on from there once (tests/state_search.py). Each test prints how many states there
were and for how many orders they stand; none may be left out.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.lab.search import Choose, Known, search
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.preallocate import preallocate
from tests.engine_lab import below, new_image, put
from tests.qcow2_model import LabFile, check_bytes, open_image, orders, read_all
from tests.state_search import fingerprint

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


CREATE = Ask(lambda image: image.snapshots.create("new", date_ns=0))
DELETE = Ask(lambda image: image.snapshots.delete("old"))
APPLY = Ask(lambda image: image.snapshots.apply("old"), 0, SIZE, SNAP)
FLUSH = Ask(lambda image: image.flush())
GROW = Ask(lambda image: image.truncate(SIZE + (5 << 20)))
WIDEN = Ask(lambda image: amend(image, AmendOptions(refcount_bits=64)))
DOWNGRADE = Ask(lambda image: amend(image, AmendOptions(version=2)))
PREALLOCATE = Ask(lambda image: preallocate(image, 0, SIZE, "metadata"))


def build(prepare: Callable[[Any], None], size: int = SIZE, **options: Any) -> bytes:
    file = new_image(size, **{"cluster_size": CLUSTER, **options})
    image = open_image(file, below(file.scheduler, BELOW if "backing_file" in options else None))
    prepare(image)
    file.scheduler.run(image.close())
    return bytes(file.data)


@cache
def shared() -> bytes:
    """All of the disk has been written since the snapshot."""

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
def partly_shared() -> bytes:
    """The first half of the disk has been written since the snapshot, the second is still the snapshot's."""

    def prepare(image: Any) -> None:
        put(image, 0, bytes([SNAP]) * SIZE)
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
def zeroed() -> bytes:
    """Zero clusters, in a table that a snapshot shares and in one of the disk's own, over a backing file."""

    def prepare(image: Any) -> None:
        put(image, 0, bytes([SNAP]) * SIZE)
        image.scheduler.run(image.write_zeroes(4 * CLUSTER, 4 * CLUSTER))
        image.scheduler.run(image.snapshots.create("old"))
        image.scheduler.run(image.write_zeroes(0, 3 * CLUSTER))

    return build(prepare, backing_file="base", backing_format="raw")


BELOW = bytes([0xBB]) * SIZE


@cache
def full_table() -> bytes:
    """64-bit refcounts, 512-byte clusters: 64 counts to a block, 64 blocks; 7 clusters are left in them."""
    size = 4200 * 512
    return build(
        lambda image: put(image, 100 * 512, bytes([OLD]) * (3958 * 512)), size, cluster_size=512, refcount_bits=64
    )


C = 512
LAST = 4095
"""The last cluster that a refcount table of one cluster can count, with 64 bits a count and clusters of 512 bytes."""
NEXT = (100 + 3965) * C
"""Where the disk of nearly_full_table() has not been written yet, though the L2 table is there."""


@cache
def nearly_full_table() -> bytes:
    """The same with one cluster left, the last: one allocation takes it, the next makes the table grow."""

    def prepare(image: Any) -> None:
        put(image, 100 * C, bytes([OLD]) * (3963 * C))
        image.scheduler.run(image.flush())  # frees two clusters of the metadata, which the next write takes
        put(image, 100 * C + 3963 * C, bytes([OLD]) * (2 * C))
        image.scheduler.run(image.discard(100 * C + 3962 * C, C))

    return build(prepare, 4200 * C, cluster_size=C, refcount_bits=64)


def find_the_last_cluster(image: Any) -> None:
    """As if a request had just failed: what is free is known, so that no request has to look at 64 blocks for it."""
    host, _ = image.scheduler.run(image.refcounts.allocate(1))
    assert host == LAST * C
    image.scheduler.run(image.refcounts.abandon(host, 1))


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
    "the refcount table grows": (full_table, [write(1, 0, 8 * 512), write(2, 4 * 512 + 100, 8 * 512), FLUSH]),
    "the refcount table grows, discard": (
        full_table,
        [write(1, 0, 8 * 512), discard(200 * 512, 9 * 512), write(2, 6 * 512, 5 * 512)],
    ),
    "the refcount table grows under four": (
        nearly_full_table,
        [write(1, NEXT, C), write(2, NEXT + 100, C), write(3, NEXT + C, C), discard(NEXT, 2 * C)],
    ),
    "the refcount table grows under parts of clusters": (
        nearly_full_table,
        [write(1, NEXT, 2 * C), write(2, NEXT + 100, C), write(3, NEXT + C, C), write(4, NEXT + C + 50, 200)],
    ),
    "the refcount table grows, zeroes": (
        nearly_full_table,
        [write(1, NEXT, C), write(2, NEXT + 100, C), zero(NEXT + C - 100, C), FLUSH],
    ),
    "the refcount table grows, compressed": (
        nearly_full_table,
        [squeeze(1, NEXT, 2 * C), write(2, NEXT + 100, C), write(3, NEXT + C, C), FLUSH],
    ),
    "the L1 table grows": (filled, [write(1, 0, 3 * K), GROW, write(2, K, 700), discard(6 * K, 9 * K)]),
    "refcounts widen": (half_shared, [write(1, 19 * K, 2 * K), WIDEN, discard(0, 9 * K), write(2, 20 * K + 100, 900)]),
    "zeroes among writes in place": (filled, [write(1, 0, 2 * K), zero(0, 3 * K), write(2, K + 100, 700), FLUSH]),
    "back to version 2": (
        zeroed,
        [write(1, 100, 2 * K), DOWNGRADE, zero(5 * K, 30 * K, unmap=True), discard(0, 9 * K)],
    ),
    "preallocation": (empty, [write(1, 0, 2 * K), PREALLOCATE, write(2, K + 9, 700), zero(8 * K, 2 * K)]),
}


@cache
def sectors(asks: tuple[Ask, ...], start: bytes, *, final: bool) -> list[set[int]]:
    """For each 64 bytes, which byte values may be there: at the end, or at some moment (in a snapshot)."""
    base = shown(start)
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


def run(start: bytes, asks: tuple[Ask, ...], choose: Choose) -> None:
    scheduler = Scheduler()
    file = LabFile(scheduler, start)
    image = opened(file)
    base = shown(start)
    if start == nearly_full_table():
        find_the_last_cluster(image)
    image.mapping.slices.limit = 2
    image.refcounts.blocks.limit = 4
    engine = SimulatedEngine(scheduler, oldest_first)
    file.engine = engine
    errors: list[BaseException] = []
    ended = 0

    def then(_result: Any, error: BaseException | None) -> None:
        nonlocal ended
        ended += 1
        if error is not None:
            errors.append(error)

    waiting = list(range(len(asks)))
    tasks: list[Any] = [None] * len(asks)

    def state() -> bytes:
        return fingerprint(image, file, waiting, [None if task is None or task.done else task for task in tasks])

    try:
        while waiting or engine.pending:
            # Each step completes one transfer, or lets a request begin: it meets the others at any of their steps.
            step = choose(len(engine.pending) + len(waiting), state)
            if step < len(engine.pending):
                engine.complete(engine.pending[step])
                scheduler.poll()
            else:
                number = waiting.pop(step - len(engine.pending))
                tasks[number] = scheduler.start(asks[number].make(image), then)
    except Known:
        scheduler.drain()
        raise
    assert not errors, errors[0]
    assert ended == len(asks), "deadlock"
    if start == nearly_full_table() and len(asks) == 4:
        assert image.header.refcount_table_clusters > 1, "the table has not grown: nothing is shown"
    final = bytes(read_all(image))[: len(base)]
    judge(final, sectors(asks, start, final=True), "the disk")
    scheduler.run(image.close())
    check_bytes(file.data)
    file.engine = None
    again = opened(LabFile(scheduler, file.data, read_only=True))
    assert bytes(read_all(again))[: len(base)] == final
    for snapshot in again.snapshots.all():
        view = opened(LabFile(scheduler, file.data, read_only=True), snapshot=snapshot.id)
        content = bytes(read_all(view))
        if snapshot.name == "new":
            judge(content[: len(base)], sectors(asks, start, final=False), "the snapshot")
        else:
            assert set(content) <= {SNAP, OLD, *([0] if start == zeroed() else [])}


@cache
def shown(start: bytes) -> bytes:
    return bytes(read_all(opened(LabFile(Scheduler(), start, read_only=True))))


def opened(file: LabFile, **extras: Any) -> Any:
    """The image in a file, over BELOW if it names a backing file."""
    named = Header.parse("t", bytes(file.data[:CLUSTER])).backing_file
    return open_image(file, below(file.scheduler, BELOW if named else None), **extras)


Counted = Callable[[str, int], None]
MOST_STATES = 40_000


def explore(start: bytes, asks: tuple[Ask, ...], counted: Counted, what: str) -> None:
    found = search(lambda choose: run(start, asks, choose), MOST_STATES)
    print(f"{what}: {len(asks)} requests, {len(found.states)} states, {found.orders} orders")
    assert found.complete, f"there are more than {MOST_STATES} states"
    counted("states of requests in flight", len(found.states))
    counted("orders of completion that they stand for", found.orders)
    counted("sets of overlapping requests, every order tried", 1)


def quick_first(names: Sequence[str]) -> list[Any]:
    """The scenarios on a large image are slow ones."""
    large = (full_table, nearly_full_table)
    return [pytest.param(name, marks=[pytest.mark.slow] if SCENARIOS[name][0] in large else []) for name in names]


@pytest.mark.parametrize("name", quick_first(list(SCENARIOS)))
def test_any_order_of_two_requests_is_as_good_as_one_after_the_other(name: str, counted: Counted) -> None:
    make, asks = SCENARIOS[name]
    for pair in combinations(asks, 2):
        explore(make(), pair, counted, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_any_order_of_three_requests_is_as_good(name: str, counted: Counted) -> None:
    make, asks = SCENARIOS[name]
    for three in combinations(asks, 3):
        explore(make(), three, counted, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, asks) in SCENARIOS.items() if len(asks) == 4])
def test_any_order_of_four_requests_is_as_good(name: str, counted: Counted) -> None:
    make, asks = SCENARIOS[name]
    explore(make(), tuple(asks), counted, name)


KINDS: dict[str, Ask] = {
    "copy on write": write(1, 20 * K, 2 * K),
    "part of a copy on write": write(2, 21 * K + 100, 700),
    "write in place": write(3, 19 * K + 512, K),
    "compressed": squeeze(4, 20 * K, 2 * K),
    "zeroes": zero(19 * K + 300, 3 * K),
    "unmap": zero(20 * K, 2 * K, unmap=True),
    "discard": discard(19 * K, 3 * K),
    "create": CREATE,
    "delete": DELETE,
    "apply": APPLY,
    "flush": FLUSH,
}
"""One of each, all about the place where clusters of our own end and those of a snapshot begin."""
TOGETHER = [names for names in combinations(KINDS, 3) if not {"delete", "apply"} <= {*names}]


@pytest.mark.parametrize("first", KINDS)
def test_any_two_kinds_of_request_may_meet_in_any_order(first: str, counted: Counted) -> None:
    names = list(KINDS)
    for second in names[names.index(first) + 1 :]:
        if {first, second} != {"delete", "apply"}:
            explore(partly_shared(), (KINDS[first], KINDS[second]), counted, f"{first}, {second}")


@pytest.mark.slow
@pytest.mark.parametrize("first", dict.fromkeys(names[0] for names in TOGETHER))
def test_any_three_kinds_of_request_may_meet_in_any_order(first: str, counted: Counted) -> None:
    for names in TOGETHER:
        if names[0] == first:
            explore(partly_shared(), tuple(KINDS[name] for name in names), counted, ", ".join(names))


def test_the_first_write_makes_the_refcount_table_grow() -> None:
    """Else the scenarios of that name would show nothing."""
    before = open_image(LabFile(Scheduler(), full_table()))
    table = before.header.refcount_table_clusters
    before.scheduler.run(write(1, 0, 8 * 512).make(before))
    assert before.header.refcount_table_clusters > table


# -- the search itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("create among writes in place", 2),
        ("delete and a discard", 2),
        ("preallocation", 2),
        pytest.param("create among writes that allocate", 3, marks=pytest.mark.slow),
        pytest.param("create among writes in place", 3, marks=pytest.mark.slow),
    ],
)
def test_a_search_of_states_stands_for_every_order_there_is(name: str, count: int) -> None:
    """The same requests without it, every order from its beginning to its end: as many, and no other outcome."""
    make, asks = SCENARIOS[name]
    outcomes: tuple[set[bytes], set[bytes]] = set(), set()

    def outcome(choose: Choose, into: set[bytes]) -> None:
        last = b""

        def watched(width: int, state: Callable[[], bytes]) -> int:
            nonlocal last
            choice = choose(width, state)
            last = state()
            return choice

        run(make(), tuple(asks[:count]), watched)
        into.add(last)

    found = search(lambda choose: outcome(choose, outcomes[0]), MOST_STATES)
    tried, all_of_them = orders(
        lambda pick: outcome(lambda width, _state: pick(range(width)), outcomes[1]), 20 * MOST_STATES
    )
    assert found.complete and all_of_them
    assert found.orders == tried
    assert outcomes[0] == outcomes[1]


def test_a_search_finds_the_one_order_that_is_wrong() -> None:
    """Three steps of each of two requests; only if the second goes between two certain steps of the first, it fails."""

    def broken(choose: Choose) -> None:
        left, done = [3, 3], []
        while any(left):
            able = [number for number in (0, 1) if left[number]]
            number = able[choose(len(able), lambda: fingerprint(left, done[-1:]))]
            left[number] -= 1
            done.append(number)
            assert left != [1, 0] or done[-1] == 0, "the second has ended before the last step of the first"

    with pytest.raises(AssertionError, match="the second has ended"):
        search(broken, 1000)
