"""The directory of persistent bitmaps: the header extension that leads there, and its entries, judged and packed.

    header extension "bitmaps"                     the autoclear bit says that all of this is up to date
      number of bitmaps, directory: size, offset
        |
        v
    directory: one entry behind the other          name, granularity, flags; table: offset, entries
        |
        v
    table: one entry a cluster of bits             all clean, all dirty, or the offset of a cluster
        |
        v
    data cluster: a bit a granule                  the least significant bit of a byte first

Source: the qcow2 specification, "Bitmaps". The limits are those that QEMU sets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import Header

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")

IN_USE = 1 << 0
"""Somebody has, or had when he died, the bitmap in memory: what is stored is not what it is."""
AUTO = 1 << 1
"""Every write to the disk must be marked."""
EXTRA_DATA_COMPATIBLE = 1 << 2
"""Whoever does not know the extra data may use the bitmap all the same, and keeps the extra data."""
_KNOWN_FLAGS = IN_USE | AUTO | EXTRA_DATA_COMPATIBLE
_DIRTY_TRACKING = 1
"""The only type of bitmap that there is."""

MAX_BITMAPS = 65535
MAX_DIRECTORY_BYTES = MAX_BITMAPS * 1024
MAX_NAME_BYTES = 1023
MAX_TABLE_ENTRIES = 0x8000000
MAX_BITMAP_BYTES = 512 << 20
MIN_GRANULARITY_BITS = 9
MAX_GRANULARITY_BITS = 31


class BitmapEntry:
    """One entry of the directory."""

    __slots__ = ("extra_data", "flags", "granularity_bits", "stored_name", "table_entries", "table_offset")

    def __init__(
        self,
        stored_name: str,
        table_offset: int,
        table_entries: int,
        flags: int,
        granularity_bits: int,
        extra_data: bytes = b"",
    ) -> None:
        self.stored_name = stored_name
        """All bytes of it."""
        self.table_offset = table_offset
        self.table_entries = table_entries
        self.flags = flags
        self.granularity_bits = granularity_bits
        self.extra_data = extra_data
        """Kept as it is."""

    @property
    def name(self) -> str:
        """What the bitmap is called: as for QEMU, a zero byte ends it."""
        return self.stored_name.partition("\0")[0]

    @property
    def in_use(self) -> bool:
        """The stored bits are not to be trusted."""
        return bool(self.flags & IN_USE)

    def with_flags(self, flags: int) -> BitmapEntry:
        """The same with other flags."""
        return BitmapEntry(
            self.stored_name, self.table_offset, self.table_entries, flags, self.granularity_bits, self.extra_data
        )

    def pack(self) -> bytes:
        """The bytes of the entry, padded to a multiple of 8."""
        name = encode_name(self.stored_name)
        fixed = _ENTRY.pack(
            self.table_offset,
            self.table_entries,
            self.flags,
            _DIRTY_TRACKING,
            self.granularity_bits,
            len(name),
            len(self.extra_data),
        )
        data = fixed + self.extra_data + name
        return data + bytes(-len(data) % 8)


def encode_name(name: str) -> bytes:
    """A bitmap's name as it is stored."""
    return name.encode("utf-8", "surrogateescape")


class BitmapsExtension:
    """The header extension: where the directory lies."""

    __slots__ = ("bitmaps", "directory_bytes", "directory_offset")

    def __init__(self, bitmaps: int, directory_bytes: int, directory_offset: int) -> None:
        self.bitmaps = bitmaps
        self.directory_bytes = directory_bytes
        self.directory_offset = directory_offset

    def pack(self) -> bytes:
        """The data of the extension."""
        return _EXTENSION.pack(self.bitmaps, 0, self.directory_bytes, self.directory_offset)


def is_stale(header: Header) -> bool:
    """Whether bitmaps are named that somebody did not keep up: their autoclear bit is off, as in version 2 always."""
    return header.extension(layout.EXT_BITMAPS) is not None and not has_bitmaps(header)


def has_bitmaps(header: Header) -> bool:
    """Whether the header names bitmaps that are up to date."""
    named = header.extension(layout.EXT_BITMAPS) is not None
    return named and header.version >= 3 and bool(header.autoclear_features & layout.AUTOCLEAR_BITMAPS)


def read_extension(filename: str, header: Header) -> BitmapsExtension | None:
    """The header extension, None where no bitmaps are named or they are stale. Raises ImageError naming the field."""
    data = header.extension(layout.EXT_BITMAPS)
    if data is None:
        return None
    where = "bitmaps_ext"
    if len(data) != _EXTENSION.size:
        raise ImageError(filename, where, "Invalid extension length")
    if is_stale(header):
        return None
    count, reserved, size, offset = _EXTENSION.unpack(data)
    if reserved:
        raise ImageError(filename, where, "Reserved field is not zero")
    if count > MAX_BITMAPS:
        what = f"Image has {count} bitmaps, exceeding the QEMU supported maximum of {MAX_BITMAPS}"
        raise ImageError(filename, where, what)
    if count == 0:
        raise ImageError(filename, "bitmaps extension", "found bitmaps extension with zero bitmaps")
    if offset & (1 << header.cluster_bits) - 1:
        raise ImageError(filename, where, "invalid bitmap directory offset")
    if size > MAX_DIRECTORY_BYTES:
        what = f"bitmap directory size ({size}) exceeds the maximum supported size ({MAX_DIRECTORY_BYTES})"
        raise ImageError(filename, where, what)
    if size == 0:
        raise ImageError(filename, "bitmaps extension", "Requested bitmap directory size is zero")
    return BitmapsExtension(count, size, offset)


async def read_directory(file: Node, header: Header) -> list[BitmapEntry]:
    """All entries of the directory, in order; none where no bitmaps are named or they are stale.

    Raises ImageError for the first that makes no sense, OSError.
    """
    extension = read_extension(file.name, header)
    if extension is None:
        return []
    # Bytes behind the end of the file read as zeros, which are no entry: nothing is allocated for more than there is.
    held = max(0, min(extension.directory_bytes, file.size - extension.directory_offset))
    directory = bytearray(held)
    if held:
        await file.read(extension.directory_offset, [memoryview(directory)])
    entries: list[BitmapEntry] = []
    names: set[str] = set()
    position = 0
    while position < extension.directory_bytes:
        where = f"bitmap directory, entry {len(entries)} (offset {extension.directory_offset + position:#x})"
        if position + _ENTRY.size > extension.directory_bytes:
            raise ImageError(file.name, where, "Broken bitmap directory")
        if len(entries) == extension.bitmaps:
            raise ImageError(file.name, where, "More bitmaps found than specified in header extension")
        entry, length = _parse_entry(file.name, where, directory, position, extension.directory_bytes)
        _judge(file.name, where, entry, header)
        if entry.name in names:
            raise ImageError(file.name, where, f"Bitmap already exists: {entry.name}")
        names.add(entry.name)
        entries.append(entry)
        position += length
    if len(entries) < extension.bitmaps:
        raise ImageError(file.name, "bitmap directory", "Less bitmaps found than specified in header extension")
    return entries


def _parse_entry(filename: str, where: str, directory: bytearray, position: int, end: int) -> tuple[BitmapEntry, int]:
    """The entry at a position, of which the fixed part is inside the directory, and its length in bytes."""
    fixed = directory[position : position + _ENTRY.size].ljust(_ENTRY.size, b"\0")
    table_offset, table_entries, flags, kind, granularity_bits, name_size, extra_size = _ENTRY.unpack(fixed)
    length = (_ENTRY.size + extra_size + name_size + 7) & -8
    if position + length > end and extra_size < 1 << 31:  # as QEMU, whose sum is a signed one
        raise ImageError(filename, where, "Broken bitmap directory")
    if extra_size and not flags & EXTRA_DATA_COMPATIBLE:
        # Such a bitmap may not be used and must be left as it is, which a writer to the disk cannot do.
        raise ImageError(filename, where, "Bitmap extra data is not supported")
    name_start = position + _ENTRY.size + extra_size
    extra = bytes(directory[position + _ENTRY.size : name_start])
    name = directory[name_start : name_start + name_size].decode("utf-8", "surrogateescape")
    if kind != _DIRTY_TRACKING or len(extra) < extra_size:
        raise _unsatisfied(filename, where, name)
    return BitmapEntry(name, table_offset, table_entries, flags, granularity_bits, extra), length


def _judge(filename: str, where: str, entry: BitmapEntry, header: Header) -> None:
    cluster_size = 1 << header.cluster_bits
    stored_bytes = entry.table_entries * cluster_size
    if not (
        entry.table_offset
        and not entry.table_offset & cluster_size - 1
        and 0 < entry.table_entries <= MAX_TABLE_ENTRIES
        and stored_bytes <= MAX_BITMAP_BYTES
        and MIN_GRANULARITY_BITS <= entry.granularity_bits <= MAX_GRANULARITY_BITS
        and not entry.flags & ~_KNOWN_FLAGS
        and (entry.extra_data or not entry.flags & EXTRA_DATA_COMPATIBLE)
        and len(encode_name(entry.stored_name)) <= MAX_NAME_BYTES
        # What is in use may have been stored before the disk got its size.
        and (entry.in_use or header.size <= stored_bytes * 8 << entry.granularity_bits)
    ):
        raise _unsatisfied(filename, where, entry.name)


def _unsatisfied(filename: str, where: str, name: str) -> ImageError:
    shown = name.partition("\0")[0]
    return ImageError(filename, where, f"Bitmap '{shown}' doesn't satisfy the constraints")


def pack_directory(entries: Iterable[BitmapEntry]) -> bytes:
    """The bytes of a directory."""
    return b"".join(entry.pack() for entry in entries)
