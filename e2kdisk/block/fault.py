"""FaultNode: lies between a format and its file and makes requests and events fail, wait, or stop at a breakpoint.

An error at an event is raised by the announcement, `await file.event("l2_update")`: the I/O that was to follow
never reaches the file. An error at a request is raised before the file is touched, or after it with "late".
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Awaitable, Iterable

from e2kdisk.aio.engine import IoVec, iov_length
from e2kdisk.aio.scheduler import Task, park
from e2kdisk.block.fault_rules import EVENTS, FaultRule, parse_rules
from e2kdisk.block.node import Node
from e2kdisk.errors import UsageError


class _Pause:
    """A place where a request waits for a break to be resumed, a delay to pass, or a break to be reached.

    As with all I/O, a cancelled request stays here until it is let go: what it was about to do must stay whole.
    """

    __slots__ = ("task", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.task: Task | None = None

    def __repr__(self) -> str:
        return f"<{self.what}>"

    def park(self, task: Task) -> None:
        self.task = task

    def unpark(self, task: Task) -> bool:
        return False

    def let_go(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.scheduler.wake(task)


class _ActiveRule:
    """A rule and how often it has matched and acted."""

    __slots__ = ("acted", "matched", "rule")

    def __init__(self, rule: FaultRule) -> None:
        self.rule = rule
        self.matched = 0
        self.acted = 0


class FaultNode(Node):
    """Passes everything on to `file`, except what its rules say. Nothing is injected until there is a rule."""

    def __init__(self, file: Node, rules: str | Iterable[FaultRule | str] = (), *, seed: int = 0) -> None:
        """Rules as text (see fault_rules), or as FaultRule objects; the seed decides the chances. Raises UsageError."""
        self.scheduler = file.scheduler
        self.name = file.name
        self.read_only = file.read_only
        self.file = file
        self.event = self._announce
        self.state = 1
        self.seen: Counter[str] = Counter()
        """How often each kind of request and each event has come: a first run counts, the next ones let each fail."""
        self.injected: list[str] = []
        """What was injected so far, in order: "EIO at write_aio"."""
        self._rules: list[_ActiveRule] = []
        self._dice = random.Random(seed)
        self._suspended: dict[str, list[_Pause]] = {}
        self._expected: dict[str, list[_Pause]] = {}
        if isinstance(rules, str):
            rules = parse_rules(rules)
        for rule in rules:
            self.add(rule)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes; the file's own."""
        return self.file.size

    # -- rules ------------------------------------------------------------------------------------

    def add(self, rule: FaultRule | str) -> FaultRule:
        """Add a rule behind those that are there; the first error that matches wins. Raises UsageError."""
        if isinstance(rule, str):
            rule = FaultRule.parse(rule)
        self._rules.append(_ActiveRule(rule))
        return rule

    def remove(self, rule: FaultRule) -> None:
        """Take a rule away; no error if it is not there."""
        self._rules = [active for active in self._rules if active.rule is not rule]

    def clear(self) -> None:
        """Take all rules away and let everything go that is suspended."""
        self._rules.clear()
        for tag in list(self._suspended):
            self.resume(tag)

    # -- breakpoints ------------------------------------------------------------------------------

    def break_at(self, event: str, tag: str) -> FaultRule:
        """Suspend the next coroutine that comes to an event (or request), under a tag; one only."""
        return self.add(FaultRule(event, "break", tag=tag, times=1))

    def suspended(self, tag: str) -> int:
        """How many coroutines are suspended under a tag."""
        return len(self._suspended.get(tag, ()))

    async def wait_break(self, tag: str) -> None:
        """Wait until a coroutine is suspended under a tag."""
        if not self.suspended(tag):
            pause = _Pause(f"waiting for break {tag}")
            self._expected.setdefault(tag, []).append(pause)
            await park(pause)

    def resume(self, tag: str) -> None:
        """Let all go that are suspended under a tag. Raises UsageError when nobody is."""
        pauses = self._suspended.pop(tag, None)
        if not pauses:
            raise UsageError(f"nothing is suspended at break {tag!r}")
        for pause in pauses:
            pause.let_go()

    async def _suspend(self, what: str, tag: str) -> None:
        pause = _Pause(f"suspended at {what}, break {tag}")
        self._suspended.setdefault(tag, []).append(pause)
        for waiting in self._expected.pop(tag, ()):
            waiting.let_go()
        await park(pause)

    # -- what happens at a request or event -------------------------------------------------------

    async def _announce(self, name: str) -> None:
        if name not in EVENTS:
            raise UsageError(f"{name!r} is no event; the table is fault_rules.EVENTS")
        await self._inject(name, None, 0)
        if self.file.event is not None:
            await self.file.event(name)

    async def _inject(self, what: str, offset: int | None, length: int) -> OSError | None:
        """Act on all rules that match; raises an error, or returns one to be raised after the request."""
        self.seen[what] += 1
        if not self._rules:
            return None
        state = self.state  # as it was when the request came: a set-state counts from the next one on
        acting = [active.rule for active in self._rules if self._acts(active, what, offset, length, state)]
        failure: FaultRule | None = None
        for rule in acting:
            if rule.action == "set-state":
                self.state = rule.new_state
            elif rule.action == "delay":
                await self._delay(what, rule.delay_ns)
            elif rule.action == "break":
                await self._suspend(what, rule.tag)
            elif failure is None:
                failure = rule
        if failure is None:
            return None
        error = OSError(failure.errno, f"{os.strerror(failure.errno)} (injected at {what})", self.name)
        self.injected.append(f"{str(failure).partition(': ')[2].split()[0]} at {what}")
        if failure.late:
            return error
        raise error

    def _acts(self, active: _ActiveRule, what: str, offset: int | None, length: int, state: int) -> bool:
        rule = active.rule
        if rule.on != what and (rule.on != "any" or what in EVENTS):
            return False
        if rule.state and rule.state != state:
            return False
        if rule.start is not None and (offset is None or offset >= rule.end or offset + length <= rule.start):
            return False
        active.matched += 1
        if active.matched < rule.first or (rule.times is not None and active.acted >= rule.times):
            return False
        if rule.chance < 100 and self._dice.random() * 100 >= rule.chance:
            return False
        active.acted += 1
        return True

    async def _delay(self, what: str, delay_ns: int) -> None:
        pause = _Pause(f"delayed at {what}")
        self.scheduler.call_at(self.scheduler.clock.now_ns() + delay_ns, pause.let_go)
        await park(pause)

    async def _through(self, what: str, offset: int | None, length: int, request: Awaitable[None]) -> None:
        """One request: injected before, done, or failed late."""
        try:
            late = await self._inject(what, offset, length)
        except BaseException:
            # Never awaited: closed, so that Python does not complain about it.
            close = getattr(request, "close", None)
            if close is not None:
                close()
            raise
        await request
        if late is not None:
            raise late

    # -- Node -------------------------------------------------------------------------------------

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read: nothing, so that every read comes through read()."""
        return 0

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        await self._through("read", offset, iov_length(iov), self.file.read(offset, iov))

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        await self._through("write", offset, iov_length(iov), self.file.write(offset, iov))

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        await self._through("write_zeroes", offset, length, self.file.write_zeroes(offset, length, unmap=unmap))

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard."""
        await self._through("discard", offset, length, self.file.discard(offset, length))

    async def flush(self) -> None:
        """Node.flush."""
        await self._through("flush", None, 0, self.file.flush())

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        await self._through("truncate", None, 0, self.file.truncate(size))

    async def close(self) -> None:
        """Node.close: never fails by a rule, so that a test can always clean up."""
        await self.file.close()
