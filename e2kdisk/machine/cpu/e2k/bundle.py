"""A wide instruction as syllables: which 32-bit words a bundle holds and where they lie.

    HS | SS | ALS0..5 | CS0 | ALES5,ALES2 | CS1 | ALES0,1,3,4 as halves | gap ... LTS1, LTS0, PLS1, PLS0, CDS1, CDS0

The part after the gap is read from the end backwards. What the words mean is decode.py's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

CHANNELS = 6
MAX_BYTES = 64
Words = tuple[int | None, ...]
NO_WORDS: Words = (None,) * CHANNELS

HS_SS, HS_CS0, HS_CS1 = 1 << 12, 1 << 14, 1 << 15
HS_UNKNOWN = 1 << 10 | 1 << 11 | 1 << 13
HALF_ORDER = (0, 1, 3, 4)
"""Channels whose ALES are half-words of their own part; those of 2 and 5 share a word before it."""


@dataclass(frozen=True)
class Bundle:
    """The syllables of one wide instruction; None is "not there"."""

    als: Words = NO_WORDS
    ales: Words = NO_WORDS
    """Half-words: opc2 << 8 | src3."""
    ss: int | None = None
    cs0: int | None = None
    cs1: int | None = None
    lts: tuple[int, ...] = field(default=())
    """Literals from LTS0 up, with the padding that follows them in memory order: it can be read as literals too."""
    pls: tuple[int, ...] = field(default=())
    cds: tuple[int, ...] = field(default=())
    nop: int = 0
    """Cycles to wait before the next bundle, 0..7."""

    @property
    def length(self) -> int:
        """Bytes it takes."""
        words = self._fixed() + (self._halves() + 1) // 2 + len(self.lts) + len(self.pls) + len(self.cds)
        return (words + 1) // 2 * 8

    def _fixed(self) -> int:
        """Words before the half-word part."""
        single = sum(word is not None for word in (self.ss, self.cs0, self.cs1, *self.als))
        return 1 + single + (self.ales[2] is not None or self.ales[5] is not None)

    def _halves(self) -> int:
        return sum(self.ales[channel] is not None for channel in HALF_ORDER)

    def padded(self) -> Bundle:
        """The same with the word of padding that its length needs, as unpack() would show it."""
        words = self._fixed() + (self._halves() + 1) // 2 + len(self.lts) + len(self.pls) + len(self.cds)
        if words % 2 == 0:
            return self
        return Bundle(self.als, self.ales, self.ss, self.cs0, self.cs1, (*self.lts, 0), self.pls, self.cds, self.nop)


def length_of(header: int) -> int:
    """Bytes of the bundle that begins with this header syllable."""
    return ((header >> 4 & 7) + 1) * 8


def pack(bundle: Bundle) -> bytes:
    """The bytes of a bundle; raises ValueError for one that is too long."""
    bundle = bundle.padded()
    if bundle.length > MAX_BYTES or len(bundle.pls) > 3 or len(bundle.cds) > 3:
        raise ValueError(f"a wide instruction of {bundle.length} bytes: at most {MAX_BYTES} fit")
    header = bundle._fixed() - 1 | (bundle.length // 8 - 1) << 4 | bundle.nop << 7
    header |= len(bundle.cds) << 16 | len(bundle.pls) << 18
    body = []
    for word, bit in ((bundle.ss, HS_SS), (bundle.cs0, HS_CS0), (bundle.cs1, HS_CS1)):
        header |= bit if word is not None else 0
    for channel in range(CHANNELS):
        header |= (bundle.ales[channel] is not None) << 20 + channel
        header |= (bundle.als[channel] is not None) << 26 + channel
    ales2, ales5 = bundle.ales[2], bundle.ales[5]
    shared = None if ales2 is None and ales5 is None else (ales2 or 0) << 16 | (ales5 or 0)
    body = [header, bundle.ss, *bundle.als, bundle.cs0, shared, bundle.cs1]
    halves = [half for channel in HALF_ORDER if (half := bundle.ales[channel]) is not None]
    halves += [0] * (len(halves) % 2)
    body += [first << 16 | second for first, second in zip(halves[::2], halves[1::2], strict=True)]
    body += [*reversed(bundle.lts), *reversed(bundle.pls), *reversed(bundle.cds)]
    words = [word for word in body if word is not None]
    return struct.pack(f"<{len(words)}I", *words)


class _Reader:
    """Takes words from both ends of a bundle."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self.words = words
        self.at = 0
        self.end = len(words)

    def take(self, wanted: int = 1) -> int | None:
        if not wanted:
            return None
        if self.at >= self.end:
            raise GuestTrap(Trap.ILLEGAL, "bundle too short for its syllables")
        self.at += 1
        return self.words[self.at - 1]

    def take_back(self, count: int) -> tuple[int, ...]:
        if self.end - count < self.at:
            raise GuestTrap(Trap.ILLEGAL, "bundle too short for its syllables")
        self.end -= count
        return tuple(reversed(self.words[self.end : self.end + count]))


def unpack(code: bytes) -> Bundle:
    """The syllables of the bundle at the start of `code`; raises GuestTrap for a layout that cannot be."""
    header = int.from_bytes(code[:4], "little")
    length = length_of(header)
    if len(code) < max(length, 8):
        raise GuestTrap(Trap.ILLEGAL, "bundle cut off")
    if header & HS_UNKNOWN:
        raise GuestTrap(Trap.UNSUPPORTED, f"header bits {header & HS_UNKNOWN:#x}")
    reader = _Reader(struct.unpack_from(f"<{length // 4}I", code))
    reader.take()
    ss = reader.take(header & HS_SS)
    als = tuple(reader.take(header >> 26 + channel & 1) for channel in range(CHANNELS))
    cs0 = reader.take(header & HS_CS0)
    wanted = [header >> 20 + channel & 1 for channel in range(CHANNELS)]
    shared = reader.take(wanted[2] | wanted[5])
    cs1 = reader.take(header & HS_CS1)
    if reader.at != (header & 15) + 1:
        raise GuestTrap(Trap.ILLEGAL, f"header counts {(header & 15) + 1} words, the syllables are {reader.at}")
    ales: list[int | None] = [None] * CHANNELS
    if shared is not None:
        ales[2] = shared >> 16 if wanted[2] else None
        ales[5] = shared & 0xFFFF if wanted[5] else None
    channels = [channel for channel in HALF_ORDER if wanted[channel]]
    for index in range(0, len(channels), 2):
        pair = reader.take() or 0
        ales[channels[index]] = pair >> 16
        if index + 1 < len(channels):
            ales[channels[index + 1]] = pair & 0xFFFF
    cds = reader.take_back(header >> 16 & 3)
    pls = reader.take_back(header >> 18 & 3)
    lts = reader.take_back(reader.end - reader.at)
    return Bundle(als, tuple(ales), ss, cs0, cs1, lts, pls, cds, header >> 7 & 7)
