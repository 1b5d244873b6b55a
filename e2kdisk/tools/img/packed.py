"""The compressed half of a copy: clusters are compressed on a thread, and written when their turn has come."""

from __future__ import annotations

from e2kdisk.block.node import Node
from e2kdisk.qcow2.compressed_write import compress_clusters, write_packed
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.image import Qcow2Image

ZERO = b""
"""In place of a compressed cluster: it is zeros and need not be written."""


class PackedWriter:
    """Compresses and writes whole clusters of one qcow2 image."""

    def __init__(self, target: Node, *, leave_zeros: bool) -> None:
        assert isinstance(target, Qcow2Image)
        self.target = target
        self.leave_zeros = leave_zeros
        """Clusters of zeros are not written."""
        self.cluster_size = target.geometry.cluster_size

    async def compress(self, view: memoryview, to: int) -> list[bytes | None]:
        """Compress each cluster of a piece; ZERO for one that is left out, None for one that is written as it is."""
        parts = self._parts(view)
        if to % self.cluster_size:
            return [None] * len(parts)  # behind a source that does not end with a cluster
        if parts[-1].nbytes < self.cluster_size and to + view.nbytes != self.target.size:
            return [*await self._compress(parts[:-1]), None]
        return await self._compress(parts)

    async def _compress(self, parts: list[memoryview]) -> list[bytes | None]:
        return await self.target.file.offload(self._compress_here, parts)

    def _compress_here(self, parts: list[memoryview]) -> list[bytes | None]:
        """Runs on any thread."""
        if not self.leave_zeros:
            return compress_clusters(parts, self.cluster_size)
        zeros = [not part[0] and not bytes(part).strip(b"\0") for part in parts]
        work = [part for part, zero in zip(parts, zeros, strict=True) if not zero]
        packed = iter(compress_clusters(work, self.cluster_size))
        return [ZERO if zero else next(packed) for zero in zeros]

    async def write(self, view: memoryview, to: int, packed: list[bytes | None]) -> None:
        """Write what compress() has made of a piece. Raises OSError, ImageError."""
        run: list[bytes] = []
        start = to
        for number, part in enumerate(self._parts(view)):
            item, at = packed[number], to + number * self.cluster_size
            if item:
                start = start if run else at
                run.append(item)
                continue
            if run:
                await write_packed(self.target, GuestOffset(start), run)
                run = []
            if item is None:
                await self.target.write(at, [part])
        if run:
            await write_packed(self.target, GuestOffset(start), run)

    def _parts(self, view: memoryview) -> list[memoryview]:
        return [view[start : start + self.cluster_size] for start in range(0, view.nbytes, self.cluster_size)]
