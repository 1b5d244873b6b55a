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

AT_ONCE = 64
"""Clusters of one request that are decompressed together."""
FOR_THREADS = 4
"""Fewer clusters than this are decompressed on the spot."""


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


def _inflate_all(raw: list[bytearray], size: int) -> list[bytes | str]:
    """Decompress each; the text of an error in place of what is broken. Runs on any thread."""
    inflate = _inflate()
    results: list[bytes | str] = []
    for item in raw:
        try:
            results.append(inflate(item, size))
        except zlib.error as error:
            results.append(str(error))
    return results


def _inflate_zlib(raw: bytearray, size: int) -> bytes:
    return zlib.decompressobj(-15).decompress(raw, size)


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
        if data is None:
            raw = await self._read(entry)
            data = self._checked(entry, _inflate_all([raw], self._geometry.cluster_size)[0])
            self._cache[entry] = data
            if len(self._cache) > self._limit:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(entry)
        return data

    async def clusters(self, entries: list[int]) -> list[bytes]:
        """The contents of several clusters, the work shared by two threads; nothing is remembered.

        Each thread is sent its whole share at once: waking one costs as much as decompressing a small cluster.
        """
        middle = (len(entries) + 1) // 2
        shares = [self._share(part) for part in (entries[:middle], entries[middle:]) if part]
        return [data for share in await gather(self._file.scheduler, shares) for data in share]

    async def _share(self, entries: list[int]) -> list[bytes]:
        raw = [await self._read(entry) for entry in entries]
        results = await self._file.offload(_inflate_all, raw, self._geometry.cluster_size)
        return [self._checked(entry, result) for entry, result in zip(entries, results, strict=True)]

    async def _read(self, entry: int) -> bytearray:
        offset, length = self._geometry.compressed_extent(entry)
        if offset >= self._file.size:
            raise self._error(offset, "is past the end of the file")
        raw = bytearray(length)
        if self._file.event is not None:
            await self._file.event("read_compressed")
        await self._file.read(offset, [memoryview(raw)])
        return raw

    def _checked(self, entry: int, result: bytes | str) -> bytes:
        offset, _ = self._geometry.compressed_extent(entry)
        if isinstance(result, str):
            raise self._error(offset, f"cannot be decompressed ({result})")
        if len(result) != self._geometry.cluster_size:
            what = f"decompresses to {len(result)} bytes instead of {self._geometry.cluster_size}"
            raise self._error(offset, what)
        return result

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
    reading = [image.inflight.enter(*image.geometry.compressed_extent(extent.entry)) for extent, _ in run]
    try:
        for (extent, part), data in zip(run, await _contents(image, run), strict=True):
            scatter(memoryview(data)[extent.skip : extent.skip + extent.length], part)
    finally:
        for item in reading:
            image.inflight.leave(item)
    return done


async def _contents(image: Qcow2Image, run: list[tuple[Compressed, IoVec]]) -> list[bytes]:
    if len(run) < FOR_THREADS:
        return [await image.decompressor.cluster(extent.entry) for extent, _ in run]
    return await image.decompressor.clusters([extent.entry for extent, _ in run])
