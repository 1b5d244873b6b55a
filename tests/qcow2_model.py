"""What the qcow2 tests judge by: a model of a disk with requests in flight, a file in memory, a checker of its own.

The disk is divided into granules. Every write fills its granules with its tag and their numbers, so that what a read
returns names the request that put it there, and data in the wrong place shows.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2kdisk.aio import Scheduler
from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.node import Node
from e2kdisk.block.options import OpenOptions
from e2kdisk.qcow2.format import FORMAT
from e2kdisk.qcow2.image import Qcow2Image

# -- contents ----------------------------------------------------------------------------------------

ZERO = 0
"""The tag of zeros."""


def pattern(tag: int, first: int, count: int, granule: int) -> bytes:
    """What a request with this tag writes to granules first .. first + count - 1."""
    if tag == ZERO:
        return bytes(count * granule)
    return b"".join(struct.pack(">II", tag, number) * (granule // 8) for number in range(first, first + count))


def tags_of(data: bytes | bytearray | memoryview, first: int, granule: int) -> list[int]:
    """The tags of the granules in data, of which the first has number `first`; fails for torn or misplaced ones."""
    found = []
    zeros = bytes(granule)
    for number in range(len(data) // granule):
        part = bytes(data[number * granule : (number + 1) * granule])
        if part == zeros:
            found.append(ZERO)
            continue
        tag, place = struct.unpack_from(">II", part)
        assert part == pattern(tag, first + number, 1, granule), (
            f"granule {first + number} is torn, or the data of granule {place} with tag {tag}: {part[:16].hex()}..."
        )
        found.append(tag)
    return found


# -- the model ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Op:
    """One request: when it began and ended, by the model's clock."""

    kind: str
    first: int
    count: int
    tag: int
    start: int
    end: int | None = None
    sure: bool = True
    """It takes effect by its end; False for hints, and for requests that failed or were cancelled."""
    allowed: list[set[int]] = field(default_factory=list)
    """For a read: what each granule may show."""
    began: int = -1
    """How long the file's log was when it began, for tests of power cuts."""
    ended: int | None = -1


def stale(items: Sequence[Op], *, before: float = float("inf")) -> int:
    """When the newest of the requests that surely took effect, and ended by then, began: what ended earlier is gone."""
    return max((op.start for op in items if op.sure and op.end is not None and op.end < before), default=-1)


class Model:
    """What each granule may hold: the tags that some serial order of the requests leaves there."""

    def __init__(self, initial: Sequence[int]) -> None:
        self.now = 0
        base = {tag: Op("base", 0, 0, tag, -1, -1) for tag in set(initial)}
        self.granules: list[list[Op]] = [[base[tag]] for tag in initial]
        self.history = [list(items) for items in self.granules]
        """Like granules, but nothing is ever forgotten."""
        self.flushes: list[Op] = []
        self.reads: list[Op] = []

    def start(self, kind: str, first: int, count: int, tag: int = ZERO) -> Op:
        """A request begins: from now on its effect may be seen."""
        self.now += 1
        op = Op(kind, first, count, tag, self.now, sure=kind != "discard")
        if kind == "read":
            op.allowed = [{item.tag for item in self.granules[n]} for n in range(first, first + count)]
            self.reads.append(op)
        elif kind == "flush":
            self.flushes.append(op)
        else:
            for number in range(first, first + count):
                self.granules[number].append(op)
                self.history[number].append(op)
            for read in self.reads:
                for number in range(max(first, read.first), min(first + count, read.first + read.count)):
                    read.allowed[number - read.first].add(tag)
        return op

    def finish(self, op: Op, *, failed: bool = False) -> None:
        """A request ends: what ended before it began can be there no more."""
        self.now += 1
        op.end = self.now
        if op.kind == "read":
            self.reads.remove(op)
            return
        op.sure = op.sure and not failed
        if op.sure and op.kind != "flush":
            for number in range(op.first, op.first + op.count):
                self.granules[number] = [
                    item for item in self.granules[number] if item.end is None or item.end >= op.start
                ]

    def check(self, found: Sequence[int], first: int = 0, allowed: Sequence[set[int]] | None = None) -> None:
        """Fail unless the tags read from granule `first` on are possible."""
        for number, tag in enumerate(found, first):
            may = {item.tag for item in self.granules[number]} if allowed is None else allowed[number - first]
            assert tag in may, f"granule {number} holds tag {tag}, possible are {sorted(may)}"

    def settle(self, found: Sequence[int]) -> None:
        """Nothing is in flight and this was read: from now on it is the only possibility."""
        self.check(found)
        for number, tag in enumerate(found):
            self.granules[number] = [next(item for item in self.granules[number] if item.tag == tag)]

    def grow(self, count: int) -> None:
        """The disk has this many granules now; new ones are zeros."""
        base = Op("grow", 0, 0, ZERO, -1, -1)
        for _ in range(count - len(self.granules)):
            self.granules.append([base])
            self.history.append([base])

    def after_power_cut(self, number: int, position: int) -> set[int]:
        """What a granule may hold when the power was cut with the file's log this long.

        Everything that a completed flush found completed is there, or something newer.
        """
        flush = max((op.start for op in self.flushes if op.ended is not None and op.ended <= position), default=-1)
        items = [op for op in self.history[number] if op.began <= position]
        oldest = stale(items, before=flush)
        return {op.tag for op in items if op.end is None or op.end >= oldest}


# -- a file in memory --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logged:
    """One entry of a LabFile's log."""

    kind: str
    """write, zero, truncate or flush."""
    offset: int = 0
    data: bytes = b""
    length: int = 0
    covers: int = 0
    """For a flush: how many log entries were complete when it was asked for."""


class LabFile(Node):
    """A file in memory. With an engine each call is one of its decisions; with a log every change is remembered."""

    def __init__(
        self,
        scheduler: Scheduler,
        data: bytes = b"",
        *,
        name: str = "lab.qcow2",
        engine: SimulatedEngine | None = None,
        read_only: bool = False,
        logging: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self.name = name
        self.engine = engine
        self.read_only = read_only
        self.data = bytearray(data)
        self.log: list[Logged] | None = [] if logging else None

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.data)

    async def _call(self, function: Callable[..., None], *args: Any) -> None:
        if self.engine is None:
            function(*args)
        else:
            await self.engine.call(function, *args)

    async def read(self, offset: int, iov: IoVec) -> None:
        await self._call(self.do_read, offset, iov)

    async def write(self, offset: int, iov: IoVec) -> None:
        assert not self.read_only
        await self._call(self.do_write, offset, iov)

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        assert not self.read_only
        await self._call(self.do_zero, offset, length)

    async def discard(self, offset: int, length: int) -> None:
        assert not self.read_only
        await self._call(self.do_discard, offset, length)

    async def flush(self) -> None:
        await self._call(self.do_flush, 0 if self.log is None else len(self.log))

    async def truncate(self, size: int) -> None:
        await self._call(self.do_truncate, size)

    async def close(self) -> None:
        """The bytes stay."""

    def do_read(self, offset: int, iov: IoVec) -> None:
        for view in iov:
            part = self.data[offset : offset + view.nbytes]
            view[: len(part)] = part
            view[len(part) :] = bytes(view.nbytes - len(part))
            offset += view.nbytes

    def do_write(self, offset: int, iov: IoVec) -> None:
        self._note(Logged("write", offset, b"".join(iov)))

    def do_zero(self, offset: int, length: int) -> None:
        self._note(Logged("zero", offset, length=length))

    def do_discard(self, offset: int, length: int) -> None:
        self._note(Logged("zero", offset, length=min(length, len(self.data) - offset)))

    def do_truncate(self, size: int) -> None:
        self._note(Logged("truncate", size))

    def do_flush(self, covers: int) -> None:
        if self.log is not None:
            self.log.append(Logged("flush", covers=covers))

    def _note(self, item: Logged) -> None:
        if self.log is not None:
            self.log.append(item)
        apply(self.data, item)


def apply(data: bytearray, item: Logged, *, cut: int | None = None) -> None:
    """Make one logged change to data; with cut only its first bytes."""
    if item.kind == "flush":
        return
    if item.kind == "truncate":
        data[item.offset :] = bytes(max(0, item.offset - len(data)))
        return
    new = (item.data if item.kind == "write" else bytes(item.length))[:cut]
    end = item.offset + len(new)
    if end > len(data):
        assert end < 256 << 20, f"a write at {item.offset:#x} makes the file absurdly large"
        data.extend(bytes(end - len(data)))
    data[item.offset : end] = new


class _Backing:
    """Stands for the Opener: the backing file is open already."""

    def __init__(self, backing: Node | None) -> None:
        self._backing = backing

    async def open_backing(self, options: OpenOptions, name: str, format: str | None) -> Node | None:
        return self._backing


def open_image(file: Node, backing: Node | None = None, *, run: Callable[..., Any] | None = None, **extras: Any) -> Any:
    """Open the qcow2 image in a file node, through the format's own door."""
    coro = FORMAT.open(file, OpenOptions(file.name, read_only=file.read_only, extras=extras), _Backing(backing))  # type: ignore[arg-type]
    return (run or file.scheduler.run)(coro)


def read_all(image: Node, *, length: int | None = None) -> bytearray:
    """The whole contents of a node."""
    data = bytearray(image.size if length is None else length)
    image.scheduler.run(image.read(0, [memoryview(data)]))
    return data


# -- requests in flight ------------------------------------------------------------------------------


class Traffic:
    """Requests of a model on an image, any number at once; every result is compared with the model."""

    def __init__(self, image: Qcow2Image, model: Model, granule: int) -> None:
        self.image = image
        self.model = model
        self.granule = granule
        self.in_flight: set[int] = set()
        self.errors: list[BaseException] = []
        self.tasks: dict[int, Any] = {}
        self._next = 1
        self.on_start: Callable[[Op], None] = lambda op: None
        self.on_finish: Callable[[Op, BaseException | None], None] = lambda op, error: None

    def start(self, kind: str, first: int = 0, count: int = 0) -> Op:
        """Start a request: write, read, zero, unmap, discard, flush."""
        image, granule = self.image, self.granule
        number = self._next
        self._next += 1
        tag = number + 100 if kind == "write" else ZERO
        op = self.model.start(kind, first, count, tag)
        self.on_start(op)
        offset, length = first * granule, count * granule
        length = max(0, min(length, image.size - offset))
        buffer = bytearray(pattern(tag, first, count, granule)[:length]) if kind in ("read", "write") else bytearray()
        coro: Coroutine[Any, Any, None]
        if kind == "write":
            # In three pieces: buffers are lists of views.
            third = length // 3
            view = memoryview(buffer)
            coro = image.write(offset, [view[:third], view[third : 2 * third], view[2 * third :]])
        elif kind == "read":
            coro = image.read(offset, [memoryview(buffer)])
        elif kind == "discard":
            coro = image.discard(offset, length)
        elif kind == "flush":
            coro = image.flush()
        else:
            coro = image.write_zeroes(offset, length, unmap=kind == "unmap")
        self.in_flight.add(number)

        def then(result: Any, error: BaseException | None) -> None:
            self.in_flight.discard(number)
            self.tasks.pop(number, None)
            self.model.finish(op, failed=error is not None)
            self.on_finish(op, error)
            if error is not None:
                self.errors.append(error)
            elif kind == "read":
                self.model.check(tags_of(buffer, first, granule), first, op.allowed)

        task = image.scheduler.start(coro, then)
        if task is not None:
            self.tasks[number] = task
        return op

    def drain(self) -> None:
        """Wait for everything in flight."""
        self.image.scheduler.drain()
        assert not self.in_flight
        if self.errors:
            raise self.errors[0]

    def read_all(self) -> list[int]:
        """The tag of every granule."""
        return tags_of(read_all(self.image), 0, self.granule)


def orders(run: Callable[[Callable[[Sequence[Any]], int]], None], limit: int) -> tuple[int, bool]:
    """Call run(chooser) once for every sequence of decisions, depth first, at most `limit` times.

    Returns how many, and whether that was all. The chooser picks among what is pending; run must be repeatable.
    """
    prefix: list[int] = []
    count = 0
    while True:
        widths: list[int] = []
        taken: list[int] = []

        def choose(
            pending: Sequence[Any], prefix: list[int] = prefix, widths: list[int] = widths, taken: list[int] = taken
        ) -> int:
            depth = len(taken)
            choice = prefix[depth] if depth < len(prefix) else 0
            widths.append(len(pending))
            taken.append(choice)
            return choice

        try:
            run(choose)
        except BaseException as error:
            error.add_note(f"order of completion: {taken}")
            raise
        count += 1
        while taken and taken[-1] + 1 >= widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return count, True
        if count >= limit:
            return count, False
        taken[-1] += 1
        prefix = taken


# -- a checker of our own ----------------------------------------------------------------------------

_OFFSET = 0x00FFFFFFFFFFFE00


@dataclass
class Findings:
    """What is wrong with an image."""

    corruptions: list[str] = field(default_factory=list)
    leaks: int = 0


class Checker:
    """Counts every reference of a qcow2 image anew and compares; shares no code with the package."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = bytes(data)
        self.found = Findings()
        (
            self.version,
            _,
            _,
            self.bits,
            self.disk_size,
            _,
            self.l1_size,
            self.l1_offset,
            self.reftable_offset,
            self.reftable_clusters,
            self.snapshots,
            self.snapshots_offset,
        ) = struct.unpack_from(">IQIIQIIQQIIQ", self.data, 4)
        self.order = struct.unpack_from(">I", self.data, 96)[0] if self.version == 3 else 4
        self.size = 1 << self.bits
        self.counts: Counter[int] = Counter()
        self.refcounts: dict[int, int] = {}

    def check(self) -> Findings:
        """Everything."""
        self.use(0, self.size, "header")
        self.use(self.reftable_offset, self.reftable_clusters * self.size, "refcount table")
        self._load_refcounts()
        if self.l1_size:
            self.use(self.l1_offset, self.l1_size * 8, "L1")
        self._walk(self.l1_offset, self.l1_size, active=True)
        if self.snapshots:
            place = self.snapshots_offset
            for _ in range(self.snapshots):
                offset, entries, id_size, name_size = struct.unpack_from(">QIHH", self.data, place)
                extra = struct.unpack_from(">I", self.data, place + 36)[0]
                place = (place + 40 + extra + id_size + name_size + 7) & ~7
                self.use(offset, entries * 8, "snapshot L1")
                self._walk(offset, entries, active=False)
            self.use(self.snapshots_offset, place - self.snapshots_offset, "snapshot table")
        for cluster in sorted(self.counts.keys() | self.refcounts.keys()):
            used, counted = self.counts[cluster], self.refcounts.get(cluster, 0)
            if used > counted:
                self.bad(f"cluster {cluster:#x}: refcount {counted}, used {used} times")
            elif used < counted and cluster << self.bits < len(self.data):
                # What is counted behind the end of the file takes no space, and qemu-img does not call it a leak.
                self.found.leaks += 1
        return self.found

    def bad(self, what: str) -> None:
        self.found.corruptions.append(what)

    def use(self, offset: int, length: int, what: str) -> None:
        if offset + length > (len(self.data) + self.size - 1) // self.size * self.size:
            self.bad(f"{what} at {offset:#x} is past the end of the file ({len(self.data):#x})")
        for cluster in range(offset >> self.bits, (offset + length - 1 >> self.bits) + 1):
            self.counts[cluster] += 1

    def _table(self, offset: int, entries: int) -> array[int]:
        raw = self.data[offset : offset + entries * 8]
        values = array("Q", raw + bytes(entries * 8 - len(raw)))
        values.byteswap()
        return values

    def _load_refcounts(self) -> None:
        per_block = self.size * 8 >> self.order
        width = 1 << self.order
        for index, offset in enumerate(self._table(self.reftable_offset, self.reftable_clusters * self.size // 8)):
            if not offset:
                continue
            if offset & (self.size - 1):
                self.bad(f"refcount table entry {index}: {offset:#x}")
                continue
            self.use(offset, self.size, f"refcount block {index}")
            raw = self.data[offset : offset + self.size].rstrip(b"\0")
            raw += bytes(-len(raw) % 8)
            for slot in range(min(per_block, len(raw) * 8 // width)):
                if width >= 8:
                    value = int.from_bytes(raw[slot * width // 8 : (slot + 1) * width // 8], "big")
                else:
                    value = raw[slot * width // 8] >> slot * width % 8 & (1 << width) - 1
                if value:
                    self.refcounts[index * per_block + slot] = value

    def _walk(self, l1_offset: int, entries: int, *, active: bool) -> None:
        for index, l1_entry in enumerate(self._table(l1_offset, entries)):
            l2_offset = l1_entry & _OFFSET
            if not l2_offset:
                continue
            if l2_offset & (self.size - 1):
                self.bad(f"L1 entry {index}: {l1_entry:#x}")
                continue
            self.use(l2_offset, self.size, f"L2 table {index}")
            self._copied(l1_entry, l2_offset, f"L1 entry {index}", active)
            for number, entry in enumerate(self._table(l2_offset, self.size // 8)):
                if entry == 0:
                    continue
                what = f"L2 entry {index}/{number}: {entry:#x}"
                if entry >> 62 & 1:
                    shift = 62 - (self.bits - 8)
                    offset = entry & (1 << shift) - 1
                    sectors = (entry & (1 << 62) - 1) >> shift
                    self.use(offset & -512, (sectors + 1) * 512, what)
                    continue
                offset = entry & _OFFSET
                if entry & 1 and self.version == 2:
                    self.bad(f"{what}: zero flag in version 2")
                if offset & (self.size - 1):
                    self.bad(what)
                elif offset:
                    self.use(offset, self.size, what)
                    self._copied(entry, offset, what, active)

    def _copied(self, entry: int, offset: int, what: str, active: bool) -> None:
        if active and bool(entry >> 63) != (self.refcounts.get(offset >> self.bits, 0) == 1):
            self.bad(f"{what}: COPIED is {entry >> 63}, refcount {self.refcounts.get(offset >> self.bits, 0)}")


def check_bytes(data: bytes | bytearray, *, allow_leaks: bool = False) -> Findings:
    """Fail unless an image is consistent."""
    found = Checker(data).check()
    assert not found.corruptions, found.corruptions[:5]
    assert allow_leaks or not found.leaks, f"{found.leaks} clusters leaked"
    return found


# -- images to begin with ----------------------------------------------------------------------------

BASE_TAG = 1
"""What the backing file's data is tagged with."""
OWN_TAG = 2
"""What an image holds before the test begins."""


def write_pattern(path: Path, tag: int, runs: Sequence[tuple[int, int]], granule: int, size: int) -> list[int]:
    """Make a raw file with a tag in (first, count) granule runs; return its tags."""
    tags = [ZERO] * (-(-size // granule))
    with open(path, "wb") as file:
        file.truncate(size)
        for first, count in runs:
            file.seek(first * granule)
            file.write(pattern(tag, first, count, granule)[: max(0, size - first * granule)])
            tags[first : first + count] = [tag] * len(tags[first : first + count])
    return tags


def alternate(total: int, run: int) -> Iterator[tuple[int, int]]:
    """Runs of `run` granules, every second one, over `total`."""
    for first in range(0, total, 2 * run):
        yield first, min(run, total - first)
