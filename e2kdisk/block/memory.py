"""MemoryNode: bytes in memory, for tests, firmware variables and throw-away disks."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.node import Node


class MemoryNode(Node):
    """A growable array of bytes; never blocks, nothing is durable."""

    def __init__(self, scheduler: Scheduler, size: int = 0, *, name: str = "memory", read_only: bool = False) -> None:
        self.scheduler = scheduler
        self.name = name
        self.read_only = read_only
        self.size = size
        self.data = bytearray(size)
        """The bytes themselves; its length is the size."""

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read: everything is there."""
        done = 0
        for view in iov:
            part = self.data[offset + done : offset + done + view.nbytes]
            view[: len(part)] = part
            done += len(part)
        return done

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        for view in iov:
            length = view.nbytes
            part = self.data[offset : offset + length]
            view[: len(part)] = part
            if len(part) < length:
                view[len(part) :] = bytes(length - len(part))
            offset += length

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write: extends the array as needed."""
        for view in iov:
            end = offset + view.nbytes
            if end > self.size:
                self._resize(end)
            self.data[offset:end] = view
            offset = end

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        if offset + length > self.size:
            self._resize(offset + length)
        self.data[offset : offset + length] = bytes(length)

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: the bytes read as zeros."""
        length = min(length, self.size - offset)
        if length > 0:
            self.data[offset : offset + length] = bytes(length)

    async def flush(self) -> None:
        """Node.flush: nothing here is durable."""

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        self._resize(size)

    async def close(self) -> None:
        """Node.close: the bytes stay readable in `data`."""

    def _resize(self, size: int) -> None:
        if size > len(self.data):
            self.data.extend(bytes(size - len(self.data)))
        else:
            del self.data[size:]
        self.size = size
