"""Compressed clusters: raw deflate, exactly one cluster out."""

from __future__ import annotations

import zlib
from collections import OrderedDict

from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.geometry import Geometry

_CACHE_BYTES = 4 << 20


class Decompressor:
    """Reads compressed clusters and remembers the last ones (reference: qcow2_decompress_cluster)."""

    def __init__(self, file: Node, geometry: Geometry) -> None:
        self._file = file
        self._geometry = geometry
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._limit = max(1, _CACHE_BYTES // geometry.cluster_size)

    async def cluster(self, entry: int) -> bytes:
        """The contents of the cluster that an L2 entry describes. Raises ImageError when they are broken."""
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
        inflate = zlib.decompressobj(-15)
        try:
            data = inflate.decompress(raw, size)
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
