"""VolumeNode: the file below a format, in memory, where latency, order, errors and power cuts are decisions.

    call -> [latency] -> waits -> completes: effect on `content`, outcome -> the format goes on
                                      flush: what had completed when it was called is `durable`

A power cut leaves `durable` and any choice of what was written since, whole or torn; from then on every call fails.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.scheduler import Scheduler, Task, park
from e2kdisk.block.node import Node
from e2kdisk.lab.decisions import Decisions
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import Rules

SECTOR_BYTES = 512
"""A power cut tears writes at these."""

ERRORS = (errno.EIO, errno.ENOSPC)

ORDER_DECISION = "next of "
"""How the names of those decisions begin that choose between calls in flight."""

POWER_DECISION = ": power"
"""How the names of those decisions end that cut the power."""


class Kind(Enum):
    """What a change does."""

    WRITE = "write"
    ZEROES = "zeroes"
    DISCARD = "discard"
    TRUNCATE = "truncate"


@dataclass(slots=True, eq=False)
class Change:
    """A change of the content that was asked for, and how far it has come."""

    kind: Kind
    offset: int
    """Bytes; of a truncate, the new size."""
    length: int
    data: bytes = b""
    completed: bool = False

    def apply(self, pages: Pages, end: int | None = None) -> None:
        """Make the change, or only its first `end` bytes."""
        length = self.length if end is None else end
        match self.kind:
            case Kind.WRITE:
                pages.write(self.offset, self.data[:length])
            case Kind.ZEROES:
                pages.zero(self.offset, length)
            case Kind.DISCARD:
                pages.zero(self.offset, max(0, min(length, pages.size - self.offset)))
            case Kind.TRUNCATE:
                pages.truncate(self.offset)


@dataclass(slots=True, eq=False)
class Call:
    """A call in flight; a Place where its task waits."""

    name: str
    task: Task | None = None

    def park(self, task: Task) -> None:
        """Place.park."""
        self.task = task

    def unpark(self, task: Task) -> bool:
        """Place.unpark: I/O in flight is never cancelled."""
        return False


class Traffic:
    """The calls of all volumes of one rig: one source of decisions for them."""

    def __init__(self, scheduler: Scheduler, now_ns: Callable[[], int]) -> None:
        self.scheduler = scheduler
        self.now_ns = now_ns
        self.rules = Rules()
        self.decisions: Decisions
        self.waiting: list[Call] = []
        """Calls whose order is to be chosen."""
        self.faults = 0
        """Injected in this run."""
        self.calls = 0
        """Made in this run: their numbers in the stream of events."""
        self.is_cut = False
        """The power has failed: every call fails until the next run."""
        self.on_event: Callable[[str, dict[str, object]], None] = lambda kind, fields: None
        self.on_cut: Callable[[], None] = lambda: None
        scheduler.add_source(self)

    def begin(self, rules: Rules, decisions: Decisions) -> None:
        """A new run; nothing is in flight."""
        self.rules = rules
        self.decisions = decisions
        self.faults = 0
        self.is_cut = False

    def advance(self) -> bool:
        """Source.advance: complete one of the calls that wait for their turn."""
        if not self.waiting:
            return False
        names = " | ".join(call.name for call in self.waiting)
        call = self.waiting.pop(self.decisions.choose(ORDER_DECISION + names, len(self.waiting)))
        assert call.task is not None
        self.scheduler.wake(call.task)
        return True

    async def pass_by(self, name: str, *, changes: bool, writes: bool = False) -> None:
        """Let a call take its time; raises OSError when it shall fail. Its effect comes right after this."""
        if self.is_cut:
            raise OSError(errno.EIO, f"{name}: the power has failed")
        rules = self.rules
        if rules.order:
            call = Call(name)
            self.waiting.append(call)
            await park(call)
        elif len(rules.latencies_ns) > 1 or rules.latencies_ns[0]:
            chosen = self.decisions.choose(f"{name}: latency", len(rules.latencies_ns))
            if rules.latencies_ns[chosen]:
                call = Call(name)
                self.scheduler.call_at(self.now_ns() + rules.latencies_ns[chosen], lambda: self._wake(call))
                await park(call)
        if (
            changes
            and rules.power_cut
            and not self.is_cut
            and self.decisions.choose(name + POWER_DECISION, 2, rare=True)
        ):
            self.is_cut = True
            self.on_event("power-cut", {"at": name})
            self.on_cut()
        if self.is_cut:
            raise OSError(errno.EIO, f"{name}: the power has failed")
        if self.faults < rules.faults:
            chosen = self.decisions.choose(f"{name}: outcome", 1 + (len(ERRORS) if writes else 1), rare=True)
            if chosen:
                self.faults += 1
                code = ERRORS[chosen - 1]
                self.on_event("fault", {"call": name, "error": errno.errorcode[code]})
                raise OSError(code, f"{name}: injected by the laboratory")

    def _wake(self, call: Call) -> None:
        assert call.task is not None
        self.scheduler.wake(call.task)


class VolumeNode(Node):
    """One file of a rig."""

    def __init__(self, traffic: Traffic, name: str, content: Pages) -> None:
        """Start with a content that counts as durable."""
        self.scheduler = traffic.scheduler
        self.name = name
        self.read_only = False
        self.traffic = traffic
        self.restart(content)

    def restart(self, content: Pages) -> None:
        """Hold another content, all of it durable; nothing is in flight."""
        self.content = content.copy()
        self.durable = content.copy()
        self.undurable: list[Change] = []
        """Asked for, in order of completion, then those in flight; not flushed."""
        self.completed = 0
        """Changes that have completed in this run."""
        self.flushed = 0
        """How many of those, counted from the first, are durable."""

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes."""
        return self.content.size

    @contextmanager
    def _call(self, kind: str, offset: int, length: int) -> Iterator[None]:
        """Put a call into the stream of events, when it is made ("call") and when it ends, in whatever way."""
        traffic = self.traffic
        number = traffic.calls = traffic.calls + 1
        fields = {"call": number, "file": self.name, "offset": offset, "length": length}
        traffic.on_event("call", {"what": kind, **fields})
        try:
            yield
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "unknown")
            traffic.on_event("file error", {"what": kind, **fields, "error": code})
            raise
        traffic.on_event(f"file {kind}", fields)

    # -- Node -------------------------------------------------------------------------------------

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        length = sum(view.nbytes for view in iov)
        name = f"{self.name} read {offset:#x}+{length}"
        cut = length
        if self.traffic.rules.short_reads and length > SECTOR_BYTES and not self.traffic.is_cut:
            half = length // 2 // SECTOR_BYTES * SECTOR_BYTES or SECTOR_BYTES
            cut = half if self.traffic.decisions.choose(f"{name}: short", 2, rare=True) else length
        for first, end in ((0, cut), (cut, length)):
            if first == end:
                continue
            with self._call("read", offset + first, end - first):
                await self.traffic.pass_by(f"{self.name} read {offset + first:#x}+{end - first}", changes=False)
            at = 0
            for view in iov:
                begin, stop = max(first, at), min(end, at + view.nbytes)
                if begin < stop:
                    self.content.read_into(offset + begin, view[begin - at : stop - at])
                at += view.nbytes

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write: the bytes are those of the moment of the call."""
        data = b"".join(iov)
        await self._change(Change(Kind.WRITE, offset, len(data), data))

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        await self._change(Change(Kind.ZEROES, offset, length))

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: the bytes read as zeros."""
        await self._change(Change(Kind.DISCARD, offset, length))

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        await self._change(Change(Kind.TRUNCATE, size, 0))

    async def _change(self, change: Change) -> None:
        with self._call(change.kind.value, change.offset, change.length):
            await self._pass_change(change)

    async def _pass_change(self, change: Change) -> None:
        self.undurable.append(change)
        try:
            name = f"{self.name} {change.kind.value} {change.offset:#x}+{change.length}"
            await self.traffic.pass_by(name, changes=True, writes=True)
        except BaseException:
            if not self.traffic.is_cut:  # a cut may leave a part of it, an injected error left nothing
                self.undurable.remove(change)
            raise
        change.apply(self.content)
        change.completed = True
        self.completed += 1
        # In order of completion, which is the order of effect; what is in flight stays behind.
        self.undurable.remove(change)
        done = sum(1 for other in self.undurable if other.completed)
        self.undurable.insert(done, change)

    async def flush(self) -> None:
        """Node.flush."""
        with self._call("flush", 0, 0):
            await self._flush()

    async def _flush(self) -> None:
        covered = [change for change in self.undurable if change.completed]
        reached = self.completed
        await self.traffic.pass_by(f"{self.name} flush", changes=True)
        # A flush that was called later may have ended earlier and made some of these durable already.
        now = [change for change in self.undurable if change in covered]
        for change in now:
            change.apply(self.durable)
        self.undurable = [change for change in self.undurable if change not in now]
        self.flushed = max(self.flushed, reached)

    async def close(self) -> None:
        """Node.close: the content stays."""

    # -- after a power cut ------------------------------------------------------------------------

    def after_cut(self) -> Pages:
        """What is found when the power comes back: a decision for each change that was not durable."""
        found = self.durable.copy()
        choose = self.traffic.decisions.choose
        for number, change in enumerate(self.undurable):
            name = f"{self.name} {change.kind.value} {change.offset:#x}+{change.length}: survives"
            # 0 is the natural end of a cut: what had completed is there, what was in flight is not.
            order = ("whole", "lost", "torn") if change.completed else ("lost", "whole", "torn")
            tears = change.kind in (Kind.WRITE, Kind.ZEROES) and change.length > SECTOR_BYTES
            outcome = order[choose(name, 3 if tears else 2)]
            if outcome == "whole":
                change.apply(found)
            elif outcome == "torn":
                first = SECTOR_BYTES - change.offset % SECTOR_BYTES
                places = range(first, change.length, SECTOR_BYTES)
                change.apply(found, places[choose(f"{name} until (change {number})", min(len(places), 64))])
        return found
