"""Compressed clusters: raw deflate, exactly one cluster out; decompressed on threads when several are wanted."""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import cache

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.aio.gather import gather
from e2kdisk.block.node import Node
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.encryption import scatter
from e2kdisk.qcow2.geometry import Geometry, GuestOffset
from e2kdisk.qcow2.mapping import Compressed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

Buffer = bytes | bytearray
Run = list[tuple[Compressed, IoVec]]
"""Compressed clusters that follow each other on the disk, and where each belongs."""
Packed = deque[tuple[tuple[Compressed, IoVec], memoryview]]
"""The same, with the compressed bytes."""

_CACHE_BYTES = 4 << 20

AT_ONCE = 64
"""Clusters of one request that are decompressed together."""
FOR_THREADS = 4
"""Fewer clusters than this are decompressed on the spot."""


@cache
def inflater() -> Callable[[memoryview, int], Buffer]:
    """The fastest installed way to decompress raw deflate data that may be followed by something else."""
    try:
        from deflate import DeflateError, deflate_decompress
    except ImportError:
        return _inflate_zlib

    def inflate(raw: memoryview, size: int) -> Buffer:
        try:
            return deflate_decompress(raw, size)
        except DeflateError as error:
            raise zlib.error(str(error)) from None

    return inflate


def _inflate_zlib(raw: memoryview, size: int) -> Buffer:
    return zlib.decompressobj(-15).decompress(raw, size)


class Decompressor:
    """Reads compressed clusters and remembers the last ones (reference: qcow2_decompress_cluster)."""

    def __init__(self, file: Node, geometry: Geometry) -> None:
        self._file = file
        self._geometry = geometry
        self._cache: OrderedDict[int, Buffer] = OrderedDict()
        self._limit = max(1, _CACHE_BYTES // geometry.cluster_size)

    async def cluster(self, entry: int) -> Buffer:
        """The contents of the cluster that an L2 entry describes. Raises ImageError when they are broken."""
        data = self._cache.get(entry)
        if data is None:
            (raw,) = await self._read([entry])
            data = self._contents(entry, raw)
            self._cache[entry] = data
            if len(self._cache) > self._limit:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(entry)
        return data

    async def clusters(self, run: Run) -> None:
        """Fill the views of several clusters, the work shared by two threads; nothing is remembered. Raises ImageError.

        Each thread takes the next cluster until none is left: one that wakes up late holds nobody up. The second half
        is read while the first is decompressed.
        """
        middle = (len(run) + 1) // 2
        todo: Packed = deque()
        await gather(self._file.scheduler, [self._half(half, todo) for half in (run[:middle], run[middle:])])

    async def _half(self, run: Run, todo: Packed) -> None:
        todo.extend(zip(run, await self._read([extent.entry for extent, _ in run]), strict=True))
        await self._file.offload(self._fill, todo)

    def _fill(self, todo: Packed) -> None:
        """Decompress each straight into its views, while it is in the processor's cache. Runs on any thread."""
        while todo:
            try:
                (extent, part), raw = todo.popleft()
            except IndexError:  # the other thread was faster
                break
            data = memoryview(self._contents(extent.entry, raw))
            scatter(data[extent.skip : extent.skip + extent.length], part)

    async def _read(self, entries: list[int]) -> list[memoryview]:
        """The compressed bytes of each; neighbours in the file are read at once."""
        places = [self._geometry.compressed_extent(entry) for entry in entries]
        for offset, _ in places:
            if offset >= self._file.size:
                raise self._error(offset, "is past the end of the file")
            if self._file.event is not None:
                await self._file.event("read_compressed")
        packed: list[memoryview] = []
        while len(packed) < len(places):
            start, length = places[len(packed)]
            end = start + length
            near = []
            for offset, length in places[len(packed) :]:
                if not start <= offset <= end:
                    break
                near.append((offset - start, length))
                end = max(end, offset + length)
            raw = memoryview(bytearray(end - start))
            await self._file.read(start, [raw])
            packed += [raw[at : at + length] for at, length in near]
        return packed

    def _contents(self, entry: int, raw: memoryview) -> Buffer:
        offset, _ = self._geometry.compressed_extent(entry)
        try:
            data = inflater()(raw, self._geometry.cluster_size)
        except zlib.error as error:
            raise self._error(offset, f"cannot be decompressed ({error})") from None
        if len(data) != self._geometry.cluster_size:
            what = f"decompresses to {len(data)} bytes instead of {self._geometry.cluster_size}"
            raise self._error(offset, what)
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
    run: Run = []
    done = 0
    while done < length and len(run) < AT_ONCE and (offset + done) >> shift == offset >> shift:
        extent = image.mapping.extent(table, GuestOffset(offset + done), length - done)
        if not isinstance(extent, Compressed):
            break
        run.append((extent, iov_slice(iov, skip + done, extent.length)))
        done += extent.length
    reading = [image.inflight.enter(*image.geometry.compressed_extent(extent.entry)) for extent, _ in run]
    try:
        if len(run) >= FOR_THREADS:
            await image.decompressor.clusters(run)
        else:
            for extent, part in run:
                data = memoryview(await image.decompressor.cluster(extent.entry))
                scatter(data[extent.skip : extent.skip + extent.length], part)
    finally:
        for item in reading:
            image.inflight.leave(item)
    return done
