"""What each block request does to the disk: a table and one coroutine a command (VIRTIO 1.2 5.2.6).

A coroutine returns the status; the disk's errors become IOERR where the coroutines are called.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from e2kdisk.devices.virtio import features
from e2kdisk.devices.virtio.blk_request import IOERR, OK, UNSUPP, BlkRequest, Command

if TYPE_CHECKING:
    from e2kdisk.devices.virtio.blk import VirtioBlk

SECTOR = 512
"""Bytes; the unit of the protocol, whatever the block size (VIRTIO 1.2 5.2.4)."""
RANGE = Struct("<QII")
"""sector, number of sectors, flags: one range of DISCARD and WRITE_ZEROES (VIRTIO 1.2 5.2.6)."""
UNMAP = 1
"""Flag of a range: its space may be given back."""
ID_LENGTH = 20
"""Bytes of the device identifier (VIRTIO 1.2 5.2.6)."""

RANGES_MAX = 32
"""max_discard_seg and max_write_zeroes_seg."""
RANGE_SECTORS_MAX = 1 << 22
"""max_discard_sectors and max_write_zeroes_sectors: 2 GiB, so that one request is a bounded piece of work."""


def _inside(device: VirtioBlk, sector: int, length: int) -> bool:
    """Whether length bytes from a sector on are whole sectors of the disk."""
    return length % SECTOR == 0 and sector + length // SECTOR <= device.disk.size // SECTOR


async def read(device: VirtioBlk, request: BlkRequest) -> int:
    """IN: from the disk straight into guest memory."""
    if not _inside(device, request.sector, request.length):
        return IOERR
    request.filled = True
    if request.data:
        await device.disk.read(request.sector * SECTOR, request.data)
    return OK


async def write(device: VirtioBlk, request: BlkRequest) -> int:
    """OUT: from guest memory straight to the disk."""
    if not _inside(device, request.sector, request.length):
        return IOERR
    if request.data:
        await device.disk.write(request.sector * SECTOR, request.data)
    return OK


async def flush(device: VirtioBlk, request: BlkRequest) -> int:
    """FLUSH: every write completed before is durable when this completes."""
    await device.disk.flush()
    return OK


async def get_id(device: VirtioBlk, request: BlkRequest) -> int:
    """GET_ID: the serial number, padded with zeros, not terminated when it fills all 20 bytes."""
    request.filled = True
    serial = device.disk.serial.encode("ascii", "replace")[:ID_LENGTH].ljust(ID_LENGTH, b"\0")
    for view in request.data:
        view[:], serial = serial[: view.nbytes], serial[view.nbytes :]
    return OK


def _ranges(device: VirtioBlk, request: BlkRequest, flags_allowed: int) -> list[tuple[int, int, int]] | int:
    """The ranges of a request, or the status that refuses all of them: nothing is done by halves (5.2.6.2)."""
    if request.length == 0 or request.length % RANGE.size:
        return UNSUPP
    if request.length > RANGES_MAX * RANGE.size:
        return IOERR
    ranges = list(RANGE.iter_unpack(b"".join(request.data)))
    if any(flags & ~flags_allowed for _, _, flags in ranges):
        return UNSUPP
    if not all(count <= RANGE_SECTORS_MAX and _inside(device, sector, count * SECTOR) for sector, count, _ in ranges):
        return IOERR
    return ranges


async def discard(device: VirtioBlk, request: BlkRequest) -> int:
    """DISCARD: the ranges are no longer needed; UNMAP is not a flag of this command (5.2.6.2)."""
    ranges = _ranges(device, request, flags_allowed=0)
    if isinstance(ranges, int):
        return ranges
    for sector, count, _ in ranges:
        await device.disk.discard(sector * SECTOR, count * SECTOR)
    return OK


async def write_zeroes(device: VirtioBlk, request: BlkRequest) -> int:
    """WRITE_ZEROES: the ranges read as zeros afterwards, with UNMAP perhaps without space of their own."""
    ranges = _ranges(device, request, flags_allowed=UNMAP)
    if isinstance(ranges, int):
        return ranges
    for sector, count, flags in ranges:
        await device.disk.write_zeroes(sector * SECTOR, count * SECTOR, unmap=bool(flags & UNMAP))
    return OK


_SECTION = "VIRTIO 1.2 5.2.6"

COMMANDS = {
    0: Command(name="IN", section=_SECTION, run=read, to_guest=True, data_max=None),
    1: Command(name="OUT", section=_SECTION, run=write, modifies=True, data_max=None),
    4: Command(name="FLUSH", section=_SECTION, run=flush),
    8: Command(name="GET_ID", section=_SECTION, run=get_id, to_guest=True, data_max=ID_LENGTH),
    11: Command(
        name="DISCARD",
        section=_SECTION,
        run=discard,
        feature=features.bit("DISCARD"),
        modifies=True,
        data_max=RANGES_MAX * RANGE.size,
    ),
    13: Command(
        name="WRITE_ZEROES",
        section=_SECTION,
        run=write_zeroes,
        feature=features.bit("WRITE_ZEROES"),
        modifies=True,
        data_max=RANGES_MAX * RANGE.size,
    ),
}
