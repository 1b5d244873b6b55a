"""Write compressed clusters: compress, find room, write, link (reference: qcow2_alloc_compressed_cluster_offset)."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import GuestOffset

if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_WINDOW_BITS = -12
"""Raw deflate with a 4 KiB window: other readers give their decompressor no more than that."""


@cache
def _deflate() -> Any:
    """The module that compresses: isal where it is installed, several times faster at 1.07 of the size."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def compress_cluster(data: bytes | bytearray, level: int | None = None) -> bytes | None:
    """Compress one cluster; None if it does not get smaller.

    level None: isal's fastest when isal is installed, else zlib's default; a number: zlib's level.
    """
    module = zlib if level is not None else _deflate()
    if level is None:
        level = 6 if module is zlib else 1
    deflate = module.compressobj(level, zlib.DEFLATED, _WINDOW_BITS)
    packed: bytes = deflate.compress(data) + deflate.flush()
    return packed if len(packed) < len(data) else None


async def write_compressed(image: Qcow2Image, offset: int, iov: IoVec, length: int, level: int | None = None) -> None:
    """Write whole clusters compressed; the last one of the disk may be cut. Raises UsageError, OSError, ImageError.

    A cluster that does not get smaller is written as it is. Whatever was there before is replaced.
    """
    geometry = image.geometry
    size = geometry.cluster_size
    if image.cipher is not None:
        raise UsageError(f"{image.name}: an encrypted image has no compressed clusters")
    if offset & geometry.cluster_mask or (length & geometry.cluster_mask and offset + length != image.size):
        raise UsageError(f"{image.name}: compressed writes are whole clusters of {size} bytes")
    for start in range(0, length, size):
        part = iov_slice(iov, start, min(size, length - start))
        cluster = bytearray(b"".join(part))
        cluster.extend(bytes(size - len(cluster)))
        packed = await image.file.offload(compress_cluster, cluster, level)
        if packed is None:
            await image.write(offset + start, part)
        else:
            await _write_packed(image, GuestOffset(offset + start), packed)


async def _write_packed(image: Qcow2Image, offset: GuestOffset, packed: bytes) -> None:
    """Write one compressed cluster and link it; the lock is held throughout, so nothing overlaps it."""
    geometry = image.geometry
    async with image.lock:
        await image.allocator.settle(offset, geometry.cluster_size)
        host = await image.packing.allocate(len(packed))
        try:
            if image.file.event is not None:
                await image.file.event("write_compressed")
            await image.file.write(host, [memoryview(packed)])
            image.order.note_unsynced()
            table = await image.mapping.writable(offset)
        except BaseException:
            await image.refcounts.release(host, len(packed))
            raise
        sectors = ((host & 511) + len(packed) - 1) // 512
        entry = layout.COMPRESSED | (sectors << geometry.compressed_shift) | host
        index = (offset >> geometry.cluster_bits) & geometry.slice_mask
        old = table.entries.values[index]
        image.mapping.set_entries(table, index, [entry])
        image.allocator.free_entry(old)
