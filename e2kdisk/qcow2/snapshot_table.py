"""The snapshot table on disk: parsed with bounds, unknown extra data kept (QCowSnapshot, qcow2_read_snapshots)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header

_ENTRY = struct.Struct(">QIHHIIQII")
_EXTRA = struct.Struct(">QQ")
REQUIRED_EXTRA_BYTES = _EXTRA.size
"""Extra data that every entry of a version 3 image has (specification, snapshots)."""
MAX_EXTRA_BYTES = 1024
MAX_TABLE_BYTES = 64 << 20


class Snapshot:
    """One internal snapshot."""

    def __init__(
        self,
        *,
        id: str,
        name: str,
        l1_table_offset: int,
        l1_size: int,
        disk_size: int,
        vm_state_size: int,
        date_sec: int,
        date_nsec: int,
        vm_clock_nsec: int,
        extra_data: bytes,
    ) -> None:
        self.id = id
        self.name = name
        self.l1_table_offset = l1_table_offset
        self.l1_size = l1_size
        """Entries of its L1 table."""
        self.disk_size = disk_size
        """The guest's disk size when it was taken, bytes."""
        self.vm_state_size = vm_state_size
        """Bytes of VM state stored behind the end of the disk."""
        self.date_sec = date_sec
        self.date_nsec = date_nsec
        self.vm_clock_nsec = vm_clock_nsec
        self.extra_data = extra_data
        """Everything after the fixed fields, as it was read."""


async def read_snapshots(file: Node, header: Header) -> tuple[list[Snapshot], int]:
    """All snapshots and the length of their table in bytes. Raises ImageError naming the entry that is broken."""
    geometry = Geometry(header.cluster_bits, header.refcount_order)
    offset = header.snapshots_offset
    found: list[Snapshot] = []
    for number in range(header.nb_snapshots):
        snapshot, length = await _read_entry(file, header, geometry, number, offset)
        found.append(snapshot)
        offset += length
        if offset - header.snapshots_offset > MAX_TABLE_BYTES:
            raise ImageError(file.name, "snapshot table", "is longer than 64 MiB")
    return found, offset - header.snapshots_offset


def find_snapshot(file: str, snapshots: list[Snapshot], name: str) -> Snapshot:
    """The snapshot with this id, else the first with this name. Raises ImageError."""
    found = next((item for item in snapshots if item.id == name), None)
    found = found or next((item for item in snapshots if item.name == name), None)
    if found is None:
        raise ImageError(file, "", f"there is no snapshot with id or name {name!r}")
    return found


def pack_snapshots(snapshots: Iterable[Snapshot]) -> bytes:
    """The bytes of a snapshot table; the extra data of each entry is kept, what we know in it is brought up to date."""
    parts: list[bytes] = []
    for item in snapshots:
        known = _EXTRA.pack(item.vm_state_size, item.disk_size)
        extra = known + item.extra_data[_EXTRA.size :]
        name_id, name = item.id.encode("utf-8", "surrogateescape"), item.name.encode("utf-8", "surrogateescape")
        fixed = _ENTRY.pack(
            item.l1_table_offset,
            item.l1_size,
            len(name_id),
            len(name),
            item.date_sec,
            item.date_nsec,
            item.vm_clock_nsec,
            min(item.vm_state_size, 0xFFFFFFFF),
            len(extra),
        )
        entry = fixed + extra + name_id + name
        parts.append(entry + bytes(-len(entry) % 8))
    return b"".join(parts)


async def _read_entry(file: Node, header: Header, geometry: Geometry, number: int, offset: int) -> tuple[Snapshot, int]:
    where = f"snapshot {number} (offset {offset:#x})"
    fixed = await _read(file, where, offset, _ENTRY.size)
    l1_offset, l1_size, id_size, name_size, sec, nsec, clock, vm_state_size, extra_size = _ENTRY.unpack(fixed)
    if extra_size > MAX_EXTRA_BYTES:
        raise ImageError(file.name, where, f"{extra_size} bytes of extra data exceed the limit of 1024")
    if l1_size * 8 > layout.MAX_L1_BYTES:
        raise ImageError(file.name, where, f"L1 table of {l1_size} entries exceeds the limit of 32 MiB")
    if l1_offset & geometry.cluster_mask or l1_offset + l1_size * 8 > min(file.size, layout.MAX_HOST_OFFSET):
        raise ImageError(file.name, where, f"L1 table at {l1_offset:#x} is unaligned or past the end of the file")
    if l1_size and not l1_offset:
        raise ImageError(file.name, where, "its L1 table is at 0, where the header lies")
    rest = await _read(file, where, offset + _ENTRY.size, extra_size + id_size + name_size)
    extra = rest[:extra_size]
    disk_size = header.size
    if extra_size >= 8:
        # The 64-bit field of newer images replaces the 32-bit one of the fixed part.
        vm_state_size = int.from_bytes(extra[:8], "big")
    if extra_size >= _EXTRA.size:
        disk_size = _EXTRA.unpack_from(extra)[1]
    snapshot = Snapshot(
        id=rest[extra_size : extra_size + id_size].decode("utf-8", "surrogateescape"),
        name=rest[extra_size + id_size :].decode("utf-8", "surrogateescape"),
        l1_table_offset=l1_offset,
        l1_size=l1_size,
        disk_size=disk_size,
        vm_state_size=vm_state_size,
        date_sec=sec,
        date_nsec=nsec,
        vm_clock_nsec=clock,
        extra_data=extra,
    )
    return snapshot, (_ENTRY.size + len(rest) + 7) & -8


async def _read(file: Node, where: str, offset: int, length: int) -> bytes:
    if offset + length > file.size:
        raise ImageError(file.name, where, "reaches past the end of the file")
    data = bytearray(length)
    await file.read(offset, [memoryview(data)])
    return bytes(data)
