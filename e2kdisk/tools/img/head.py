"""A look at an image's header for `info`, with a fraction of the imports that the engine needs.

What it cannot make sense of it leaves to the engine, which knows the words.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_SNAPSHOT = struct.Struct(">QIHHIIQII")

BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 0x44415441
BITMAPS = 0x23852875
MAGIC = b"QFI\xfb"
KNOWN_INCOMPATIBLE = 0x1F
COMPRESSIONS = ("zlib", "zstd")


class Odd(Exception):
    """Something that only the full parser may judge."""


class SnapshotHead:
    """One entry of the snapshot table."""

    __slots__ = ("date_nsec", "date_sec", "extra_data", "id", "name", "vm_clock_nsec", "vm_state_size")

    def __init__(self, id: str, name: str, numbers: tuple[int, ...], extra_data: bytes) -> None:
        self.id = id
        self.name = name
        self.date_sec, self.date_nsec, self.vm_clock_nsec, self.vm_state_size = numbers
        self.extra_data = extra_data
        if len(extra_data) >= 8:
            self.vm_state_size = int.from_bytes(extra_data[:8], "big")


class Head:
    """The facts in the header of a qcow2 image."""

    def __init__(self, fd: int) -> None:
        """Read them. Raises Odd, OSError."""
        data = os.pread(fd, 4096, 0)
        if len(data) < 72 or data[:4] != MAGIC:
            raise Odd
        fields = _V2.unpack_from(data)
        self.version, backing_offset, backing_size, bits, self.size, self.crypt_method = fields[1:7]
        self.backing_file_offset = backing_offset
        self.l1_size, self.l1_offset, self.refcount_table_offset, self.refcount_table_clusters = fields[7:11]
        self.snapshot_count, self._snapshots_offset = fields[11:13]
        if self.version not in (2, 3) or not 9 <= bits <= 21:
            raise Odd
        self.cluster_size = 1 << bits
        data += os.pread(fd, self.cluster_size - len(data), len(data)) if self.cluster_size > len(data) else b""
        data = data[: self.cluster_size]
        self.incompatible = self.compatible = self.autoclear = 0
        order, length = 4, 72
        if self.version == 3:
            if len(data) < 104:
                raise Odd
            self.incompatible, self.compatible, self.autoclear, order, length = _V3.unpack_from(data, 72)
        self.refcount_order = order
        self.refcount_bits = 1 << order if order <= 6 else 0
        if not self.refcount_bits or not 72 <= length <= len(data) or self.incompatible & ~KNOWN_INCOMPATIBLE:
            raise Odd
        kind = data[104] if length > 104 else 0
        if kind >= len(COMPRESSIONS) or self.snapshot_count > 65536 or self.crypt_method > 1:
            raise Odd
        self.compression = COMPRESSIONS[kind]
        self.backing_file: str | None = None
        if backing_offset and backing_size:
            if backing_size > 1023 or backing_offset + backing_size > len(data) or backing_offset < length:
                raise Odd
            self.backing_file = os.fsdecode(data[backing_offset : backing_offset + backing_size])
        self.extensions = dict(_extensions(data, length, backing_offset or len(data)))
        self._need_sane_tables(fd)

    def _need_sane_tables(self, fd: int) -> None:
        """Leave an image whose tables are not where they can be to the full parser."""
        end = os.fstat(fd).st_size
        span = self.cluster_size * self.cluster_size // (16 if self.extended_l2 else 8)
        l1_bytes, table_offset = self.l1_size * 8, self.refcount_table_offset
        l1_is_sane = self.l1_size * span >= self.size and l1_bytes <= 32 << 20 and self.l1_offset + l1_bytes <= end
        table_end = table_offset + self.refcount_table_clusters * self.cluster_size
        aligned = not (self.l1_offset | table_offset) & (self.cluster_size - 1)
        table_is_sane = self.refcount_table_clusters and table_offset and table_end <= end
        if not (l1_is_sane and aligned and table_is_sane and self.size < 1 << 63):
            raise Odd

    @property
    def extended_l2(self) -> bool:
        """L2 entries of 16 bytes."""
        return bool(self.incompatible & 16)

    def extension(self, kind: int) -> bytes | None:
        """The data of a header extension."""
        return self.extensions.get(kind)

    def text(self, kind: int) -> str | None:
        """The text in a header extension."""
        data = self.extensions.get(kind)
        return None if data is None else os.fsdecode(data)

    def snapshots(self, fd: int) -> list[SnapshotHead]:
        """The snapshot table. Raises Odd."""
        found = []
        offset = self._snapshots_offset
        for _ in range(self.snapshot_count):
            fixed = os.pread(fd, _SNAPSHOT.size, offset)
            if len(fixed) < _SNAPSHOT.size:
                raise Odd
            _, _, id_size, name_size, sec, nsec, clock, vm_state, extra_size = _SNAPSHOT.unpack(fixed)
            rest = (
                os.pread(fd, extra_size + id_size + name_size, offset + _SNAPSHOT.size) if extra_size <= 1024 else b""
            )
            if len(rest) < extra_size + id_size + name_size:
                raise Odd
            id_end = extra_size + id_size
            numbers = (sec, nsec, clock, vm_state)
            names = os.fsdecode(rest[extra_size:id_end]), os.fsdecode(rest[id_end:])
            found.append(SnapshotHead(*names, numbers, rest[:extra_size]))
            offset = (offset + _SNAPSHOT.size + len(rest) + 7) & -8
        return found


def _extensions(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    while start + 8 <= end:
        kind, length = struct.unpack_from(">II", data, start)
        if kind == 0:
            return
        if start + 8 + length > end:
            raise Odd
        yield kind, data[start + 8 : start + 8 + length]
        start += 8 + (length + 7 & -8)
