"""Write compressed clusters: compress, find room, write, link (reference: qcow2_alloc_compressed_cluster_offset)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.geometry import Geometry, GuestOffset, HostOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.qcow2.image import Qcow2Image

_WINDOW_BITS = -12
"""Raw deflate with a 4 KiB window: other readers give their decompressor no more than that."""

# isal alone makes 1.05 to 1.12 of zlib's size. It loses most where about a third is left: there each sixteenth cluster
# goes to zlib too, which brings the files of a usual disk below 1.07 for a tenth more time.
_CLOSER_EVERY = 16
_CLOSER_FROM, _CLOSER_TO = 0.2, 0.6
_CLOSER_LEVEL = 4


@cache
def _isal() -> Any:
    """The module that compresses several times faster than zlib, at 1.06 of its size; None if it is not installed."""
    try:
        from isal import igzip_lib
    except ImportError:
        return None
    return igzip_lib


def compress_cluster(data: bytes | bytearray | memoryview, level: int | None = None) -> bytes | None:
    """Compress one cluster; None if it does not get smaller.

    level None: isal when it is installed, else zlib's default; a number: zlib's level.
    """
    isal = _isal() if level is None else None
    if isal is not None:
        # Its level 3 takes half as long again for a thousandth; the small buffer makes blocks that fit a cluster.
        packed = isal.compress(data, 2, isal.COMP_DEFLATE, isal.MEM_LEVEL_SMALL, -_WINDOW_BITS)
    else:
        packed = _compress_zlib(data, 6 if level is None else level)
    return packed if len(packed) < len(data) else None


def _compress_zlib(data: bytes | bytearray | memoryview, level: int) -> bytes:
    deflate = zlib.compressobj(level, zlib.DEFLATED, _WINDOW_BITS)
    return deflate.compress(data) + deflate.flush()


def compress_clusters(parts: Sequence[memoryview], size: int, level: int | None = None) -> list[bytes | None]:
    """Compress several clusters of size bytes, the last of which may be cut; None for those that do not get smaller.

    Runs on any thread: the caller's wait for one costs as much as a small cluster, so it is sent many.
    """
    results: list[bytes | None] = []
    for number, part in enumerate(parts):
        data = part if part.nbytes == size else bytes(part) + bytes(size - part.nbytes)
        packed = compress_cluster(data, level)
        if packed and level is None and not number % _CLOSER_EVERY and _isal() is not None:
            share = len(packed) / size
            if _CLOSER_FROM < share < _CLOSER_TO:
                packed = min(packed, _compress_zlib(data, _CLOSER_LEVEL), key=len)
        results.append(packed)
    return results


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
        cluster = memoryview(b"".join(part))
        (packed,) = await image.file.offload(compress_clusters, [cluster], size, level)
        if packed is None:
            await image.write(offset + start, part)
        else:
            await write_packed(image, GuestOffset(offset + start), [packed])


async def write_packed(image: Qcow2Image, offset: GuestOffset, packed: Sequence[bytes]) -> None:
    """Write compressed clusters, one behind the other, and link them. Raises OSError, ImageError.

    The lock is held throughout, so nothing overlaps them.
    """
    geometry = image.geometry
    length = min(len(packed) << geometry.cluster_bits, image.size - offset)
    async with image.changing(offset, length), image.lock:
        while packed:
            slice_end = ((offset >> geometry.slice_shift) + 1) << geometry.slice_shift
            part = packed[: (slice_end - offset) >> geometry.cluster_bits]
            await _write_in_slice(image, offset, part)
            packed = packed[len(part) :]
            offset = GuestOffset(offset + (len(part) << geometry.cluster_bits))


async def _write_in_slice(image: Qcow2Image, offset: GuestOffset, packed: Sequence[bytes]) -> None:
    """Write compressed clusters that one L2 slice maps: what lies behind each other in the file with one call."""
    geometry = image.geometry
    await image.allocator.settle(offset, len(packed) << geometry.cluster_bits)
    places: list[HostOffset] = []
    try:
        for item in packed:
            places.append(await image.packing.allocate(len(item)))
        first = 0
        for number in range(1, len(packed) + 1):
            if number == len(packed) or places[number] != places[number - 1] + len(packed[number - 1]):
                if image.file.event is not None:
                    await image.file.event("write_compressed")
                await image.file.write(places[first], [memoryview(item) for item in packed[first:number]])
                first = number
        image.order.note_unsynced()
        if image.file.event is not None:
            await image.file.event("l2_update_compressed")
        table = await image.mapping.writable(offset)
    except BaseException:
        for host, item in zip(places, packed, strict=False):
            await image.refcounts.release(host, len(item))
        raise
    index = (offset >> geometry.cluster_bits) & geometry.slice_mask
    old = list(table.entries.values[index : index + len(packed)])
    image.mapping.set_entries(table, index, [_entry(geometry, *item) for item in zip(places, packed, strict=True)])
    for entry in old:
        image.allocator.free_entry(entry)


def _entry(geometry: Geometry, host: HostOffset, packed: bytes) -> int:
    """The L2 entry of a compressed cluster (specification, compressed cluster descriptor)."""
    sectors = ((host & 511) + len(packed) - 1) // 512
    return layout.COMPRESSED | (sectors << geometry.compressed_shift) | host
