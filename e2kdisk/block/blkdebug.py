"""BlkdebugNode: QEMU's blkdebug driver, so that its recipes work here: rules in a file or as options, breakpoints.

An event does not fail by itself. A rule that injects an error is armed by its event and strikes at the next request to
the file that it fits, as often as it says:

    event l2_update --> arms inject-error --> next write of a matching sector fails with its errno
    event l2_update --> set-state: rules for another state hold from the next event on
    event l2_update --> break: whoever gets here waits for resume

FaultNode (fault.py) is our own way: one line a rule, errors at the event itself, delays, chances, late errors.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from e2kdisk.aio.engine import IoVec, iov_length
from e2kdisk.aio.scheduler import Task, park
from e2kdisk.block.fault_rules import EVENTS, SECTOR_BYTES
from e2kdisk.block.node import Node
from e2kdisk.block.status import BlockStatus
from e2kdisk.block.tree import SIZE_HELP, Taken, Tree, as_switch
from e2kdisk.errors import UsageError

IO_TYPES = {
    "read": ("read",),
    "write": ("write",),
    "write-zeroes": ("write_zeroes",),
    "discard": ("discard",),
    "flush": ("flush",),
    "block-status": ("status",),
}
ANY_IO = ("read", "write", "write_zeroes", "discard", "flush")
"""What a rule strikes that names no iotype."""
MAX_STATES = 255


@dataclass(eq=False)
class Rule:
    """One inject-error or set-state."""

    event: str | None
    """None, for an inject-error: armed from the start."""
    state: int = 0
    """Only in this state; 0 is any."""
    errno: int = errno.EIO
    once: bool = False
    sector: int | None = None
    requests: tuple[str, ...] = ANY_IO
    new_state: int | None = None
    """For set-state."""

    def strikes(self, what: str, offset: int, length: int) -> bool:
        """Whether an armed rule fails this request."""
        if what not in self.requests:
            return False
        return self.sector is None or offset <= self.sector * SECTOR_BYTES < offset + length


class _Suspended:
    """A place where a request waits for resume."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.task: Task | None = None

    def __repr__(self) -> str:
        return f"<suspended at breakpoint {self.tag}>"

    def park(self, task: Task) -> None:
        self.task = task

    def unpark(self, task: Task) -> bool:
        return False


class BlkdebugNode(Node):
    """Lies between a format and its file; `say` gets what QEMU prints about breakpoints."""

    def __init__(self, file: Node, rules: list[Rule], say: Callable[[str], None] = lambda line: None) -> None:
        self.scheduler = file.scheduler
        self.file = file
        self.name = file.name
        self.read_only = file.read_only
        self.event = self._announce
        self.state = 1
        self.say = say
        self._rules = rules
        self._armed = [rule for rule in rules if rule.event is None]
        self._breakpoints: list[tuple[str, str]] = []
        self._suspended: list[_Suspended] = []
        self._unflushed = False

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes; the file's own."""
        return self.file.size

    # -- breakpoints ------------------------------------------------------------------------------

    def break_at(self, event: str, tag: str) -> None:
        """Suspend the next request that comes to an event. Raises FileNotFoundError for an unknown event."""
        if event not in EVENTS:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._breakpoints.append((event, tag))

    def remove_break(self, tag: str) -> None:
        """Remove breakpoints and let go who is suspended there.

        Raises FileNotFoundError if there is no breakpoint; one at which somebody is suspended is gone already.
        """
        known = [item for item in self._breakpoints if item[1] == tag]
        self._breakpoints = [item for item in self._breakpoints if item[1] != tag]
        for item in [item for item in self._suspended if item.tag == tag]:
            self._let_go(item)
        if not known:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def resume(self, tag: str) -> None:
        """Let the first go that is suspended under a tag. Raises FileNotFoundError when nobody is."""
        for item in self._suspended:
            if item.tag == tag:
                self._let_go(item)
                return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def is_suspended(self, tag: str) -> bool:
        """Whether somebody waits under a tag."""
        return any(item.tag == tag for item in self._suspended)

    @property
    def suspended(self) -> list[str]:
        """The tags under which requests wait now."""
        return [item.tag for item in self._suspended]

    def _let_go(self, item: _Suspended) -> None:
        self._suspended.remove(item)
        task, item.task = item.task, None
        if task is not None:
            self.scheduler.wake(task)

    async def _suspend(self, event: str) -> None:
        for at, tag in list(self._breakpoints):
            if at != event:
                continue
            self._breakpoints.remove((at, tag))
            item = _Suspended(tag)
            self._suspended.append(item)
            self.say(f"blkdebug: Suspended request '{tag}'")
            await park(item)
            self.say(f"blkdebug: Resuming request '{tag}'")

    # -- rules ------------------------------------------------------------------------------------

    async def _announce(self, event: str) -> None:
        state = self.state
        hit = [rule for rule in self._rules if rule.event == event and rule.state in (0, state)]
        armed = [rule for rule in hit if rule.new_state is None]
        if armed:
            self._armed = armed
        for rule in hit:
            if rule.new_state is not None:
                self.state = rule.new_state
        if self._breakpoints:
            await self._suspend(event)
        if self.file.event is not None:
            await self.file.event(event)

    def _strike(self, what: str, offset: int, length: int) -> None:
        """Raise the error of the first armed rule that fits."""
        for rule in self._armed:
            if rule.strikes(what, offset, length):
                if rule.once:
                    self._armed.remove(rule)
                    self._rules.remove(rule)
                if rule.errno:
                    raise OSError(rule.errno, os.strerror(rule.errno), self.name)
                return

    # -- Node -------------------------------------------------------------------------------------

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        self._strike("read", offset, iov_length(iov))
        await self.file.read(offset, iov)

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        await self._announce("pwritev")
        self._strike("write", offset, iov_length(iov))
        self._unflushed = True
        await self.file.write(offset, iov)
        await self._announce("pwritev_done")

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        await self._announce("pwritev_zero")
        self._strike("write_zeroes", offset, length)
        self._unflushed = True
        await self.file.write_zeroes(offset, length, unmap=unmap)
        await self._announce("pwritev_done")

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard."""
        self._strike("discard", offset, length)
        self._unflushed = True
        await self.file.discard(offset, length)

    async def flush(self) -> None:
        """Node.flush; nothing, and no error, if nothing has been changed since the last one."""
        if not self._unflushed:
            return
        self._strike("flush", 0, 0)
        self._unflushed = False
        try:
            await self.file.flush()
        except BaseException:
            self._unflushed = True
            raise

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        self._unflushed = True
        await self.file.truncate(size)

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status."""
        self._strike("status", offset, length)
        return await self.file.status(offset, length)

    async def close(self) -> None:
        """Node.close."""
        await self.file.close()


# -- rules from options and from a file -----------------------------------------------------------


def parse_config(text: str) -> Tree:
    """Read a rules file into the form that options have. Raises UsageError.

    [inject-error]
    event = "l2_load"
    errno = "5"
    """
    groups: dict[str, list[Tree]] = {"inject-error": [], "set-state": []}
    group: Tree | None = None
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1].split(" ")[0]
            if name not in groups:
                raise UsageError(f"There is no option group '{name}'")
            group = {}
            groups[name].append(group)
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if group is None:
            raise UsageError("no group defined")
        if not equals or len(value) < 2 or value[0] != '"' or value[-1] != '"':
            raise UsageError("parse error")
        group[key] = value[1:-1]
    return {name: {str(number): item for number, item in enumerate(items)} for name, items in groups.items()}


def parse_rules(taken: Taken) -> list[Rule]:
    """Take the rules out of the options of a blkdebug node. Raises UsageError."""
    rules = [_inject_error(item) for item in taken.items("inject-error")]
    return rules + [_set_state(item) for item in taken.items("set-state")]


def _inject_error(tree: Tree) -> Rule:
    taken = Taken("blkdebug", tree)
    event = taken.text("event")
    if event is not None and event not in EVENTS and event != "none":
        raise UsageError(f"invalid parameter value: {event}")
    iotype = taken.text("iotype")
    if iotype is not None and iotype not in IO_TYPES:
        raise UsageError(f"invalid parameter value: {iotype}")
    sector = _number("sector", taken.any("sector", -1))
    rule = Rule(
        event=None if event == "none" else event,
        state=_number("state", taken.any("state", 0)),
        errno=_number("errno", taken.any("errno", errno.EIO)),
        once=as_switch("once", taken.any("once", False)),
        sector=None if sector < 0 else sector,
        requests=ANY_IO if iotype is None else IO_TYPES[iotype],
    )
    taken.switch("immediately")
    taken.finish()
    return rule


def _set_state(tree: Tree) -> Rule:
    taken = Taken("blkdebug", tree)
    event = taken.text("event")
    if event is None:
        raise UsageError("Missing event name for rule")
    if event not in EVENTS:
        raise UsageError(f"invalid parameter value: {event}")
    new_state = _number("new_state", taken.any("new_state", 0))
    rule = Rule(event, _number("state", taken.any("state", 0)), new_state=new_state)
    if not 0 <= new_state <= MAX_STATES:
        raise UsageError("new_state is invalid")
    taken.finish()
    return rule


def _number(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(str(value), 0)
    except ValueError:
        raise UsageError(f"Parameter '{key}' {SIZE_HELP.splitlines()[0]}") from None
