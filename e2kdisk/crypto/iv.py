"""IV generators: the 16 bytes that make each sector's ciphertext differ, for many sectors at once."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable

IvGenerator = Callable[[int, int], "array[int]"]
"""(first sector, number of sectors) -> two native 64-bit words per sector that are the IV's 16 bytes in memory.

ESSIV for LUKS fits in here: the plain64 words, encrypted with the hashed key in one ECB call.
"""


def plain64(first_sector: int, sectors: int) -> array[int]:
    """IVs that are the sector number, 64-bit little-endian, followed by zeros (IvGenerator)."""
    words = array("Q", bytes(16 * sectors))
    words[0::2] = array("Q", range(first_sector, first_sector + sectors))
    if sys.byteorder == "big":
        words.byteswap()
    return words
