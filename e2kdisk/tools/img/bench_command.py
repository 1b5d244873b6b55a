"""bench: send the same kind of request many times."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from e2kdisk.aio.sync import WaitQueue
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import MAX_SIZE, size_argument

if TYPE_CHECKING:
    from e2kdisk.tools.img.opening import Image

LONG: dict[str, bool | str] = {"flush-interval": True, "no-drain": False, "pattern": True}
AIO = ("native", "threads", "io_uring")
MAX_NUMBER = (1 << 31) - 1


class Plan(NamedTuple):
    """What is sent: sizes, offsets and steps in bytes."""

    requests: int
    depth: int
    """Requests in flight."""
    offset: int
    size: int
    step: int
    interval: int
    """A flush after so many requests; 0: none."""
    drain: bool
    """Before a flush all requests are waited for."""
    pattern: int
    writing: bool


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "c:d:f:ni:o:qs:S:t:wU", LONG, without="object")
    count = _number(given.value("c"), 75000, "request count")
    depth = _number(given.value("d"), 64, "queue depth")
    if given.value("i") not in (None, *AIO):
        raise Failure(f"Invalid aio option: {given.value('i')}")
    offset = size_argument("offset", given.value("o") or "0")
    size = size_argument("buffer size", given.value("s") or "4096", 0, MAX_NUMBER)
    step = size_argument("step_size", given.value("S") or "0", 0, MAX_SIZE)
    cache = given.value("t") or "writeback"
    if cache not in ("writeback", "writethrough", "none", "off", "directsync", "unsafe"):
        raise Failure("Invalid cache mode")
    interval = _number(given.value("flush-interval"), 0, "flush interval")
    pattern = _number(given.value("pattern"), 0, "pattern byte", 255)
    name = given.one_name()
    writing = given.has("w")
    if interval and not writing:
        raise Failure("--flush-interval is only available in write tests")
    if interval and interval < depth:
        raise Failure("Flush interval can't be smaller than depth")
    if depth == 0 and count:
        raise Failure("Invalid queue depth specified")

    from e2kdisk.tools.img.opening import Session

    if (given.value("i") == "native" or given.has("n")) and cache not in ("none", "off", "directsync"):
        what = "aio=native was specified, but it requires cache.direct=on, which was not specified."
        raise Failure(f"Could not open '{name}': {what}")
    session = Session(given)
    image = session.open_given(name, given, writable=writing, cache="none" if cache == "off" else cache)
    plan = Plan(count, depth, offset, size, step or size, interval, not given.has("no-drain"), pattern, writing)
    kind = "write" if writing else "read"
    print(
        f"Sending {count} {kind} requests, {size} bytes each, {depth} in parallel "
        f"(starting at offset {offset}, step size {plan.step})"
    )
    if interval:
        print(f"Sending flush every {interval} requests")
    with session.closing(image):
        begin = time.perf_counter()
        try:
            session.run(Bench(image, plan).run())
        except OSError as error:
            raise Failure(f"Failed request: {error.strerror}") from None
        seconds = time.perf_counter() - begin
    print(f"Run completed in {seconds:3.3f} seconds.")
    return 0


class Bench:
    """Keeps requests in flight until all have been sent and answered."""

    def __init__(self, image: Image, plan: Plan) -> None:
        self._node = image.node
        self._end = image.size
        self._plan = plan
        self._offset = plan.offset
        self._left = plan.requests if plan.size else 0
        """Requests that have not been sent."""
        self._in_flight = 0
        self._flushes = 0
        self._draining = False
        """Nothing is sent until all is answered and flushed."""
        self._filling = False
        self._error: BaseException | None = None
        self._answered = WaitQueue(image.node.scheduler)
        # Each request in flight has a buffer of its own, as a guest's would.
        fill = bytes([plan.pattern]) * plan.size
        self._buffers = [memoryview(bytearray(fill)) for _ in range(min(plan.depth, max(plan.requests, 1)))]

    async def run(self) -> None:
        """Send them all. Raises the first error, when the others have ended."""
        self._fill()
        while self._in_flight or self._flushes or self._draining:
            if self._draining and not self._in_flight:
                await self._node.flush()
                self._draining = False
                self._fill()
            else:
                await self._answered.wait()
        if self._error is not None:
            raise self._error

    def _fill(self) -> None:
        """Send what may be sent now; a request that is answered on the spot does not come here once more."""
        if self._filling:
            return
        self._filling = True
        while self._left and not self._draining and self._buffers and self._error is None:
            self._send()
        self._filling = False

    def _send(self) -> None:
        plan, offset = self._plan, self._offset
        self._offset = (offset + plan.step) % (self._end - plan.size) if self._end > plan.size else 0
        if offset + plan.size > self._end:
            self._error = OSError(errno.EIO, os.strerror(errno.EIO))
            return
        self._left -= 1
        self._in_flight += 1
        buffer = self._buffers.pop()
        operation = self._node.write if plan.writing else self._node.read

        def then(_: None, error: BaseException | None) -> None:
            self._in_flight -= 1
            self._buffers.append(buffer)
            self._error = self._error or error
            self._flush_if_due()
            self._fill()
            self._answered.wake_all()

        self._node.scheduler.start(operation(offset, [buffer]), then)

    def _flush_if_due(self) -> None:
        """A flush after each so many requests: when all before it are answered, or at once."""
        if not self._plan.interval or self._left % self._plan.interval or self._error is not None:
            return
        if self._plan.drain:
            self._draining = True
            return

        def then(_: None, error: BaseException | None) -> None:
            self._flushes -= 1
            self._error = self._error or error
            self._answered.wake_all()

        self._flushes += 1
        self._node.scheduler.start(self._node.flush(), then)


def _number(text: str | None, default: int, what: str, most: int = MAX_NUMBER) -> int:
    if text is None:
        return default
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise Failure(f"Invalid {what} specified")
    return number
