"""What the guest programs write and how they are told what to do: the host's side of firmware/guest/."""

import struct
from functools import lru_cache

SECTOR_SIZE = 512
MASK = (1 << 64) - 1


def sector_pattern(sector: int, round: int, seed: int) -> bytes:
    """The 512 bytes of one sector; sector of 64 bits, round and seed of 32."""
    tag = pattern_tag(round, seed)
    x = _mix(_start(tag) ^ sector)
    words = [sector, tag]
    for _ in range(62):
        words.append(x)
        x = (x * 0x5851F42D4C957F2D + 0x14057B7EF767814F) & MASK
    return struct.pack("<64Q", *words)


def area_pattern(first: int, sectors: int, round: int, seed: int) -> bytes:
    return b"".join(sector_pattern(sector, round, seed) for sector in range(first, first + sectors))


def sector_round(data: bytes) -> int:
    """The round that one sector (512 bytes) claims to come from; compare with sector_pattern to believe it."""
    round: int = struct.unpack_from("<I", data, 8)[0]
    return round


def options_sector(**options: int | str) -> bytes:
    """Sector 0 for a guest: options_sector(mode="write", rounds=3)."""
    line = "".join(f" {name}={value}" for name, value in options.items())
    return f"e2kdisk-guest{line}".encode("ascii").ljust(SECTOR_SIZE, b"\0")


def pattern_tag(round: int, seed: int) -> int:
    return seed << 32 | round


@lru_cache
def _start(tag: int) -> int:
    return _mix(tag)


def _mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31
