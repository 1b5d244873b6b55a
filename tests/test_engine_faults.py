"""A fault at any step of any operation: the caller hears of it, nothing is corrupted, and the image goes on.

Each operation runs once to count every event and request; then once for each of them and each kind of fault.
"""

import errno
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.fault_rules import EVENTS, REQUESTS
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import chain
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.preallocate import preallocate
from e2kdisk.qcow2.vm_state import read_vm_state, write_vm_state
from tests import oracles
from tests.engine_lab import KEY, below, new_image, noise
from tests.qcow2_model import LabFile, check_bytes, open_image, read_all

CLUSTER = 1024
SIZE = 192 * 1024 + 512
"""Two L2 tables at 1 KiB clusters."""
BASE = noise(random.Random(7), 150 * 1024)

Act = Callable[[Any], Awaitable[Any]]
Counted = Callable[[str, int], None]


@dataclass(frozen=True)
class Operation:
    """One operation on an image that has been prepared."""

    name: str
    act: Act
    options: dict[str, Any] = field(default_factory=dict)
    size: int = SIZE
    backed: bool = False
    prepare: Act | None = None
    whole: bool = False
    """All at once or not at all."""
    zeros_between: bool = False

    @property
    def key(self) -> str | None:
        return KEY if self.options.get("encrypted") else None

    def __str__(self) -> str:
        return self.name


def data(offset: int, length: int, seed: int = 1) -> Act:
    content = noise(random.Random(f"{seed}/{offset}"), length)
    return lambda image: image.write(offset, [memoryview(content)])


def packed(offset: int, length: int) -> Act:
    content = (b"squeeze " * 64) * (length // 512)
    return lambda image: image.write_compressed(offset, [memoryview(content)])


def steps(*acts: Act) -> Act:
    async def act(image: Any) -> None:
        for step in acts:
            await step(image)

    return act


def snapshot(name: str = "one") -> Act:
    return lambda image: image.snapshots.create(name)


FULL = data(0, 140 * 1024)
SHARED = steps(FULL, snapshot(), data(3 * CLUSTER + 512, 9 * CLUSTER, 2))
SHARED_ZEROS = steps(
    FULL,
    lambda image: image.write_zeroes(0, 12 * CLUSTER),
    snapshot(),
    lambda image: image.write_zeroes(8 * CLUSTER, 12 * CLUSTER),
)
AES = {"encrypted": True}
WIDE = {"cluster_size": 512, "refcount_bits": 64}


async def _apply(image: Any) -> None:
    await image.snapshots.apply("one")


async def _delete(image: Any) -> None:
    if image.snapshots.all():
        await image.snapshots.delete("one")


async def _vm_state(image: Any) -> None:
    await write_vm_state(image, 700, [memoryview(b"vm" * 4000)])
    found = bytearray(8000)
    await read_vm_state(image, 700, [memoryview(found)])
    assert found == b"vm" * 4000


def amended(**changes: Any) -> Act:
    return lambda image: amend(image, AmendOptions(**changes))


OPERATIONS = (
    Operation("write that allocates", data(5000, 9000)),
    Operation("write that allocates, lazy", data(5000, 9000), {"lazy_refcounts": True}),
    Operation("write in place", data(5000, 9000, 2), prepare=FULL),
    Operation("write over a backing file", data(4700, 9000), backed=True),
    Operation("write over a backing file, version 2", data(4700, 9000), {"version": 2}, backed=True),
    Operation("write over a snapshot", data(4700, 9000, 3), prepare=SHARED),
    Operation("write over compressed clusters", data(4700, 3000, 3), prepare=packed(0, 40 * CLUSTER)),
    Operation("zeroes", lambda image: image.write_zeroes(700, 20000), prepare=FULL),
    Operation("zeroes that unmap", lambda image: image.write_zeroes(700, 20000, unmap=True), prepare=FULL),
    Operation("zeroes over a snapshot", lambda image: image.write_zeroes(700, 20000), prepare=SHARED),
    Operation(
        "write into zeroed clusters",
        steps(lambda image: image.write_zeroes(0, 20480), FULL),
        prepare=FULL,
        zeros_between=True,
    ),
    Operation("discard", lambda image: image.discard(0, 60 * CLUSTER), prepare=FULL),
    Operation("discard over a backing file", lambda image: image.discard(0, 30 * CLUSTER), backed=True, prepare=FULL),
    Operation("discard over a snapshot", lambda image: image.discard(0, 30 * CLUSTER), prepare=SHARED),
    Operation("compressed write", packed(CLUSTER, 12 * CLUSTER)),
    Operation("compressed write over data", packed(CLUSTER, 12 * CLUSTER), prepare=FULL),
    Operation("compressed write, 1-bit refcounts", packed(CLUSTER, 6 * CLUSTER), {"refcount_bits": 1}),
    Operation("snapshot create", snapshot("two"), prepare=SHARED),
    Operation("snapshot create, version 2", snapshot("two"), {"version": 2}, prepare=SHARED),
    Operation("snapshot create, lazy", snapshot("two"), {"lazy_refcounts": True}, prepare=SHARED),
    Operation("snapshot apply", _apply, prepare=SHARED, whole=True),
    Operation("snapshot apply, version 2", _apply, {"version": 2}, prepare=SHARED, whole=True),
    Operation("snapshot apply, another size", _apply, whole=True, prepare=steps(SHARED, lambda i: i.truncate(70000))),
    Operation("snapshot delete", _delete, prepare=SHARED),
    Operation("snapshot delete, version 2", _delete, {"version": 2}, prepare=SHARED),
    Operation("grow, the L1 table moves", lambda image: image.truncate(2 << 20), prepare=FULL),
    Operation("grow over a longer backing file", lambda image: image.truncate(160 * 1024), size=70 * 1024, backed=True),
    Operation("shrink", lambda image: image.truncate(50 * 1024 + 512), prepare=FULL),
    Operation("shrink with a snapshot", lambda image: image.truncate(50 * 1024 + 512), prepare=SHARED),
    Operation("refcount blocks are made", data(0, 60 * 512), WIDE, prepare=data(90 * 512, 40 * 512)),
    Operation("refcount table grows", data(0, 30 * 512), WIDE, size=4300 * 512, prepare=data(300 * 512, 3960 * 512)),
    Operation("amend refcount_bits", amended(refcount_bits=64), prepare=SHARED),
    Operation("write that allocates, AES", data(5000, 9000), AES),
    Operation("write in place, AES", data(5000, 9100, 2), AES, prepare=FULL),
    Operation("write over a backing file, AES", data(4700, 9000), AES, backed=True),
    Operation("write over a snapshot, AES", data(4700, 9000, 3), AES, prepare=SHARED),
    Operation("zeroes that unmap, AES", lambda image: image.write_zeroes(700, 20000, unmap=True), AES, prepare=FULL),
    Operation("discard over a backing file, AES", lambda i: i.discard(0, 30 * CLUSTER), AES, backed=True, prepare=FULL),
    Operation("snapshot apply, AES", _apply, AES, prepare=SHARED, whole=True),
    Operation("snapshot delete, AES", _delete, AES, prepare=SHARED),
    Operation("grow, AES", lambda image: image.truncate(2 << 20), AES, prepare=FULL),
    Operation("grow over a longer base, AES", lambda i: i.truncate(80 * 1024), AES, size=70 * 1024, backed=True),
    Operation("shrink, AES", lambda image: image.truncate(50 * 1024 + 512), AES, prepare=FULL),
    Operation("amend to version 2 with snapshots, AES", amended(version=2), AES, prepare=SHARED_ZEROS, backed=True),
    Operation("preallocate, AES", lambda image: preallocate(image, 0, 30 * CLUSTER, "metadata"), AES),
    Operation("stream, AES", chain.stream, AES, backed=True, prepare=data(4700, 9000)),
    Operation("VM state, AES", _vm_state, AES, prepare=FULL),
    Operation("amend to version 3", amended(version=3, lazy_refcounts=True), {"version": 2}, prepare=FULL),
    Operation(
        "amend to version 2",
        amended(version=2),
        {"lazy_refcounts": True},
        prepare=steps(FULL, lambda image: image.write_zeroes(2048, 8192)),
    ),
    Operation("amend to version 2 with snapshots", amended(version=2), prepare=SHARED_ZEROS),
    Operation("amend to version 2 with snapshots, backed", amended(version=2), prepare=SHARED_ZEROS, backed=True),
    Operation("amend the backing file", amended(backing_file="other", backing_format="raw"), backed=True),
    Operation("preallocate", lambda image: preallocate(image, 0, 60 * CLUSTER, "metadata")),
    Operation("preallocate with zeros", lambda image: preallocate(image, 0, 60 * CLUSTER, "full")),
    Operation("stream", chain.stream, backed=True, prepare=data(4700, 9000)),
    Operation("VM state", _vm_state, prepare=FULL),
)


def zeros_after(content: bytes, size: int) -> bytes:
    return content[:size].ljust(size, b"\0")


class Run:
    """One run of an operation on its own copy of the prepared image."""

    def __init__(self, start: bytes, backing: bytes | None, key: str | None = None) -> None:
        self.scheduler = Scheduler()
        self.file = LabFile(self.scheduler, start)
        self.faults = FaultNode(self.file)
        self.image = open_image(self.faults, below(self.scheduler, backing), key=key)
        # The smallest caches: tables are loaded and written back in the middle of everything.
        self.image.mapping.slices.limit = 2
        self.image.refcounts.blocks.limit = 4
        self.faults.seen.clear()

    def attempt(self, act: Act) -> BaseException | None:
        try:
            self.scheduler.run(act(self.image))  # type: ignore[arg-type]
            self.scheduler.run(self.image.flush())
        except (OSError, ImageError) as error:
            return error
        return None

    def close(self) -> BaseException | None:
        try:
            self.scheduler.run(self.image.close())
        except OSError as error:
            return error
        return None


@dataclass(frozen=True)
class Prepared:
    start: bytes
    backing: bytes | None
    before: bytes
    after: bytes
    held: dict[str, bytes]
    """What snapshots show."""
    points: tuple[tuple[str, int], ...]
    """(event or request, how often) of the operation and the flush after it."""
    closing: tuple[tuple[str, int], ...]


def contents(data: bytes, backing: bytes | None, key: str | None, snapshot: str | None = None) -> bytes:
    scheduler = Scheduler()
    file = LabFile(scheduler, data, read_only=True)
    return bytes(read_all(open_image(file, below(scheduler, backing), key=key, snapshot=snapshot)))


@cache
def prepared(operation: Operation) -> Prepared:
    options = {"cluster_size": CLUSTER, **operation.options}
    backing = BASE if operation.backed else None
    if operation.backed:
        options |= {"backing_file": "base", "backing_format": "raw"}
    start = bytes(new_image(operation.size, **options).data)
    if operation.prepare is not None:
        run = Run(start, backing, operation.key)
        assert run.attempt(operation.prepare) is None
        assert run.close() is None
        start = bytes(run.file.data)
    check_bytes(start)
    has_snapshot = Header.parse("t", start[:4096]).nb_snapshots
    held = {"one": contents(start, backing, operation.key, "one")} if has_snapshot else {}
    before = contents(start, backing, operation.key)
    run = Run(start, backing, operation.key)
    assert run.attempt(operation.act) is None
    points = tuple(sorted(run.faults.seen.items()))
    after = bytes(read_all(run.image))
    run.faults.seen.clear()
    assert run.close() is None
    check_bytes(run.file.data)
    return Prepared(start, backing, before, after, held, points, tuple(sorted(run.faults.seen.items())))


Operation.__hash__ = lambda self: hash(self.name)  # type: ignore[method-assign,assignment]


def judge(case: Prepared, found: bytes, operation: Operation) -> None:
    """Each sector is old or new."""
    if operation.whole:
        assert found in (case.before, case.after)
        return
    size = len(found)
    assert size in (len(case.before), len(case.after))
    before, after = zeros_after(case.before, size), zeros_after(case.after, size)
    for offset in range(0, size, 512):
        part = found[offset : offset + 512]
        may = {before[offset : offset + 512], after[offset : offset + 512]}
        assert part in may or (operation.zeros_between and not any(part)), f"sector {offset // 512}"


def repaired(data: bytes, backing: bytes | None, key: str | None) -> bytes:
    """As it is after the next opening; a clean image is opened too."""
    if not Header.parse("t", data[:4096]).incompatible_features & 1:
        check_bytes(data, allow_leaks=True)
    run = Run(data, backing, key)
    assert run.close() is None
    check_bytes(run.file.data, allow_leaks=True)
    return bytes(run.file.data)


def one_fault(operation: Operation, rule: str, *, retry: bool, sample: Path | None = None) -> bool:
    """Run with one fault; False if it never came to it."""
    case = prepared(operation)
    run = Run(case.start, case.backing, operation.key)
    run.faults.add(rule)
    error = run.attempt(operation.act)
    if not run.faults.injected:
        return False
    if error is None:
        # Only hints and the giving back of space may fail without a word.
        assert any(name in rule for name in ("discard", "cluster_free")), "the caller heard nothing of the fault"
    else:
        assert isinstance(error, OSError), f"{error!r} instead of an OSError"
        assert error.errno in (errno.EIO, errno.ENOSPC)
    run.faults.clear()
    judge(case, bytes(read_all(run.image)), operation)
    if retry:
        assert run.attempt(operation.act) is None, "the retry failed"
        assert bytes(read_all(run.image)) == case.after
    else:
        run.scheduler.run(run.image.flush())
    assert run.close() is None
    data = repaired(bytes(run.file.data), case.backing, operation.key)
    judge(case, contents(data, case.backing, operation.key), operation)
    if retry:
        assert contents(data, case.backing, operation.key) == case.after
    for name, held in case.held.items():
        shown = open_image(LabFile(Scheduler(), data, read_only=True), key=operation.key)
        if name in [item.name for item in shown.snapshots.all()]:
            assert contents(data, case.backing, operation.key, name) == held, f"snapshot {name} has changed"
        else:
            assert operation.act is _delete
    if sample is not None:
        sample.write_bytes(data)
        oracles.assert_clean(sample, allow_leaks=True, key=operation.key)
    return True


def sweep(operation: Operation, place: Path, most: int) -> int:
    """Every point of an operation; of one that comes very often, `most` times spread evenly."""
    case = prepared(operation)
    count = 0
    for what, times in case.points:
        step = max(1, times / most)
        for number in sorted({int(1 + step * turn) for turn in range(min(most, times))}):
            for kind in ("EIO once", "ENOSPC sticky", *(("EIO late once",) if what in ("write", "flush") else ())):
                for retry in (True, False):
                    rule = f"{what}@{number}: {kind}"
                    try:
                        sampled = place / "fault.qcow2" if count % 40 == 0 and not operation.backed else None
                        count += one_fault(operation, rule, retry=retry, sample=sampled)
                    except BaseException as error:
                        error.add_note(f"{operation}: {rule}, {'tried again' if retry else 'given up'}")
                        raise
    return count


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_fault_at_a_step_of_an_operation_corrupts_nothing(
    operation: Operation, tmp_path: Path, counted: Counted
) -> None:
    most = 1 if operation.name == "refcount table grows" else 2 if operation.key is not None else 3
    counted("faults injected", sweep(operation, tmp_path, most))


NOT_HERE = {
    "refblock_update": "QEMU 7.2 announces refblock_update_part instead, and so do we",
    "cluster_alloc_space": "QEMU 7.2 does not announce it either",
    "cor_write": "copy on read belongs to the program that reads",
    "empty_image_prepare": "commit is swept in tests/test_engine_chain.py",
    **dict.fromkeys((name for name in EVENTS if name.startswith("pwritev")), "BlkdebugNode announces its own requests"),
}
"""Events that no operation of this sweep comes to, and why."""


def test_the_sweep_comes_to_every_event() -> None:
    reached = {
        what for operation in OPERATIONS for what, _ in (*prepared(operation).points, *prepared(operation).closing)
    }
    assert reached - {*REQUESTS} == EVENTS - set(NOT_HERE)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_fault_at_every_step_of_an_operation_corrupts_nothing(
    operation: Operation, tmp_path: Path, counted: Counted
) -> None:
    most = 50 if operation.name == "refcount table grows" else 1000
    counted("faults injected", sweep(operation, tmp_path, most))


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_fault_while_closing_loses_nothing_that_was_flushed(operation: Operation) -> None:
    case = prepared(operation)
    for what, times in case.closing:
        for number in range(1, times + 1):
            for kind in ("EIO once", "ENOSPC sticky"):
                run = Run(case.start, case.backing, operation.key)
                assert run.attempt(operation.act) is None
                run.faults.add(f"{what}@{number}: {kind}")
                error = run.close()
                assert isinstance(error, OSError) or not run.faults.injected
                backing = case.backing if operation.act is not chain.stream else None
                data = repaired(bytes(run.file.data), backing, operation.key)
                assert contents(data, case.backing, operation.key) == case.after


@pytest.mark.parametrize("prepare", [None, data(0, 57 * 512)], ids=["counted elsewhere", "counts itself"])
def test_a_refcount_block_that_found_no_room_in_memory_is_made_by_the_next_request(
    prepare: Act | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making room in the cache writes another block: that write fails."""
    run = Run(bytes(new_image(4000 * 512, **WIDE).data), None)
    if prepare is not None:
        assert run.attempt(prepare) is None
    blocks = run.image.refcounts.blocks

    async def fail(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "insert", fail)
        errors = [run.attempt(data(offset, 8192)) for offset in range(100 * 512, 180 * 512, 8192)]
    assert any(isinstance(error, OSError) for error in errors)
    for offset in range(100 * 512, 180 * 512, 8192):
        assert run.attempt(data(offset, 8192)) is None
    assert run.close() is None
    check_bytes(run.file.data)
