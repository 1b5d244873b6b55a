"""Requests to the open image, as coroutines: what all reading and writing commands do alike."""

from __future__ import annotations

import errno
import os

from e2kdisk.tools.io.image import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.aio.engine import IoVec
    from e2kdisk.qcow2.image import Qcow2Image

UNREAD = b"\xab"
"""What a read buffer holds before: a node that leaves it alone shows."""
_COPY_BYTES = 1 << 20


def buffer(length: int, *, misaligned: bool, fill: bytes) -> memoryview:
    """A buffer of its own for one request. Raises OSError when there is no memory for it."""
    skip = 16 if misaligned else 0
    try:
        return memoryview(bytearray(fill) * (length + skip))[skip:]
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from None


def check_range(image: Image, offset: int, length: int) -> None:
    """Raise OSError (EIO) for a range that is not inside the disk."""
    if offset + length > image.length:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def read(image: Image, offset: int, iov: IoVec, length: int) -> None:
    """Read; with copy-on-read, what comes from the backing file is kept in the image."""
    check_range(image, offset, length)
    if not length:
        return
    if image.flags.copy_on_read:
        await _copy_up(image, offset, length)
    await image.node.read(offset, iov)


async def _copy_up(image: Image, offset: int, length: int) -> None:
    qcow2 = image.qcow2()
    if qcow2 is None or qcow2.backing is None:
        return
    start = qcow2.geometry.round_down(offset)
    end = min(qcow2.geometry.round_up(offset + length), image.node.size)
    while start < end:
        status = await image.node.status(start, min(end - start, _COPY_BYTES))
        if not status.allocated:
            data = memoryview(bytearray(status.length))
            await image.node.read(start, [data])
            if any(data):
                await image.node.write(start, [data])
            else:
                await image.node.write_zeroes(start, status.length)
        start += status.length


async def write(image: Image, offset: int, iov: IoVec, length: int, *, fua: bool = False) -> None:
    """Write; with zero detection, data that is all zeros becomes a zero request."""
    check_range(image, offset, length)
    if length:
        if image.detect_zeroes != "off" and not any(any(view) for view in iov):
            await image.node.write_zeroes(offset, length, unmap=image.detect_zeroes == "unmap")
        else:
            await image.node.write(offset, iov)
    if fua or image.writethrough:
        await image.node.flush()


async def write_zeroes(image: Image, offset: int, length: int, *, unmap: bool, fua: bool) -> None:
    """Write zeros."""
    check_range(image, offset, length)
    if length:
        await image.node.write_zeroes(offset, length, unmap=unmap)
    if fua or image.writethrough:
        await image.node.flush()


async def write_compressed(image: Image, offset: int, iov: IoVec, length: int) -> None:
    """Write one cluster compressed. Raises OSError: EINVAL for what is no cluster, EIO for several."""
    check_range(image, offset, length)
    qcow2 = image.qcow2()
    if qcow2 is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    from e2kdisk.aio.engine import iov_slice

    if not length:
        return
    cluster = qcow2.geometry.cluster_size
    if offset % cluster or (length % cluster and offset + length != image.length):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    for start in range(0, length, cluster):
        # Ours could replace what is there; scripts rely on the refusal.
        if await _has_space(qcow2, offset + start):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        await qcow2.write_compressed(offset + start, iov_slice(iov, start, min(cluster, length - start)))


async def _has_space(qcow2: Qcow2Image, offset: int) -> bool:
    """Whether a cluster has space in the file already, whatever it reads as."""
    from e2kdisk.qcow2 import layout
    from e2kdisk.qcow2.geometry import GuestOffset

    await qcow2.status(offset, 1)
    table = qcow2.mapping.resident(GuestOffset(offset))
    if table is None:
        return False
    entry = table.entries.values[(offset >> qcow2.geometry.cluster_bits) & qcow2.geometry.slice_mask]
    return bool(entry & (layout.OFFSET_MASK | layout.COMPRESSED))


async def discard(image: Image, offset: int, length: int) -> None:
    """Discard."""
    check_range(image, offset, length)
    if length and image.discards:
        await image.node.discard(offset, min(length, image.node.size - offset))
    if image.writethrough:
        await image.node.flush()


async def read_state(image: Image, offset: int, iov: IoVec) -> None:
    """Read VM state."""
    qcow2 = image.qcow2()
    if qcow2 is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    from e2kdisk.qcow2.vm_state import read_vm_state

    await read_vm_state(qcow2, offset, iov)


async def write_state(image: Image, offset: int, iov: IoVec) -> None:
    """Write VM state."""
    qcow2 = image.qcow2()
    if qcow2 is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    from e2kdisk.qcow2.vm_state import write_vm_state

    await write_vm_state(qcow2, offset, iov)
    await qcow2.flush()
