"""The table and the data of one persistent bitmap: read with bounds, written to new clusters, counted by a check."""

from __future__ import annotations

from collections.abc import AsyncIterator

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.bitmap_directory import BitmapEntry, read_directory, read_extension
from e2kdisk.qcow2.dirty_bits import DirtyBits
from e2kdisk.qcow2.entries import Entries64, pack64
from e2kdisk.qcow2.geometry import Geometry, HostOffset
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.new_table import write_new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_ALL_ONES = 1 << 0
"""In an entry without an offset: all bits of the cluster are set."""
_RESERVED = 0xFF000000000001FE
_TABLE_PART_BYTES = 1 << 16
"""Tables are read in parts of this size: what a directory claims costs no memory."""


async def table_entries(file: Node, entry: BitmapEntry) -> AsyncIterator[tuple[int, int]]:
    """(index, value) of the entries of a bitmap's table that are not zero; behind the end of the file all are."""
    length = min(entry.table_entries * 8, max(0, file.size - entry.table_offset))
    for start in range(0, length, _TABLE_PART_BYTES):
        part = bytearray(min(_TABLE_PART_BYTES, entry.table_entries * 8 - start))
        await file.read(entry.table_offset + start, [memoryview(part)])
        for index, value in enumerate(Entries64(part).values, start // 8):
            if value:
                yield index, value


def is_sound(value: int, geometry: Geometry) -> bool:
    """Whether an entry of a table is one of the three that there are."""
    offset = value & layout.OFFSET_MASK
    if value & _RESERVED or offset & geometry.cluster_mask:
        return False
    return not (offset and value & _ALL_ONES)


async def read_bits(file: Node, header: Header, entry: BitmapEntry) -> DirtyBits | None:
    """The bits of a bitmap that is not in use; None when the file does not hold all that the table names.

    Raises ImageError for a table that makes no sense, OSError.
    """
    geometry = Geometry(header.cluster_bits, header.refcount_order)
    bits = DirtyBits(header.size, entry.granularity_bits)
    await need_sound_table(file, header, entry)
    if entry.table_offset + entry.table_entries * 8 > file.size:
        return None
    async for index, value in table_entries(file, entry):
        start = index << geometry.cluster_bits
        offset = value & layout.OFFSET_MASK
        length = min(geometry.cluster_size, bits.byte_count - start)
        if not offset:
            bits.load_ones(start, length)
            continue
        if offset + length > file.size:
            return None
        data = bytearray(length)
        await file.read(offset, [memoryview(data)])
        bits.load(start, data)
    bits.changed = False
    return bits


async def need_sound_table(file: Node, header: Header, entry: BitmapEntry) -> None:
    """Judge the table of a bitmap that is not in use. Raises ImageError, OSError."""
    geometry = Geometry(header.cluster_bits, header.refcount_order)
    async for index, value in table_entries(file, entry):
        if not is_sound(value, geometry):
            what = f"Could not read bitmap_table table from image for bitmap '{entry.name}': Invalid argument"
            raise ImageError(file.name, f"bitmap table entry {index} ({value:#x})", what)
    if table_length(DirtyBits(header.size, entry.granularity_bits), geometry) != entry.table_entries:
        what = f"Could not read bitmap '{entry.name}' from image: Invalid argument"
        raise ImageError(file.name, f"bitmap table of {entry.table_entries} entries", what)


def table_length(bits: DirtyBits, geometry: Geometry) -> int:
    """Entries that a table has for these bits."""
    return geometry.clusters(bits.byte_count)


async def write_bits(image: Qcow2Image, bits: DirtyBits, made: list[tuple[HostOffset, int]]) -> HostOffset:
    """Write bits and a table for them to new clusters, and return the table's offset; under the metadata lock.

    What has been allocated is added to `made`, (offset, clusters), for the caller to give back when the table does not
    come into use. Neither the data nor its refcounts are durable yet. Raises OSError or ImageError.
    """
    geometry = image.geometry
    values = [0] * table_length(bits, geometry)
    whole = b"\xff" * geometry.cluster_size
    for index, data in bits.parts(geometry.cluster_size):
        if data == whole:
            values[index] = _ALL_ONES
            continue
        offset = await write_new(image, data)
        made.append((offset, 1))
        values[index] = offset
    table = await write_new(image, pack64(values))
    made.append((table, geometry.clusters(len(values) * 8)))
    return table


async def bitmap_areas(file: Node, header: Header) -> AsyncIterator[tuple[str, int, int]]:
    """(what, offset, length in bytes) of everything that the bitmaps extension uses; nothing if it is stale.

    An entry of no sense, in the table of a bitmap that is in use, comes with the length 0. Raises ImageError when the
    directory or another table is broken.
    """
    extension = read_extension(file.name, header)
    if extension is None:
        return
    geometry = Geometry(header.cluster_bits, header.refcount_order)
    yield "bitmap directory", extension.directory_offset, extension.directory_bytes
    for entry in await read_directory(file, header):
        if not entry.in_use:
            await need_sound_table(file, header, entry)
        async for area in table_areas(file, geometry, entry):
            yield area


async def table_areas(file: Node, geometry: Geometry, entry: BitmapEntry) -> AsyncIterator[tuple[str, int, int]]:
    """(what, offset, length in bytes) of the table and the data of a bitmap; length 0 for an entry of no sense."""
    yield f"table of bitmap '{entry.name}'", entry.table_offset, entry.table_entries * 8
    async for index, value in table_entries(file, entry):
        what = f"table of bitmap '{entry.name}', entry {index}"
        offset = value & layout.OFFSET_MASK
        if not is_sound(value, geometry):
            yield f"{what}: {value:#x} is not the offset of a cluster", offset, 0
        elif offset:
            yield what, offset, geometry.cluster_size
