"""The VM state area: bytes behind the end of the disk, mapped by the same L1 table (l1_vm_state_index)."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec, iov_length
from e2kdisk.block.node import zero_fill
from e2kdisk.block.read_only import ReadOnlyNode
from e2kdisk.qcow2.geometry import GuestOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.qcow2.snapshot_table import Snapshot


def vm_state_start(image: Qcow2Image) -> int:
    """Where the area begins in the guest address space: the first L1 entry that no byte of the disk needs."""
    return image.geometry.l1_entries(image.size) << image.geometry.l1_shift


async def write_vm_state(image: Qcow2Image, offset: int, iov: IoVec) -> None:
    """Write at a byte offset of the area, growing the L1 table as needed. Raises ImageError, OSError."""
    image.need_write_access()
    if image.file.event is not None:
        await image.file.event("vmstate_save")
    start = vm_state_start(image) + offset
    length = iov_length(iov)
    async with image.lock:
        await image.mapping.grow_l1(image.geometry.l1_entries(start + length))
    await image.write_beyond(GuestOffset(start), iov, length)


async def read_vm_state(image: Qcow2Image, offset: int, iov: IoVec) -> None:
    """Read at a byte offset of the area; what was never written reads as zeros, never as backing data."""
    start = vm_state_start(image) + offset
    length = iov_length(iov)
    mapped = max(0, min(length, (len(image.mapping.l1.values) << image.geometry.l1_shift) - start))
    zero_fill(iov)
    if image.file.event is not None:
        await image.file.event("vmstate_load")
    await image.read_beyond(GuestOffset(start), iov, mapped)


async def read_snapshot_vm_state(image: Qcow2Image, snapshot: Snapshot, iov: IoVec) -> None:
    """Read the area as a snapshot kept it, from its start; the image stays as it is. Raises ImageError, OSError."""
    from e2kdisk.qcow2.image import Qcow2Image

    await image.flush()  # the view reads tables from the file
    header = image.header.with_(
        l1_table_offset=snapshot.l1_table_offset,
        l1_size=snapshot.l1_size,
        size=snapshot.disk_size,
    )
    view = await Qcow2Image.open(ReadOnlyNode(image.file), header, cipher=image.cipher)
    await read_vm_state(view, 0, iov)


async def discard_vm_state(image: Qcow2Image, length: int) -> None:
    """Release the first length bytes of the area: a snapshot holds them now."""
    start = vm_state_start(image)
    length = min(length, (len(image.mapping.l1.values) << image.geometry.l1_shift) - start)
    if length > 0:
        await image.unmap(GuestOffset(start), image.geometry.round_up(length))
