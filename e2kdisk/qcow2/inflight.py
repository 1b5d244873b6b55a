"""Guest data on its way to or from clusters of the file: space there must not be given to anybody else yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """Host byte ranges that a data transfer is using right now.

    A discard may unmap a cluster while an older read or write of it still runs on a thread. The cluster stays
    allocated until that transfer has ended; otherwise it could land in what became somebody else's cluster.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def enter(self, start: int, length: int) -> tuple[int, int]:
        """Note a transfer; give the result to leave()."""
        item = (start, start + length)
        self._ranges.append(item)
        return item

    def leave(self, item: tuple[int, int]) -> None:
        """The transfer has ended."""
        self._ranges.remove(item)

    @contextmanager
    def using(self, start: int, length: int) -> Iterator[None]:
        """Note a transfer for the length of a block."""
        item = self.enter(start, length)
        try:
            yield
        finally:
            self.leave(item)

    def overlaps(self, start: int, length: int) -> bool:
        """True if a transfer touches these bytes."""
        end = start + length
        return any(first < end and start < last for first, last in self._ranges)
