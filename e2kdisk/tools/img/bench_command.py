"""bench: send the same kind of request many times."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.sizes import MAX_SIZE, size_argument

LONG: dict[str, bool | str] = {"flush-interval": True, "no-drain": False, "pattern": True}
AIO = ("native", "threads", "io_uring")
MAX_NUMBER = (1 << 31) - 1


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "c:d:f:ni:o:qs:S:t:wU", LONG)
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
    if depth == 0:
        raise Failure("Invalid queue depth specified")

    from e2kdisk.tools.img.opening import Session

    session = Session(given)
    image = session.open_given(name, given, writable=writing, cache="none" if cache == "off" else cache)
    step = step or size
    kind = "write" if writing else "read"
    print(
        f"Sending {count} {kind} requests, {size} bytes each, {depth} in parallel "
        f"(starting at offset {offset}, step size {step})"
    )
    if interval:
        drain = "" if not given.has("no-drain") else "out draining"
        print(f"Sending flush every {interval} requests{' with' + drain if drain else ''}")
    try:
        begin = time.perf_counter()
        session.run(_bench(image, count, depth, offset, size, step, interval, bytes([pattern]), writing=writing))
        seconds = time.perf_counter() - begin
    except OSError as error:
        raise Failure(f"Failed request: {error.strerror}") from None
    finally:
        session.close(image)
    print(f"Run completed in {seconds:3.3f} seconds.")
    return 0


async def _bench(
    image: Any,
    count: int,
    depth: int,
    offset: int,
    size: int,
    step: int,
    interval: int,
    pattern: bytes,
    *,
    writing: bool,
) -> None:
    from e2kdisk.aio.gather import gather

    node, end = image.node, image.size
    buffers = [memoryview(bytearray(pattern * size)) for _ in range(min(depth, max(count, 1)))]
    operation = node.write if writing else node.read
    sent = 0
    while sent < count and size:
        work: list[Coroutine[Any, Any, None]] = []
        while sent < count and len(work) < len(buffers):
            if end <= size:
                offset = 0
            elif offset + size > end:
                offset %= end - size
            work.append(operation(offset, [buffers[len(work)]]))
            offset += step
            sent += 1
            if interval and sent % interval == 0:
                break
        await gather(node.scheduler, work)
        if interval and sent % interval == 0:
            await node.flush()


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
