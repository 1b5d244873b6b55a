"""Moving sectors: what is left of a command's transfer, and the steps that wait for the disk.

    PIO in   fill -> [DRQ block, interrupt, host reads]* -> fill ...          one disk request fills many blocks
    PIO out  [DRQ block, host writes] -> store -> interrupt, next block ...
    DMA      wait for the transport -> read_dma, write_dma or trim -> interrupt

A step is a coroutine that can be made again from the drive's state alone: that is how a request which was parked
by the error policy goes on, also in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.devices.ata.mistakes import AtaMistake
from e2kdisk.devices.ata.task_file import ABRT, IDNF, UNC
from e2kdisk.devices.guest_error import GuestError
from e2kdisk.devices.scatter import Segment, map_all
from e2kdisk.errors import E2kDiskError

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.devices.ata.device import AtaDevice

SECTOR = 512
"""Bytes; logical sectors are never longer here."""
RUN_SECTORS = 256
"""Most sectors that one disk request reads ahead of the host's PIO; a multiple of every block size."""
VERIFY_SECTORS = 128
"""Sectors that are verified at a time."""
TRIM_RANGE = Struct("<Q")
"""LBA in bits 47:0, number of sectors in bits 63:48 (ATA8-ACS2 7.10.3.2)."""


@dataclass(slots=True)
class Transfer:
    """Where a command that moves data stands."""

    first: int = 0
    """The sector that the command named."""
    count: int = 0
    """Sectors that it asked for."""
    lba: int = 0
    """Next sector on the disk."""
    left: int = 0
    """Sectors that the host has not been offered, or asked for, yet."""
    block: int = 1
    """Sectors in a DRQ block."""
    buffered: int = 0
    """Sectors in the buffer that have not been offered to the host."""
    position: int = 0
    """Where in the buffer the data port is, in bytes."""
    end: int = 0
    """Where the DRQ block ends, in bytes; nothing beyond it can be reached through the data port."""
    to_host: bool = False
    step: str = ""
    """What follows when a DRQ block has been written, or what the DMA transport is waited for with."""
    waiting: bool = False
    """For the DMA transport."""
    length: int = 0
    """Bytes of a DMA transfer."""
    segments: list[Segment] | None = None
    """Where the transport put a DMA transfer in guest memory."""
    bad: int = 0
    """Sectors from lba to the one that could not be read, after an error."""
    host_error: bool = False
    """Guest memory could not be reached."""


Outcome = Coroutine[Any, Any, int]
"""Gives bits of the Error register, 0 for success; raises the disk's errors."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a drive waits for."""

    run: Callable[[AtaDevice], Outcome]
    ended: Callable[[AtaDevice], None]
    """Goes on after success."""
    error: int = ABRT
    """Bits of the Error register when the disk fails."""
    writing: bool = False
    """Which half of the error policy is asked."""
    dma: bool = False


async def read_until_bad(disk: Disk, lba: int, iov: IoVec, count: int) -> int:
    """Read what can be read of a range that failed as a whole: how many sectors come before the bad one.

    Halving finds it in a few requests; the sectors before it are in place afterwards.
    """
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        part = iov_slice(iov, good * SECTOR, (middle - good) * SECTOR)
        try:
            await disk.read((lba + good) * SECTOR, part)
        except (OSError, E2kDiskError):
            bad = middle
        else:
            good = middle
    return good


async def fill(drive: AtaDevice) -> int:
    """PIO in: fill the buffer for as many DRQ blocks as one disk request can."""
    transfer = drive.transfer
    block = min(transfer.block, transfer.left)
    count = min(transfer.left, RUN_SECTORS, drive.sectors - transfer.lba)
    if count < block:
        return IDNF
    if count < transfer.left:
        count -= count % block
    view = drive.buffer[: count * SECTOR]
    transfer.buffered, transfer.position = count, 0
    try:
        await drive.disk.read(transfer.lba * SECTOR, [view])
    except (OSError, E2kDiskError):
        good = await read_until_bad(drive.disk, transfer.lba, [view], count)
        if good < block:
            # What an earlier command left in the buffer must not pass for the sector, whatever the policy says.
            view[good * SECTOR :] = bytes((count - good) * SECTOR)
            transfer.bad = good
            raise
        transfer.buffered = good - good % block
    return 0


async def store(drive: AtaDevice) -> int:
    """PIO out: write the DRQ block that the host has filled."""
    transfer = drive.transfer
    await drive.disk.write(transfer.lba * SECTOR, [drive.buffer[: transfer.end]], fua=drive.command.fua)
    return 0


def _map(drive: AtaDevice, to_memory: bool) -> IoVec | None:
    """The guest memory of a DMA transfer; None, and said in the trace, if some of it is not RAM."""
    memory = drive.channel.memory
    segments = drive.transfer.segments
    assert segments is not None
    views = map_all(memory.target if to_memory else memory.source, segments)
    if isinstance(views, int):
        drive.transfer.host_error = True
        drive.report(GuestError(AtaMistake.DMA_ADDRESS, views))
        return None
    return views


async def read_dma(drive: AtaDevice) -> int:
    """From the disk straight into guest memory."""
    transfer, memory = drive.transfer, drive.channel.memory
    views = _map(drive, to_memory=True)
    if views is None:
        return ABRT
    try:
        await drive.disk.read(transfer.lba * SECTOR, views)
    except (OSError, E2kDiskError):
        transfer.bad = await read_until_bad(drive.disk, transfer.lba, views, transfer.left)
        raise
    finally:
        # Also after an error, and when the host has cancelled the command meanwhile: what has landed has landed,
        # and translated code there is stale.
        for (address, _), view in zip(transfer.segments or (), views, strict=True):
            memory.written(address, view)
        memory.publish()
    return 0


async def write_dma(drive: AtaDevice) -> int:
    """From guest memory straight to the disk."""
    transfer = drive.transfer
    views = _map(drive, to_memory=False)
    if views is None:
        return ABRT
    await drive.disk.write(transfer.lba * SECTOR, views, fua=drive.command.fua)
    return 0


async def trim(drive: AtaDevice) -> int:
    """TRIM: the ranges in guest memory are no longer needed; all of them are checked before the first is given up."""
    views = _map(drive, to_memory=False)
    if views is None:
        return ABRT
    ranges = [(entry & (1 << 48) - 1, entry >> 48) for (entry,) in TRIM_RANGE.iter_unpack(b"".join(views))]
    if any(count and lba + count > drive.sectors for lba, count in ranges):
        return IDNF | ABRT
    for lba, count in ranges:
        if count:
            await drive.disk.discard(lba * SECTOR, count * SECTOR)
    return 0


async def verify(drive: AtaDevice) -> int:
    """READ VERIFY: read all of it, give none of it."""
    transfer = drive.transfer
    while transfer.left:
        count = min(transfer.left, VERIFY_SECTORS)
        view = drive.buffer[: count * SECTOR]
        try:
            await drive.disk.read(transfer.lba * SECTOR, [view])
        except (OSError, E2kDiskError):
            transfer.bad = await read_until_bad(drive.disk, transfer.lba, [view], count)
            raise
        transfer.lba += count
        transfer.left -= count
    return 0


async def erase(drive: AtaDevice) -> int:
    """CFA ERASE SECTORS: a hint that these sectors will be written."""
    transfer = drive.transfer
    await drive.disk.discard(transfer.lba * SECTOR, transfer.left * SECTOR)
    return 0


async def flush(drive: AtaDevice) -> int:
    """FLUSH CACHE: every write that was completed is durable."""
    await drive.disk.flush()
    return 0


async def keep(drive: AtaDevice) -> int:
    """WRITE BUFFER: the host's block stays in the buffer."""
    drive.kept[:] = drive.buffer[:SECTOR]
    return 0


STEPS = {
    "fill": Step(fill, lambda drive: drive.present(), error=UNC),
    "store": Step(store, lambda drive: drive.stored(), writing=True),
    "keep": Step(keep, lambda drive: drive.complete()),
    "read_dma": Step(read_dma, lambda drive: drive.moved(), error=UNC, dma=True),
    "write_dma": Step(write_dma, lambda drive: drive.moved(), writing=True, dma=True),
    "trim": Step(trim, lambda drive: drive.complete(), writing=True, dma=True),
    "verify": Step(verify, lambda drive: drive.complete(), error=UNC),
    "erase": Step(erase, lambda drive: drive.complete(), writing=True),
    "flush": Step(flush, lambda drive: drive.complete(), writing=True),
}
"""By name, as a saved drive knows them."""
