"""BlkverifyNode: every request goes to an image and to a raw copy of it, and what they read must be the same."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from e2kdisk.aio.engine import IoVec, iov_length
from e2kdisk.block.node import Node
from e2kdisk.block.status import BlockStatus
from e2kdisk.errors import MismatchError

Request = Coroutine[Any, Any, None]


class BlkverifyNode(Node):
    """Shows the image under test; the raw copy is written alike and compared at every read."""

    def __init__(self, raw: Node, test: Node) -> None:
        self.scheduler = test.scheduler
        self.name = test.name
        self.read_only = test.read_only
        self.raw = raw
        self.test = test

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes; those of the image under test."""
        return self.test.size

    async def _both(self, on_test: Request, on_raw: Request) -> None:
        """Both, whatever becomes of the first. Raises MismatchError if only one of them fails."""
        errors: list[OSError | None] = []
        for request in (on_test, on_raw):
            try:
                await request
            except OSError as error:
                errors.append(error)
            else:
                errors.append(None)
        failed, raw_failed = errors
        if (failed is None) != (raw_failed is None):
            raise MismatchError(f"blkverify: return value mismatch: {failed or 'done'}, {raw_failed or 'done'}")
        if failed is not None:
            raise failed

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read. Raises MismatchError that names the first byte that differs."""
        length = iov_length(iov)
        copy = bytearray(length)
        await self._both(self.test.read(offset, iov), self.raw.read(offset, [memoryview(copy)]))
        data = b"".join(iov)
        if data != copy:
            at = next(index for index in range(length) if data[index] != copy[index])
            what = f"read offset={offset} bytes={length} contents mismatch at offset {offset + at}"
            raise MismatchError(f"blkverify: {what}")

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        await self._both(self.test.write(offset, iov), self.raw.write(offset, iov))

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        raw = self.raw.write_zeroes(offset, length, unmap=unmap)
        await self._both(self.test.write_zeroes(offset, length, unmap=unmap), raw)

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: not passed on; the two could read differently afterwards."""

    async def flush(self) -> None:
        """Node.flush: the image under test; the copy is only compared with."""
        await self.test.flush()

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status: of the image under test."""
        return await self.test.status(offset, length)

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        await self.test.truncate(size)
        await self.raw.truncate(size)

    async def close(self) -> None:
        """Node.close."""
        try:
            await self.test.close()
        finally:
            await self.raw.close()
