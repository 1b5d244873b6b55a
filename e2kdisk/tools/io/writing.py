"""The commands that write: write, writev, aio_write, discard."""

from __future__ import annotations

import time
from collections.abc import Coroutine

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.io import requests
from e2kdisk.tools.io.command import Command, Options, pattern, sector_aligned, size
from e2kdisk.tools.io.image import Image
from e2kdisk.tools.io.messages import request_error
from e2kdisk.tools.io.reading import failed, pieces, vector
from e2kdisk.tools.io.session import Complaint, Session, UsageMistake
from e2kdisk.tools.io.values import MAX_REQUEST, ValueProblem, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATTERN = 0xCD


def write(session: Session, command: Command, words: list[str]) -> None:
    """Write [-bcCfnquz] [-P pattern | -s source_file] off len."""
    options, rest = command.options(session, words, "bcCfnpP:qs:uz")
    value = pattern(options, DEFAULT_PATTERN)
    if len(rest) != 2:
        raise UsageMistake
    _check_together(options)
    offset, length = size(session, rest[0]), size(session, rest[1])
    if length > MAX_REQUEST and "n" not in options:
        raise ValueProblem(f"length cannot exceed {MAX_REQUEST} without -n, given {rest[1]}")
    if "b" in options or "c" in options:
        sector_aligned(offset, "offset")
        sector_aligned(length, "length")
    image = session.need_image()
    fill = bytes([value])
    if "s" in options:
        fill = _file_contents(options["s"])
    begun = time.perf_counter()
    try:
        session.wait(_write(session, image, options, offset, length, fill))
    except (OSError, E2kDiskError) as error:
        raise failed(session, "write", error) from None
    if "q" not in options:
        session.say(report("wrote", offset, length, time.perf_counter() - begun, machine="C" in options))


def _check_together(options: Options) -> None:
    if "b" in options and "z" in options:
        raise ValueProblem("-b and -z cannot be specified at the same time")
    if "f" in options and ("b" in options or "c" in options):
        raise ValueProblem("-f and -b or -c cannot be specified at the same time")
    for letter in "nu":
        if letter in options and "z" not in options:
            raise ValueProblem(f"-{letter} requires -z to be specified")
    if sum(letter in options for letter in "zPs") > 1:
        raise ValueProblem("Only one of -z, -P, and -s can be specified at the same time")


def _write(
    session: Session, image: Image, options: Options, offset: int, length: int, fill: bytes
) -> Coroutine[Any, Any, None]:
    if "z" in options:
        return requests.write_zeroes(image, offset, length, unmap="u" in options, fua="f" in options)
    data = [_filled(session, length, fill)]
    if "b" in options:
        return requests.write_state(image, offset, data)
    if "c" in options:
        return requests.write_compressed(image, offset, data, length)
    return requests.write(image, offset, data, length, fua="f" in options)


def _filled(session: Session, length: int, fill: bytes) -> memoryview:
    if len(fill) == 1:
        return requests.buffer(length, misaligned=session.misaligned, fill=fill)
    return memoryview((fill * -(-length // len(fill)))[:length])


def _file_contents(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            data = file.read(MAX_REQUEST)
    except OSError as error:
        raise Complaint(f"{name}: {error.strerror}") from None
    if not data:
        raise Complaint(f"{name}: file is empty")
    return data


def writev(session: Session, command: Command, words: list[str]) -> None:
    """Write [-Cfq] [-P pattern] off len [len..]."""
    options, rest = command.options(session, words, "CfqP:")
    value = pattern(options, DEFAULT_PATTERN)
    if not rest:
        raise UsageMistake
    offset = size(session, rest[0])
    lengths = vector(session, rest[1:])
    total = sum(lengths)
    image = session.need_image()
    begun = time.perf_counter()
    try:
        data = _filled(session, total, bytes([value]))
        session.wait(requests.write(image, offset, pieces(data, lengths), total, fua="f" in options))
    except (OSError, E2kDiskError) as error:
        raise failed(session, "writev", error) from None
    if "q" not in options:
        session.say(report("wrote", offset, total, time.perf_counter() - begun, machine="C" in options))


def aio_write(session: Session, command: Command, words: list[str]) -> None:
    """Write [-Cfiquz] [-P pattern] off len [len..], in the background."""
    options, rest = command.options(session, words, "CfiP:quz")
    value = pattern(options, DEFAULT_PATTERN)
    if "i" in options:
        session.say("injecting invalid write request")
        return
    if not rest:
        raise UsageMistake
    if "z" in options and len(rest) != 2:
        raise ValueProblem("-z supports only a single length parameter")
    if "u" in options and "z" not in options:
        raise ValueProblem("-u requires -z to be specified")
    offset = size(session, rest[0])
    image = session.need_image()
    fua = "f" in options
    if "z" in options:
        total = size(session, rest[1])
        request = requests.write_zeroes(image, offset, total, unmap="u" in options, fua=fua)
    else:
        lengths = vector(session, rest[1:])
        total = sum(lengths)
        data = _filled(session, total, bytes([value]))
        request = requests.write(image, offset, pieces(data, lengths), total, fua=fua)

    def ended(error: BaseException | None, seconds: float) -> str:
        if isinstance(error, Exception):
            return f"aio_write failed: {request_error(error)}"
        return "" if "q" in options else report("wrote", offset, total, seconds, machine="C" in options)

    session.start(request, ended)


def discard(session: Session, command: Command, words: list[str]) -> None:
    """Discard [-Cq] off len."""
    options, rest = command.options(session, words, "Cq")
    if len(rest) != 2:
        raise UsageMistake
    offset, length = size(session, rest[0]), size(session, rest[1])
    if length > MAX_REQUEST:
        raise ValueProblem(f"length cannot exceed {MAX_REQUEST}, given {rest[1]}")
    image = session.need_image()
    begun = time.perf_counter()
    try:
        session.wait(requests.discard(image, offset, length))
    except (OSError, E2kDiskError) as error:
        raise failed(session, "discard", error) from None
    if "q" not in options:
        session.say(report("discard", offset, length, time.perf_counter() - begun, machine="C" in options))
