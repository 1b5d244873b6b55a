"""What the demo counts at each step of a request's way, without standing in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from e2kdisk.aio.engine import AutoEngine, IoVec, iov_length
from e2kdisk.block.disk import Disk, Request
from e2kdisk.machine.trace import Tracer

T = TypeVar("T")


@dataclass(slots=True)
class Amount:
    """How often, and how many bytes in all."""

    times: int = 0
    bytes: int = 0

    def add(self, bytes: int) -> None:
        """Once more."""
        self.times += 1
        self.bytes += bytes


@dataclass(frozen=True, slots=True)
class Access:
    """One access of the guest to a register, as the trace saw it."""

    kind: str
    """read or write."""
    register: str
    value: int
    pc: int
    instruction: str


class Counts(Tracer):
    """A trace that keeps numbers, and the first access to each register of the controller."""

    def __init__(self, controller: str) -> None:
        """The controller by its name in the trace."""
        super().__init__(lambda line: None)
        self.name = controller
        self.accesses: Counter[tuple[str, str]] = Counter()
        """(device, read or write) -> how many."""
        self.registers: Counter[str] = Counter()
        """How often each register of the controller was read or written."""
        self.requests: dict[str, Amount] = {}
        """Amounts by request type, as the driver asked for them."""
        self.failed = 0
        """Requests that ended with another status than 0."""
        self.mistakes: list[str] = []
        """What the controller says that the guest did wrong."""
        self.samples: list[Access] = []
        self._sampled: set[tuple[str, str]] = set()

    def controller(self, kind: str) -> int:
        """How often the guest read or wrote a register of the controller."""
        return self.accesses[self.name, kind]

    @property
    def all_requests(self) -> int:
        """Of every type."""
        return sum(amount.times for amount in self.requests.values())

    def event(self, source: str, kind: str, **fields: Any) -> None:
        """Tracer.event."""
        if kind in ("read", "write"):
            self.accesses[source, kind] += 1
            if source == self.name:
                self._access(kind, fields)
        elif kind == "request":
            self.requests.setdefault(fields["type"], Amount()).add(fields["bytes"])
            self.failed += fields["status"] != 0
        elif kind == "guest-error":
            self.mistakes.append(fields["what"])

    def _access(self, kind: str, fields: dict[str, Any]) -> None:
        register = fields["register"]
        self.registers[register] += 1
        if (kind, register) not in self._sampled:
            self._sampled.add((kind, register))
            self.samples.append(Access(kind, register, fields["value"], fields["pc"], fields["code"]))


class CountingDisk(Disk):
    """A Disk that counts the requests of its controller."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.reads = Amount()
        self.writes = Amount()
        self.flushes = Amount()

    def read(self, offset: int, iov: IoVec) -> Request:
        """Disk.read."""
        self.reads.add(iov_length(iov))
        return super().read(offset, iov)

    def write(self, offset: int, iov: IoVec, fua: bool = False) -> Request:
        """Disk.write."""
        self.writes.add(iov_length(iov))
        return super().write(offset, iov, fua)

    def flush(self) -> Request:
        """Disk.flush."""
        self.flushes.add(0)
        return super().flush()


class CountingEngine(AutoEngine):
    """An engine that counts the system calls on the image file, by name."""

    NAMES = {"read_fully": "preadv", "write_fully": "pwritev"}  # noqa: RUF012

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.calls: dict[str, Amount] = {}

    def _count(self, name: str, bytes: int = 0) -> None:
        self.calls.setdefault(name, Amount()).add(bytes)

    def try_read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_read."""
        done = super().try_read(fd, iov, offset)
        if done:
            self._count("preadv", done)
        return done

    def try_write(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_write."""
        done = super().try_write(fd, iov, offset)
        if done:
            self._count("pwritev", done)
        return done

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Engine.call."""
        name = self.NAMES.get(function.__name__, function.__name__)
        self._count(name, iov_length(args[1]) if name != function.__name__ else 0)
        return await super().call(function, *args)
