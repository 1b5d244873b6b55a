"""WitnessNode: lies between a disk and its format and knows what the guest may find there after anything.

Each write is a version of its sectors. What a guest may read after a crash: the last version that it had flushed, or
any version that is not older than that one. Older means: had completed before the other began.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from e2kdisk.aio.engine import IoVec
from e2kdisk.block.node import Node

SECTOR_BYTES = 512


@dataclass(slots=True, eq=False)
class Version:
    """One write, write-zeroes or discard of the guest."""

    offset: int
    length: int
    data: bytes | None
    """None: a discard, after which anything may be read."""
    began: int
    """Positions in the order of beginnings and ends of one run."""
    ended: int | None = None
    mark: int = 0
    """How many changes of the file had completed when it ended."""
    failed: bool = False
    durable: bool = False

    def sector(self, number: int) -> bytes | None:
        """What it put into one sector."""
        if self.data is None:
            return None
        start = number * SECTOR_BYTES - self.offset
        return self.data[start : start + SECTOR_BYTES]


class WitnessNode(Node):
    """Passes everything on. Requests are whole sectors, as controllers make them."""

    def __init__(self, node: Node, completed: Callable[[], int] = lambda: 0) -> None:
        """completed() counts the changes of the file below that have completed."""
        self.scheduler = node.scheduler
        self.name = node.name
        self.read_only = node.read_only
        self.node = node
        self._completed = completed
        self._clock = 0
        self.versions: list[Version] = []
        self.sectors: dict[int, list[Version]] = {}
        """Versions of each sector that was written in this run."""

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes."""
        return self.node.size

    # -- what the guest may rely on ---------------------------------------------------------------

    def completed(self) -> list[Version]:
        """Versions whose request has succeeded: what a flush that begins now must make durable."""
        return [v for v in self.versions if v.ended is not None and not v.failed and not v.durable]

    def promise(self, versions: list[Version]) -> None:
        """The guest was told that these are durable."""
        for version in versions:
            version.durable = True

    def allowed(self, sector: int) -> list[bytes | None]:
        """What this sector may hold after a crash, besides its content before the run if nothing of it is durable.

        None stands for anything.
        """
        versions = self.sectors[sector]
        durable = [version for version in versions if version.durable]
        return [
            version.sector(sector)
            for version in versions
            if not any(version.ended is not None and version.ended < other.began for other in durable)
        ]

    def newest(self, sector: int) -> list[bytes | None]:
        """What this sector may hold when all is written out: versions that no later one has replaced."""
        versions = self.sectors[sector]
        done = [version for version in versions if not version.failed]
        return [
            version.sector(sector)
            for version in versions
            if not any(version.ended is not None and version.ended < other.began for other in done)
        ]

    def keeps_old(self, sector: int, *, cut: bool = True) -> bool:
        """Whether the content before the run may still be there: after a cut, or when all is written out."""
        return not any(version.durable if cut else not version.failed for version in self.sectors[sector])

    # -- Node -------------------------------------------------------------------------------------

    def _begin(self, offset: int, length: int, data: bytes | None) -> Version:
        self._clock += 1
        version = Version(offset, length, data, self._clock)
        self.versions.append(version)
        for sector in range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES)):
            self.sectors.setdefault(sector, []).append(version)
        return version

    async def _watch(self, version: Version, request: Coroutine[Any, Any, None]) -> None:
        """Await a request; one that fails may have changed any sector that it covers."""
        try:
            await request
        except BaseException:
            version.failed = True
            raise
        finally:
            self._clock += 1
            version.ended = self._clock
            version.mark = self._completed()

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read."""
        return self.node.try_read(offset, iov)

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        await self.node.read(offset, iov)

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        data = b"".join(iov)
        await self._watch(self._begin(offset, len(data), data), self.node.write(offset, iov))

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        version = self._begin(offset, length, bytes(length))
        await self._watch(version, self.node.write_zeroes(offset, length, unmap=unmap))

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard."""
        await self._watch(self._begin(offset, length, None), self.node.discard(offset, length))

    async def flush(self) -> None:
        """Node.flush: what it promises is decided by what the guest is told, not here."""
        await self.node.flush()

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        await self.node.truncate(size)

    async def close(self) -> None:
        """Node.close."""
        await self.node.close()
