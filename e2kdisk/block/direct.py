"""DirectFileNode: a file past the host's page cache (O_DIRECT), for requests of any alignment.

The kernel wants offset, length and memory aligned to the device's blocks. What is not goes through a bounce buffer; a
write that covers part of a block reads that block, changes it and writes it back. Meanwhile no other write may touch
the block, or its bytes would be overwritten with what was read before it:

    time |  write A, bytes 0-99          write B, bytes 100-199 of the same block
         |  read block
         |                               read block
         |  write block (A)
         v                               write block (B, and 0-99 as they were before A: A is lost)
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from e2kdisk.aio.engine import IOV_MAX, Engine, IoVec, iov_length, iov_slice
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.sync import WaitQueue
from e2kdisk.block.file import FileNode
from e2kdisk.block.node import ReadOnlyError, zero_fill
from e2kdisk.errors import ImageError

SAFE_ALIGNMENT = 4096
"""What every device known to us accepts, in bytes."""

EVERYTHING = 1 << 63
"""An end behind every file, in bytes."""


def check_direct(fd: int, name: str) -> int:
    """Return the alignment in bytes that this O_DIRECT file descriptor wants, found by reading only.

    Raises ImageError when even SAFE_ALIGNMENT does not do.
    """
    buffer = mmap.mmap(-1, 2 * SAFE_ALIGNMENT)
    memory = memoryview(buffer)
    for alignment in (512, SAFE_ALIGNMENT):
        try:
            # Everything at an odd multiple. Of an empty range the kernel checks nothing, so that proves nothing.
            count = os.preadv(fd, [memory[alignment : 2 * alignment]], alignment)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return alignment if count == alignment else SAFE_ALIGNMENT
    raise ImageError(name, "", f"O_DIRECT does not accept blocks of {SAFE_ALIGNMENT} bytes; use cache=writeback")


class RangeLock:
    """Ranges of bytes in use: an exclusive one keeps out every other, shared ones may overlap; first come first."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._held: list[tuple[int, int, bool, WaitQueue]] = []
        self._scheduler = scheduler

    @asynccontextmanager
    async def hold(self, start: int, end: int, *, exclusive: bool) -> AsyncGenerator[None, None]:
        """Hold the bytes from start to end, waiting for those who came earlier and are in the way."""
        mine = (start, end, exclusive, WaitQueue(self._scheduler))
        self._held.append(mine)
        try:
            while (other := self._in_the_way(mine)) is not None:
                await other.wait()
            yield
        finally:
            self._held.remove(mine)
            mine[3].wake_all()

    def _in_the_way(self, mine: tuple[int, int, bool, WaitQueue]) -> WaitQueue | None:
        # Only earlier ones: nobody waits for somebody who waits for him.
        for other in self._held:
            if other is mine:
                return None
            start, end, exclusive, queue = other
            if start < mine[1] and mine[0] < end and (exclusive or mine[2]):
                return queue
        return None


class DirectFileNode(FileNode):
    """A FileNode whose file descriptor has O_DIRECT. Every request goes to a thread: it waits for the device."""

    def __init__(
        self, fd: int, name: str, engine: Engine, size: int, *, read_only: bool = False, alignment: int = SAFE_ALIGNMENT
    ) -> None:
        super().__init__(fd, name, engine, size, read_only=read_only)
        self.alignment = alignment
        """Bytes, a power of two."""
        self._ranges = RangeLock(self.scheduler)
        self._physical_size = size
        """Where the host file ends: a whole block may reach past `size`, with zeros."""

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read: nothing is ever there at once (RWF_NOWAIT does not keep a direct read from waiting)."""
        return 0

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        length = iov_length(iov)
        if offset >= self.size or not length:
            zero_fill(iov)
            return
        start, end = self._blocks(offset, length)
        done = None
        if (start, end) == (offset, offset + length):
            done = await self._read_blocks(offset, iov)
        if done is None:
            bounce = memoryview(mmap.mmap(-1, end - start))
            await self._read_whole(start, bounce)
            scatter(bounce[offset - start :], iov)
        elif done < length:
            zero_fill(iov_slice(iov, done, length - done))

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        length = iov_length(iov)
        if not length:
            return
        start, end = self._blocks(offset, length)
        whole = (start, end) == (offset, offset + length)
        async with self._ranges.hold(start, end, exclusive=not whole):
            if not whole or not await self._write_blocks(offset, iov):
                bounce = memoryview(mmap.mmap(-1, end - start))
                if start < offset:
                    await self._read_whole(start, bounce[: self.alignment])
                if offset + length < end:
                    await self._read_whole(end - self.alignment, bounce[-self.alignment :])
                gather(iov, bounce[offset - start :])
                if not await self._write_blocks(start, [bounce]):
                    raise OSError(errno.EINVAL, f"O_DIRECT refuses blocks of {self.alignment} bytes", self.name)
        self.size = max(self.size, offset + length)
        self._physical_size = max(self._physical_size, end)
        self._written += 1

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        async with self._ranges.hold(0, EVERYTHING, exclusive=True):
            await super().truncate(size)
            self._physical_size = self.size

    async def close(self) -> None:
        """Node.close: cuts off what whole blocks have added to the end."""
        try:
            if self.fd >= 0 and not self.read_only and not self.is_device:
                async with self._ranges.hold(0, EVERYTHING, exclusive=True):
                    # The size is looked at only now: writes that were in flight have extended it.
                    if self._physical_size > self.size:
                        await super().truncate(self.size)
        finally:
            await super().close()

    async def _zero_range(self, offset: int, length: int) -> bool:
        async with self._hold_bytes(offset, length):
            return await super()._zero_range(offset, length)

    async def _punch_hole(self, offset: int, length: int) -> bool:
        async with self._hold_bytes(offset, length):
            return await super()._punch_hole(offset, length)

    @asynccontextmanager
    async def _hold_bytes(self, offset: int, length: int) -> AsyncGenerator[None, None]:
        start, end = self._blocks(offset, length)
        async with self._ranges.hold(start, end, exclusive=(start, end) != (offset, offset + length)):
            yield

    def _blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Start and end of the blocks that length bytes at offset touch."""
        mask = self.alignment - 1
        return offset & ~mask, (offset + length + mask) & ~mask

    async def _read_blocks(self, offset: int, iov: IoVec) -> int | None:
        """Read whole blocks; bytes read, fewer at the end of the file, None if the memory is not aligned."""
        try:
            return await self._call(_read_direct, self.fd, iov, offset, self.alignment)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    async def _read_whole(self, offset: int, bounce: memoryview) -> None:
        """Read whole blocks into aligned memory that holds zeros; they stay where the file has ended."""
        if await self._read_blocks(offset, [bounce]) is None:
            raise OSError(errno.EINVAL, f"O_DIRECT refuses blocks of {self.alignment} bytes", self.name)

    async def _write_blocks(self, offset: int, iov: IoVec) -> bool:
        """Write whole blocks; False if the memory is not aligned."""
        try:
            with self._request():
                await self.engine.write(self.fd, iov, offset)
            return True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False


def _read_direct(fd: int, iov: IoVec, offset: int, alignment: int) -> int:
    """Blocking read like engine.read_fully, but never from the middle of a block, where the file ends."""
    wanted = iov_length(iov)
    done = 0
    while done < wanted:
        count = os.preadv(fd, iov_slice(iov, done, wanted - done)[:IOV_MAX], offset + done)
        done += count
        if count == 0 or count % alignment:
            break
    return done


def gather(iov: IoVec, target: memoryview) -> None:
    """Copy all of iov to the start of target."""
    position = 0
    for view in iov:
        target[position : position + view.nbytes] = view
        position += view.nbytes


def scatter(source: memoryview, iov: IoVec) -> None:
    """Fill iov from the start of source, which is at least as long."""
    position = 0
    for view in iov:
        view[:] = source[position : position + view.nbytes]
        position += view.nbytes
