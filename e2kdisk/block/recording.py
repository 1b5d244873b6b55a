"""Recording: what was written to a file, in order, and every content that a crash could have left.

    epoch 0          flush 1 starts    ends        epoch 1            flush 2 ...
    ----w1=====w1-------------F1===========F1--------w4===w4----------
          w2=====================w2                                     ===  in flight
                w3==w3

A write is durable by the first successful flush that started after the write had completed: w1 and w3 by flush 1,
w2 (in flight when it started) only by flush 2. A crash in epoch 1, which lasts until flush 2 has ended, leaves
w1 and w3, and of w2 and w4 anything: none, one, both, or some sectors of one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import combinations

SECTOR_BYTES = 512


class Kind(IntEnum):
    """What a change does; the numbers stand in saved recordings."""

    WRITE = 1
    ZEROES = 2
    DISCARD = 3
    TRUNCATE = 4


class Outcome(IntEnum):
    """How a change ended; the numbers stand in saved recordings."""

    DONE = 1
    FAILED = 2
    IN_FLIGHT = 3


@dataclass(slots=True)
class Change:
    """One change of the file."""

    kind: Kind
    offset: int
    """Bytes; of a truncate, the new size."""
    length: int
    """Bytes; 0 for a truncate."""
    data: bytes
    """Of a write, else empty."""
    issued: int
    """How many flushes had succeeded when it started."""
    durable: int | None = None
    """The flush (counted from 1) that made it durable."""
    outcome: Outcome = Outcome.IN_FLIGHT

    def pieces(self, unit: int) -> list[int]:
        """Offsets inside the change where it may tear: the boundaries of file sectors of `unit` bytes."""
        if self.kind not in (Kind.WRITE, Kind.ZEROES):
            return []
        return list(range(unit - self.offset % unit, self.length, unit))

    def apply(self, content: bytearray, first: int = 0, end: int | None = None) -> None:
        """Change the content, or only the bytes first..end of this change."""
        end = self.length if end is None else end
        if self.kind is Kind.TRUNCATE:
            _resize(content, self.offset)
            return
        start, stop = self.offset + first, self.offset + end
        if self.kind is Kind.DISCARD:
            stop = min(stop, len(content))  # a discard does not extend a file
        elif stop > len(content):
            _resize(content, stop)
        if stop > start:
            content[start:stop] = self.data[first:end] if self.kind is Kind.WRITE else bytes(stop - start)


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


Piece = tuple[int, int, int]
"""(number of the change, first byte, end byte) of what reached the disk; whole changes are (n, 0, length)."""


@dataclass(slots=True)
class CrashState:
    """A content that a crash may leave, and how it came about."""

    epoch: int
    """The flushes that had succeeded; everything that they cover is there."""
    pieces: tuple[Piece, ...]
    """What else is there; Recording.rebuild makes the same content again from these two."""
    content: bytearray

    def __str__(self) -> str:
        pieces = ", ".join(f"{number}[{first}:{end}]" for number, first, end in self.pieces) or "nothing"
        return f"after flush {self.epoch}, with {pieces} of what came later"


@dataclass(slots=True)
class Recording:
    """The changes of one file in the order of completion, those without an end last."""

    initial: bytes
    changes: list[Change]
    epochs: int
    """Flushes that succeeded."""
    marks: list[tuple[int, int, str]] = field(default_factory=list)
    """(epoch, number of completed changes, text) of moments that the test named."""

    # -- what is certain ---------------------------------------------------------------------------

    def content(self) -> bytearray:
        """The file when nothing is lost: all completed changes."""
        content = bytearray(self.initial)
        for change in self.changes:
            if change.outcome is Outcome.DONE:
                change.apply(content)
        return content

    def durable_content(self, epoch: int) -> bytearray:
        """What is certainly there after flush number `epoch` (0: the initial content)."""
        return self.rebuild(epoch, ())

    def optional(self, epoch: int) -> list[int]:
        """Numbers of the changes that a crash in this epoch may leave or lose."""
        return [
            number
            for number, change in enumerate(self.changes)
            if change.issued <= epoch and (change.durable is None or change.durable > epoch)
        ]

    def rebuild(self, epoch: int, pieces: Sequence[Piece]) -> bytearray:
        """The content after flush number `epoch` with these pieces of later changes."""
        chosen: dict[int, list[Piece]] = {}
        for piece in pieces:
            chosen.setdefault(piece[0], []).append(piece)
        content = bytearray(self.initial)
        for number, change in enumerate(self.changes):
            if change.durable is not None and change.durable <= epoch:
                change.apply(content)
            for _, first, end in chosen.get(number, ()):
                change.apply(content, first, end)
        return content

    # -- what a crash may leave --------------------------------------------------------------------

    def snapshots_after(
        self, epoch: int, *, bound: int = 1000, seed: int = 0, units: Sequence[int] = (SECTOR_BYTES, 4096)
    ) -> Iterator[CrashState]:
        """Contents that a crash between flush `epoch` and the end of the next one may leave, each choice once.

        Every prefix (in order of completion) always; then, as far as `bound` goes, half and half: subsets (all of
        them where they fit, else each change alone, each change missing, and random ones) and torn changes (cut at
        multiples of `units` bytes of the file). The same arguments give the same states in the same order.
        """
        optional = self.optional(epoch)
        base = self.rebuild(epoch, ())
        certain = sum(1 for change in self.changes if change.durable is not None and change.durable <= epoch)
        # A failed change may lie before certain ones in the order of completion; then only a rebuild is right.
        in_order = not optional or optional[0] >= certain
        seen: set[tuple[Piece, ...]] = set()
        for pieces in self._choices(optional, bound, random.Random(f"{seed}/{epoch}"), units):
            if pieces in seen:
                continue
            seen.add(pieces)
            if in_order:
                content = bytearray(base)
                for number, first, end in pieces:
                    self.changes[number].apply(content, first, end)
            else:
                content = self.rebuild(epoch, pieces)
            yield CrashState(epoch, pieces, content)

    def snapshots(
        self, *, bound: int = 1000, seed: int = 0, units: Sequence[int] = (SECTOR_BYTES, 4096)
    ) -> Iterator[CrashState]:
        """The states of every epoch, at most about `bound` for each besides the prefixes."""
        for epoch in range(self.epochs + 1):
            yield from self.snapshots_after(epoch, bound=bound, seed=seed, units=units)

    def _whole(self, number: int) -> Piece:
        return number, 0, self.changes[number].length

    def _choices(
        self, optional: list[int], bound: int, dice: random.Random, units: Sequence[int]
    ) -> Iterator[tuple[Piece, ...]]:
        whole = [self._whole(number) for number in optional]
        for count in range(len(whole) + 1):
            yield tuple(whole[:count])
        left = bound - len(whole) - 1
        if left <= 0 or not whole:
            return
        yield from self._subsets(whole, left // 2, dice)
        yield from self._torn(whole, left - left // 2, dice, units)

    def _subsets(self, whole: list[Piece], count: int, dice: random.Random) -> Iterator[tuple[Piece, ...]]:
        if len(whole) < 30 and 1 << len(whole) <= count:
            for size in range(len(whole) + 1):
                yield from combinations(whole, size)
            return
        simple = [(piece,) for piece in whole] + [(*whole[:at], *whole[at + 1 :]) for at in range(len(whole))]
        if len(simple) > count:
            simple = dice.sample(simple, count)
        yield from simple
        for _ in range(count - len(simple)):
            # Most of them lost, half, or most of them there: each meets other mistakes.
            chance = dice.choice((0.1, 0.5, 0.9))
            yield tuple(piece for piece in whole if dice.random() < chance)

    def _torn(
        self, whole: list[Piece], count: int, dice: random.Random, units: Sequence[int]
    ) -> Iterator[tuple[Piece, ...]]:
        cuts = [(at, cut) for at, (number, _, _) in enumerate(whole) for cut in self._cuts(number, units)]
        if not cuts:
            return
        # The last change of a prefix loses its tail: the plainest power cut there is.
        plain = cuts if len(cuts) <= count // 2 else dice.sample(cuts, count // 2)
        for at, cut in sorted(plain):
            yield (*whole[:at], (whole[at][0], 0, cut))
        for _ in range(count - len(plain)):
            at, cut = dice.choice(cuts)
            number, _, end = whole[at]
            half = (number, 0, cut) if dice.random() < 0.5 else (number, cut, end)
            before = [piece for piece in whole[:at] if dice.random() < 0.75]
            after = [piece for piece in whole[at + 1 :] if dice.random() < 0.25]
            yield (*before, half, *after)

    def _cuts(self, number: int, units: Sequence[int]) -> list[int]:
        return sorted({cut for unit in units for cut in self.changes[number].pieces(unit)})
