"""NullNode: reads zeros and drops writes, at no cost; for measuring what lies above it."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.node import Node


class NullNode(Node):
    """Any number of zero bytes."""

    def __init__(self, scheduler: Scheduler, size: int, *, name: str = "null", read_only: bool = False) -> None:
        self.scheduler = scheduler
        self.name = name
        self.read_only = read_only
        self.size = size

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read: zeros."""
        for view in iov:
            view[:] = bytes(view.nbytes)

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
