"""The commands that read: read, readv, aio_read."""

from __future__ import annotations

import time

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.io import requests
from e2kdisk.tools.io.command import Command, Options, pattern, sector_aligned, size
from e2kdisk.tools.io.messages import explains, request_error
from e2kdisk.tools.io.session import CommandFailed, Session, UsageMistake
from e2kdisk.tools.io.values import MAX_REQUEST, ValueProblem, dump, report


def read(session: Session, command: Command, words: list[str]) -> None:
    """Read [-bCqv] [-P pattern [-s off] [-l len]] off len; -a, which the usage has too, is not taken by qemu-io."""
    options, rest = command.options(session, words, "bCl:pP:qs:v")
    check_length = size(session, options["l"]) if "l" in options else 0
    wanted = pattern(options, 0)
    check_start = size(session, options["s"]) if "s" in options else 0
    if len(rest) != 2:
        raise UsageMistake
    offset, length = size(session, rest[0]), size(session, rest[1])
    if length > MAX_REQUEST:
        raise ValueProblem(f"length cannot exceed {MAX_REQUEST}, given {rest[1]}")
    if "P" not in options and ("l" in options or "s" in options):
        raise UsageMistake
    if "l" not in options:
        check_length = length - check_start
    if check_length < 0 or check_length + check_start > length:
        raise ValueProblem("pattern verification range exceeds end of read data")
    if "b" in options:
        sector_aligned(offset, "offset")
        sector_aligned(length, "count")
    image = session.need_image()
    begun = time.perf_counter()
    try:
        data = requests.buffer(length, misaligned=session.misaligned, fill=requests.UNREAD)
        if "b" in options:
            session.wait(requests.read_state(image, offset, [data]))
        else:
            session.wait(requests.read(image, offset, [data], length))
    except (OSError, E2kDiskError) as error:
        raise failed(session, "read", error) from None
    seconds = time.perf_counter() - begun
    wrong = None
    if "P" in options and _differs(data[check_start : check_start + check_length], wanted):
        wrong = f"Pattern verification failed at offset {offset + check_start}, {check_length} bytes"
        session.say(wrong)
    _print(session, options, data, offset, length, seconds)
    if wrong:
        raise CommandFailed


def readv(session: Session, command: Command, words: list[str]) -> None:
    """Read [-Cqv] [-P pattern] off len [len..]."""
    options, rest = command.options(session, words, "CP:qv")
    wanted = pattern(options, 0)
    if not rest:
        raise UsageMistake
    offset = size(session, rest[0])
    lengths = vector(session, rest[1:])
    image = session.need_image()
    begun = time.perf_counter()
    total = sum(lengths)
    try:
        data = requests.buffer(total, misaligned=session.misaligned, fill=requests.UNREAD)
        session.wait(requests.read(image, offset, pieces(data, lengths), total))
    except (OSError, E2kDiskError) as error:
        raise failed(session, "readv", error) from None
    seconds = time.perf_counter() - begun
    wrong = "P" in options and _differs(data, wanted)
    if wrong:
        session.say(f"Pattern verification failed at offset {offset}, {total} bytes")
    _print(session, options, data, offset, total, seconds)
    if wrong:
        raise CommandFailed


def aio_read(session: Session, command: Command, words: list[str]) -> None:
    """Read [-Ciqv] [-P pattern] off len [len..], in the background."""
    options, rest = command.options(session, words, "CiP:qv")
    wanted = pattern(options, 0)
    if "i" in options:
        session.say("injecting invalid read request")
        return
    if not rest:
        raise UsageMistake
    offset = size(session, rest[0])
    lengths = vector(session, rest[1:])
    total = sum(lengths)
    image = session.need_image()
    data = requests.buffer(total, misaligned=session.misaligned, fill=requests.UNREAD)

    def ended(error: BaseException | None, seconds: float) -> str:
        if isinstance(error, Exception):
            return f"readv failed: {request_error(error)}"
        lines = []
        if "P" in options and _differs(data, wanted):
            lines.append(f"Pattern verification failed at offset {offset}, {total} bytes")
        if "q" not in options:
            if "v" in options and total:
                lines.append(dump(bytes(data), offset))
            lines.append(report("read", offset, total, seconds, machine="C" in options))
        return "\n".join(lines)

    session.start(requests.read(image, offset, pieces(data, lengths), total), ended)


def vector(session: Session, words: list[str]) -> list[int]:
    """The lengths of a request with several buffers. Raises ValueProblem."""
    lengths: list[int] = []
    for word in words:
        length = size(session, word)
        if length > MAX_REQUEST:
            raise ValueProblem(f"Argument '{word}' exceeds maximum size {MAX_REQUEST}")
        if sum(lengths) > MAX_REQUEST - length:
            raise ValueProblem(f"The total number of bytes exceed the maximum size {MAX_REQUEST}")
        lengths.append(length)
    return lengths


def pieces(data: memoryview, lengths: list[int]) -> list[memoryview]:
    """Views of a buffer, one after the other."""
    views = []
    start = 0
    for length in lengths:
        views.append(data[start : start + length])
        start += length
    return [view for view in views if view.nbytes] or [data]


def failed(session: Session, what: str, error: Exception) -> CommandFailed:
    """The failure of a request; what an image says beyond an errno is said too."""
    more = explains(error)
    if more is not None:
        session.mistake(more)
    return CommandFailed(f"{what} failed: {request_error(error)}")


def _print(session: Session, options: Options, data: memoryview, offset: int, length: int, seconds: float) -> None:
    if "q" in options:
        return
    if "v" in options and length:
        session.say(dump(bytes(data), offset))
    session.say(report("read", offset, length, seconds, machine="C" in options))


def _differs(data: memoryview, wanted: int) -> bool:
    return bytes(data).count(wanted) != data.nbytes
