"""The configuration space of the block device as a table (VIRTIO 1.2 5.2.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from e2kdisk.devices.registers import RW, R, Register, RegisterMap
from e2kdisk.devices.virtio.blk_commands import RANGE_SECTORS_MAX, RANGES_MAX, SECTOR

if TYPE_CHECKING:
    from e2kdisk.devices.virtio.blk import VirtioBlk


def _field(
    offset: int,
    name: str,
    width: int,
    meaning: str,
    read: Callable[[VirtioBlk], int] | int = 0,
    write: Callable[[VirtioBlk, int], None] | None = None,
) -> Register[VirtioBlk]:
    return Register(
        offset=offset,
        name=name,
        access=R if write is None else RW,
        width=width,
        reset=read if isinstance(read, int) else 0,
        meaning=meaning,
        section="VIRTIO 1.2 5.2.4",
        read=None if isinstance(read, int) else read,
        write=write,
    )


def _set_writeback(blk: VirtioBlk, value: int) -> None:
    """Switch the cache; what was written before stays volatile until the next FLUSH (VIRTIO 1.2 5.2.6.2)."""
    blk.disk.write_cache = bool(value & 1)


def _block_sectors(blk: VirtioBlk) -> int:
    return blk.block_size // SECTOR


def _blocks_per_physical(blk: VirtioBlk) -> int:
    return blk.physical_block_size // blk.block_size


CONFIG: RegisterMap[VirtioBlk] = RegisterMap(
    "virtio-blk configuration",
    _field(0, "capacity", 8, "size of the disk in 512-byte sectors", lambda blk: blk.disk.size // SECTOR),
    _field(8, "size_max", 4, "most bytes in a data segment; no limit, SIZE_MAX is not offered"),
    # The header and the status take two descriptors of the ring.
    _field(12, "seg_max", 4, "most data segments in a request", lambda blk: blk.queues[0].size_max - 2),
    _field(16, "cylinders", 2, "legacy geometry, not offered"),
    _field(18, "heads", 1, "legacy geometry, not offered"),
    _field(19, "sectors", 1, "legacy geometry, not offered"),
    _field(20, "blk_size", 4, "bytes in a block", lambda blk: blk.block_size),
    _field(
        24,
        "physical_block_exp",
        1,
        "blocks in a physical block, as a power of 2",
        lambda blk: _blocks_per_physical(blk).bit_length() - 1,
    ),
    _field(25, "alignment_offset", 1, "first aligned block"),
    _field(26, "min_io_size", 2, "smallest good I/O in blocks", _blocks_per_physical),
    _field(28, "opt_io_size", 4, "best I/O in blocks, 0 for not known"),
    _field(32, "writeback", 1, "1 while the write cache is on", lambda blk: int(blk.disk.write_cache), _set_writeback),
    _field(33, "unused0", 1, "zero"),
    _field(34, "num_queues", 2, "number of queues", lambda blk: len(blk.queues)),
    _field(36, "max_discard_sectors", 4, "most sectors in a range of DISCARD", RANGE_SECTORS_MAX),
    _field(40, "max_discard_seg", 4, "most ranges in a DISCARD", RANGES_MAX),
    _field(44, "discard_sector_alignment", 4, "best alignment of DISCARD in sectors", _block_sectors),
    _field(48, "max_write_zeroes_sectors", 4, "most sectors in a range of WRITE_ZEROES", RANGE_SECTORS_MAX),
    _field(52, "max_write_zeroes_seg", 4, "most ranges in a WRITE_ZEROES", RANGES_MAX),
    _field(56, "write_zeroes_may_unmap", 1, "1: UNMAP of WRITE_ZEROES gives space back", 1),
)
