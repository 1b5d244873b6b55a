"""Scatter lists: pieces of guest memory in the order in which data flows through them."""

from __future__ import annotations

from collections.abc import Callable

Segment = tuple[int, int]
"""Guest-physical address and length, both in bytes."""


def split(segments: list[Segment], at: int) -> tuple[list[Segment], list[Segment]]:
    """The first `at` bytes and the rest; a segment that spans the place becomes two."""
    for index, (address, length) in enumerate(segments):
        if at < length:
            if at == 0:
                return segments[:index], segments[index:]
            rest = (address + at, length - at)
            return [*segments[:index], (address, at)], [rest, *segments[index + 1 :]]
        at -= length
    return segments, []


def map_all(mapper: Callable[[int, int], memoryview | None], segments: list[Segment]) -> list[memoryview] | int:
    """The views that `mapper` (GuestMemory.source or target) gives; else the first address that is not RAM."""
    views: list[memoryview] = []
    for address, length in segments:
        view = mapper(address, length)
        if view is None:
            return address
        views.append(view)
    return views
