"""ReadOnlyNode: a second, read-only look at a node that stays somebody else's."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.block.node import Node
from e2kdisk.block.status import BlockStatus


class ReadOnlyNode(Node):
    """Passes reads on; closing it leaves the node open."""

    def __init__(self, node: Node) -> None:
        self.scheduler = node.scheduler
        self.name = node.name
        self.read_only = True
        self._node = node

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes."""
        return self._node.size

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read."""
        return self._node.try_read(offset, iov)

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        await self._node.read(offset, iov)

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status."""
        return await self._node.status(offset, length)

    async def close(self) -> None:
        """Node.close: nothing is ours."""
