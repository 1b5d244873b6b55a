"""The bitmaps that `info` shows, read without the engine; what is not plainly in order is left to it."""

from __future__ import annotations

import os
import struct

from e2kdisk.tools.img.head import BITMAPS, Head, Odd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
IN_USE, AUTO = 1, 2
FLAGS = ((IN_USE, "in-use"), (AUTO, "auto"))
ALL_ONES = 1
MAX_DIRECTORY_BYTES = 1 << 20
"""Longer ones are rare enough to be the engine's."""
MAX_TABLE_BYTES = 1 << 20


def bitmap_facts(fd: int, image: Head) -> list[dict[str, Any]]:
    """The bitmaps of an open image in the order of the directory, as JSON shows them. Raises Odd."""
    extension, cluster_size = image.extension(BITMAPS) or b"", image.cluster_size
    if len(extension) != _EXTENSION.size or not image.autoclear & 1:
        raise Odd
    count, reserved, size, offset = _EXTENSION.unpack(extension)
    if reserved or not count or offset % cluster_size or not 0 < size <= MAX_DIRECTORY_BYTES:
        raise Odd
    directory = os.pread(fd, size, offset)
    found: list[dict[str, Any]] = []
    place = 0
    while place + _ENTRY.size <= len(directory):
        table, entries, flags, kind, order, name_size, extra_size = _ENTRY.unpack_from(directory, place)
        name = directory[place + _ENTRY.size : place + _ENTRY.size + name_size]
        bits = -(-image.size >> order) if order else 0
        if (
            extra_size
            or kind != 1
            or flags & ~(IN_USE | AUTO)
            or not 9 <= order <= 31
            or not 0 < name_size <= 1023
            or b"\0" in name
            or entries != -(-bits // (8 * cluster_size))
            or table % cluster_size
            or not 0 < entries * 8 <= MAX_TABLE_BYTES
        ):
            raise Odd
        _need_sound_table(os.pread(fd, entries * 8, table), entries, cluster_size)
        shown = [text for bit, text in FLAGS if flags & bit]
        found.append({"flags": shown, "name": os.fsdecode(name), "granularity": 1 << order})
        place += _ENTRY.size + name_size + 7 & -8
    if place != size or len(found) != count or len({item["name"] for item in found}) != count:
        raise Odd
    return found


def _need_sound_table(table: bytes, entries: int, cluster_size: int) -> None:
    if len(table) != entries * 8:
        raise Odd
    for (entry,) in struct.iter_unpack(">Q", table):
        if entry not in (0, ALL_ONES) and (entry >> 56 or entry % cluster_size):
            raise Odd
