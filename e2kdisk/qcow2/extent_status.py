"""What one layer says of a run of its disk (Node.status), from the extent that maps it."""

from __future__ import annotations

from e2kdisk.block.status import BlockStatus
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.mapping import Allocated, Compressed, Extent, Unallocated, Zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


def status_of(image: Qcow2Image, offset: GuestOffset, extent: Extent) -> BlockStatus:
    """The status of the extent at an offset, which has been looked up just now."""
    match extent:
        case Allocated(host, run):
            return BlockStatus(run, allocated=True, zero=False, host_offset=None if image.cipher else host)
        case Zero(run):
            run, space = image.mapping.zero_space(offset, run)
            return BlockStatus(run, allocated=True, zero=True, host_offset=space)
        case Compressed():
            return BlockStatus(extent.length, allocated=True, zero=False, compressed=True)
        case Unallocated(run):
            behind = image.backing is None or offset >= image.backing.size
            return BlockStatus(run, allocated=False, zero=behind)


async def data_run(image: Qcow2Image, offset: GuestOffset, length: int) -> int:
    """How many bytes from offset an image holds as data, wherever they lie; 0 if it does not."""
    mapping = image.mapping
    while True:
        table = mapping.resident(offset)
        if table is not None or not mapping.has_l2_table(offset):
            return mapping.data_run(table, offset, length)
        async with image.lock:
            await mapping.load(offset)
