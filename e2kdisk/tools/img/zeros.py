"""Find the zeros in a buffer: where a copy leaves holes."""

from __future__ import annotations

from collections.abc import Iterator

LARGE_STEP = 64 << 10
"""A long run of zeros is walked in steps of this many bytes."""

_ZEROS = bytes(LARGE_STEP)


def pieces(buffer: bytearray, length: int, grain: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the first bytes of a buffer into runs of (start, length, zeros?), in steps of grain bytes.

    The first eight bytes of each step tell for nearly all data; only where they are zero is more looked at. grain is
    a multiple of 8.
    """
    start = 0
    for zeros, end in _zero_runs(buffer, length, grain):
        if start < zeros:
            yield start, zeros - start, False
        yield zeros, end - zeros, True
        start = end
    if start < length:
        yield start, length - start, False


def _zero_runs(buffer: bytearray, length: int, grain: int) -> Iterator[tuple[int, int]]:
    """Runs of whole steps that are zeros, as (start, end)."""
    end = 0
    for at in _candidates(buffer, length, grain):
        if at < end:
            continue
        stop = zeros_until(buffer, at, length, grain)
        if stop > at:
            yield at, stop
            end = stop


def _candidates(buffer: bytearray, length: int, grain: int) -> Iterator[int]:
    """The offsets of the steps whose first eight bytes are zeros, and of a last step that is shorter than that."""
    whole = length & -8
    firsts = memoryview(buffer)[:whole].cast("Q")[:: grain // 8].tolist()
    if 0 in firsts:
        for number, first in enumerate(firsts):
            if not first:
                yield number * grain
    if whole < length and whole % grain == 0:
        yield whole


def zeros_until(buffer: bytearray, start: int, end: int, grain: int) -> int:
    """Where the zeros that begin at start end, in steps of grain from start; not after end."""
    # startswith compares in place; a slice would be copied first, and views compare byte by byte.
    at = start
    step = max(LARGE_STEP // grain, 1) * grain
    zeros = _ZEROS if step <= LARGE_STEP else bytes(step)
    for size in (step, grain):
        part = zeros[:size]
        while at + size <= end and buffer.startswith(part, at):
            at += size
    if end - at < grain and buffer.startswith(zeros[: end - at], at):
        return end
    return at
