"""NullNode: reads zeros and drops writes, at no cost; for measuring what lies above it."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.node import Node, zero_fill


class NullNode(Node):
    """Any number of zero bytes; without read_zeroes, a read leaves the buffer as it is."""

    def __init__(
        self,
        scheduler: Scheduler,
        size: int,
        *,
        name: str = "null",
        read_only: bool = False,
        read_zeroes: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.name = name
        self.read_only = read_only
        self.size = size
        self.read_zeroes = read_zeroes

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read: zeros."""
        if self.read_zeroes:
            zero_fill(iov)

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write: dropped."""

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes: nothing to do."""

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: nothing to do."""

    async def flush(self) -> None:
        """Node.flush: nothing to do."""

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        self.size = size

    async def close(self) -> None:
        """Node.close: nothing to release."""
