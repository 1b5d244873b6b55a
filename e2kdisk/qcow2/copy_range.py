"""Copy from another file into an image without the data passing through this process (copy_file_range)."""

from __future__ import annotations

from errno import EOPNOTSUPP

from e2kdisk.block.file import FileNode
from e2kdisk.block.node import Node
from e2kdisk.qcow2.allocation import Allocation
from e2kdisk.qcow2.geometry import GuestOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def copy_from(image: Qcow2Image, offset: GuestOffset, source: FileNode, source_offset: int, length: int) -> None:
    """Write length bytes at offset of the disk, taken from a host file.

    Clusters that the range covers in part are read and written as usual: their other bytes must be copied with them.
    Raises OSError (EXDEV, EOPNOTSUPP and the like where the host cannot copy), ImageError.
    """
    async with image.changing(offset, length):
        await _copy(image, offset, source, source_offset, length)


async def _copy(image: Qcow2Image, offset: GuestOffset, source: FileNode, source_offset: int, length: int) -> None:
    done = 0
    while done < length:
        at = GuestOffset(offset + done)
        rest = length - done
        inside = at & image.geometry.cluster_mask
        if inside or (rest < image.geometry.cluster_size and at + rest < image.size):
            step = min(rest, image.geometry.cluster_size - inside)
            view = memoryview(bytearray(step))
            await source.read(source_offset + done, [view])
            await image.write(at, [view])
        else:
            whole = rest if at + rest == image.size else image.geometry.round_down(rest)
            step = await _copy_run(image, at, source, source_offset + done, whole)
        done += step


async def _copy_run(image: Qcow2Image, offset: GuestOffset, source: FileNode, source_offset: int, length: int) -> int:
    """Copy what one claim takes, from the start of a cluster on; returns its length."""
    await image.gate.passing()
    async with image.lock:
        claim = await image.allocator.claim(offset, length)
        image.guard.need_data(image.name, claim.host, claim.length)
        # Clusters in use are guarded like those of any other write in flight.
        item = image.inflight.enter_write(claim.host, claim.length)
    try:
        try:
            if isinstance(claim, Allocation) and claim.length & image.geometry.cluster_mask and not claim.fresh:
                await image.file.write_zeroes(claim.host, claim.clusters << image.geometry.cluster_bits)
            await file_of(image.file).copy_from(source, source_offset, claim.host, claim.length)
        finally:
            image.inflight.leave_write(item)
            image.order.note_unsynced()
        if isinstance(claim, Allocation):
            async with image.lock:
                await image.allocator.link(claim)
    finally:
        if isinstance(claim, Allocation):
            await image.finish(claim)
    return claim.length


def file_of(node: Node) -> FileNode:
    """The host file that a node is. Raises OSError where data cannot be copied by the host."""
    if not isinstance(node, FileNode):
        raise OSError(EOPNOTSUPP, "is not a file of the host", node.name)
    return node
