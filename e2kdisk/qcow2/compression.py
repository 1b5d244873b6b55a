"""Compressed clusters: raw deflate, exactly one cluster out; decompressed on threads when several are wanted."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.aio.gather import gather
from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.encryption import scatter
from e2kdisk.qcow2.geometry import Geometry, GuestOffset
from e2kdisk.qcow2.mapping import Compressed

if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

_CACHE_BYTES = 4 << 20

AT_ONCE = 16
"""Clusters of one request that are decompressed at the same time."""


@cache
def _inflate() -> Callable[[bytearray, int], bytes]:
    """The fastest installed way to decompress raw deflate data that may be followed by something else."""
    try:
        from deflate import DeflateError, deflate_decompress
    except ImportError:
        return _inflate_zlib

    def inflate(raw: bytearray, size: int) -> bytes:
        try:
            return bytes(deflate_decompress(raw, size))
        except DeflateError as error:
            raise zlib.error(str(error)) from None

    return inflate


def _inflate_zlib(raw: bytearray, size: int) -> bytes:
    return zlib.decompressobj(-15).decompress(raw, size)


class Decompressor:
    """Reads compressed clusters and remembers the last ones (reference: qcow2_decompress_cluster)."""

    def __init__(self, file: Node, geometry: Geometry) -> None:
        self._file = file
        self._geometry = geometry
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._limit = max(1, _CACHE_BYTES // geometry.cluster_size)

    async def cluster(self, entry: int, *, threads: bool = False) -> bytes:
        """The contents of the cluster that an L2 entry describes. Raises ImageError when they are broken.

        threads: decompress on a worker thread, because others can go on meanwhile.
        """
        data = self._cache.get(entry)
        if data is not None:
            self._cache.move_to_end(entry)
            return data
        offset, length = self._geometry.compressed_extent(entry)
        if offset >= self._file.size:
            raise self._error(offset, "is past the end of the file")
        raw = bytearray(length)
        if self._file.event is not None:
            await self._file.event("read_compressed")
        await self._file.read(offset, [memoryview(raw)])
        size = self._geometry.cluster_size
        inflate = _inflate()
        try:
            data = await self._file.offload(inflate, raw, size) if threads else inflate(raw, size)
        except zlib.error as error:
            raise self._error(offset, f"cannot be decompressed ({error})") from None
        if len(data) != size:
            raise self._error(offset, f"decompresses to {len(data)} bytes instead of {size}")
        self._cache[entry] = data
        if len(self._cache) > self._limit:
            self._cache.popitem(last=False)
        return data

    def forget(self) -> None:
        """Drop everything: space in the file has been released and may hold something else from now on."""
        self._cache.clear()

    def _error(self, offset: int, what: str) -> ImageError:
        return ImageError(self._file.name, f"compressed cluster at offset {offset:#x}", what)


async def read_compressed_run(image: Qcow2Image, offset: GuestOffset, iov: IoVec, skip: int, length: int) -> int:
    """Read compressed clusters that follow each other, several at once, into iov from byte `skip`; returns the bytes.

    The L2 slice of offset is resident. All clusters are looked up before the first is read: nothing comes between.
    """
    shift = image.geometry.slice_shift
    table = image.mapping.resident(offset)
    run: list[tuple[Compressed, IoVec]] = []
    done = 0
    while done < length and len(run) < AT_ONCE and (offset + done) >> shift == offset >> shift:
        extent = image.mapping.extent(table, GuestOffset(offset + done), length - done)
        if not isinstance(extent, Compressed):
            break
        run.append((extent, iov_slice(iov, skip + done, extent.length)))
        done += extent.length
    await gather(image.scheduler, [read_compressed(image, extent, part, threads=len(run) > 1) for extent, part in run])
    return done


async def read_compressed(image: Qcow2Image, extent: Compressed, part: IoVec, *, threads: bool = False) -> None:
    """Read the part of a compressed cluster that an extent names."""
    host, stored = image.geometry.compressed_extent(extent.entry)
    with image.inflight.reading(host, stored):
        data = await image.decompressor.cluster(extent.entry, threads=threads)
    scatter(memoryview(data)[extent.skip : extent.skip + extent.length], part)
