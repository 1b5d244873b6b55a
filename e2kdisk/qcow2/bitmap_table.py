"""Where persistent dirty bitmaps lie: their directory, tables and data, so that a check can count them."""

from __future__ import annotations

import struct

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.header import Header

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
MAX_BITMAPS = 65535
MAX_DIRECTORY_BYTES = MAX_BITMAPS * 1024
MAX_TABLE_ENTRIES = 0x8000000


async def bitmap_areas(file: Node, header: Header) -> list[tuple[str, int, int]]:
    """(what, offset, length in bytes) of everything that the bitmaps extension uses.

    Raises ImageError when the directory is broken. An extension whose autoclear bit is off is stale: whoever
    cleared it did not keep it up, but its space is still in use.
    """
    data = header.extension(layout.EXT_BITMAPS)
    if data is None:
        return []
    if len(data) < _EXTENSION.size:
        raise ImageError(file.name, "bitmaps extension", f"is {len(data)} bytes long instead of 24")
    count, _, size, offset = _EXTENSION.unpack_from(data)
    if count > MAX_BITMAPS or size > MAX_DIRECTORY_BYTES or offset + size > file.size:
        raise ImageError(file.name, "bitmap directory", f"{count} bitmaps in {size} bytes at {offset:#x}: impossible")
    directory = bytearray(size)
    await file.read(offset, [memoryview(directory)])
    areas = [("bitmap directory", offset, size)]
    position = 0
    for number in range(count):
        if position + _ENTRY.size > size:
            raise ImageError(file.name, "bitmap directory", f"bitmap {number} reaches past its end")
        table_offset, entries, _, _, _, name_size, extra_size = _ENTRY.unpack_from(directory, position)
        position += (_ENTRY.size + extra_size + name_size + 7) & -8
        if entries > MAX_TABLE_ENTRIES or table_offset + entries * 8 > file.size:
            raise ImageError(
                file.name, f"bitmap {number}", f"table of {entries} entries at {table_offset:#x}: impossible"
            )
        areas.append((f"table of bitmap {number}", table_offset, entries * 8))
        table = bytearray(entries * 8)
        await file.read(table_offset, [memoryview(table)])
        for value in Entries64(table).values:
            if value & layout.OFFSET_MASK:
                areas.append((f"data of bitmap {number}", value & layout.OFFSET_MASK, 1 << header.cluster_bits))
    return areas
