"""FileNode: an open file or block device of the host, through an I/O engine.

The way of a request that need not block is one coroutine and one system call. Everything else (what the page cache
does not hold, the end of the file, more views than one call takes) goes the long way, `_read_rest`, `_write_rest`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager

from e2kdisk.aio.engine import INLINE_LIMIT, Engine, IoVec, iov_length, iov_slice
from e2kdisk.aio.sync import WaitQueue
from e2kdisk.block.fallocate import NOT_HERE, NOT_SUPPORTED, allocate_range, punch_hole, zero_range
from e2kdisk.block.locks import lock_image
from e2kdisk.block.node import Node, ReadOnlyError, zero_fill, zero_iov
from e2kdisk.block.options import cache_mode
from e2kdisk.block.status import BlockStatus
from e2kdisk.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

ZERO_CHUNK = 64 << 20
"""Most zeros that are written with one call to the engine, where the host cannot do it faster (bytes)."""


class FileNode(Node):
    """An open host file of `size` bytes; a write past the end extends it."""

    def __init__(
        self, fd: int, name: str, engine: Engine, size: int, *, read_only: bool = False, no_flush: bool = False
    ) -> None:
        """Take over an open file descriptor; use FileNode.open."""
        self.scheduler = engine.scheduler
        self.engine = engine
        self.name = name
        self.read_only = read_only
        self.size = size
        self.fd = fd
        """The file descriptor, -1 when closed."""
        info = os.fstat(fd)
        self.identity = (info.st_dev, info.st_ino)
        self.is_device = stat.S_ISBLK(info.st_mode)
        self._try_read = engine.try_read
        self._try_write: Callable[[int, IoVec, int], int] = self._refuse_write if read_only else engine.try_write
        self._no_flush = no_flush
        # Writes that have completed, counted, and how many of them are known to be on the disk. The first flush
        # finds a difference: what an earlier process wrote here may still be in the page cache.
        self._written = 1
        self._durable = 0
        self._flush_failed = False
        self.keeps_space = False
        """Discards do nothing, and zeros keep their space (discard=ignore)."""
        self._can_zero_range = True
        self._can_punch_hole = True
        self._in_flight = 0
        self._idle = WaitQueue(self.scheduler)

    @classmethod
    async def open(
        cls,
        filename: str,
        engine: Engine,
        *,
        read_only: bool = False,
        cache: str = "writeback",
        force_share: bool = False,
        create: bool = False,
    ) -> FileNode:
        """Open (with create: make, or empty) a regular file or block device, and lock it as QEMU does.

        cache is a key of options.CACHE_MODES; its writethrough is the business of the Disk on top. Raises ImageError
        when the file cannot be opened or locked.
        """
        mode = cache_mode(cache)
        flags = os.O_CLOEXEC | os.O_NOCTTY | (os.O_RDONLY if read_only else os.O_RDWR)
        if mode.direct:
            from e2kdisk.block.direct import DirectFileNode, check_direct

            flags |= os.O_DIRECT
        fd = _open_fd(filename, flags | (os.O_CREAT if create else 0))
        try:
            if not force_share:
                lock_image(fd, filename, writable=not read_only)
            if create:
                os.ftruncate(fd, 0)  # only now: nobody else is using it
            size = os.lseek(fd, 0, os.SEEK_END)
            if mode.direct:
                alignment = check_direct(fd, filename)
                return DirectFileNode(fd, filename, engine, size, read_only=read_only, alignment=alignment)
            return cls(fd, filename, engine, size, read_only=read_only, no_flush=mode.no_flush)
        except OSError as error:
            os.close(fd)
            raise ImageError(filename, "", f"cannot be opened: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise

    # -- reading ----------------------------------------------------------------------------------

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read: what the page cache holds."""
        return self._try_read(self.fd, iov, offset)

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        done = self._try_read(self.fd, iov, offset) if length <= INLINE_LIMIT else 0
        if done != length:
            await self._read_rest(offset, iov, length, done)

    async def _read_rest(self, offset: int, iov: IoVec, length: int, done: int) -> None:
        wanted = min(length, self.size - offset)
        if done < wanted:
            with self._request():
                done += await self.engine.read(self.fd, iov_slice(iov, done, wanted - done), offset + done)
        if done < length:
            # Past the end; or the file is shorter than we knew, because somebody else has cut it.
            zero_fill(iov_slice(iov, done, length - done))

    # -- writing ----------------------------------------------------------------------------------

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        try:
            done = self._try_write(self.fd, iov, offset) if length <= INLINE_LIMIT else 0
        except OSError as error:
            raise self._named(error) from None
        if done != length:
            await self._write_rest(offset + done, iov_slice(iov, done, length - done))
        if offset + length > self.size:
            self.size = offset + length
        self._written += 1

    def reserve_before_writes(self) -> None:
        """Take the space for long writes right before them, where that is cheaper; for a file that is being filled."""
        from e2kdisk.block.reserving import ReservingWriter, is_cheaper

        if not self.read_only and not self.is_device and is_cheaper(self.identity[0]):
            self._try_write = ReservingWriter(self.engine)

    async def _write_rest(self, offset: int, iov: IoVec) -> None:
        if self.read_only:
            raise ReadOnlyError(self.name)
        with self._request():
            await self.engine.write(self.fd, iov, offset)

    async def copy_from(self, source: FileNode, source_offset: int, offset: int, length: int) -> None:
        """Let the host copy bytes of another file to offset of this one. Raises OSError, EXDEV where it cannot."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        with self._request():
            await self.engine.call(_copy_fully, source.fd, self.fd, source_offset, offset, length)
        self.size = max(self.size, offset + length)
        self._written += 1

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes: by the file system where it can, else by writing zeros."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        if length <= 0:
            return
        end = offset + length
        if not (unmap and await self._punch_hole(offset, length)) and not await self._zero_range(offset, length):
            for start in range(offset, end, ZERO_CHUNK):
                await self.write(start, zero_iov(min(ZERO_CHUNK, end - start)))
        elif end > self.size and unmap:
            # Punching a hole does not extend the file. Not by ftruncate: it would cut off what another request has
            # written behind `end` meanwhile.
            await self.write(end - 1, zero_iov(1))
        self.size = max(self.size, end)
        self._written += 1

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard: punch a hole; does nothing where the host cannot."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        length = min(length, self.size - offset)
        if length > 0 and await self._punch_hole(offset, length):
            self._written += 1

    async def truncate(self, size: int) -> None:
        """Node.truncate. Raises OSError for a block device that is too small."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        if self.is_device:
            if size > self.size:
                raise OSError(errno.ENOSPC, "a block device cannot grow", self.name)
            return
        await self._call(os.ftruncate, self.fd, size)
        self.size = size
        self._written += 1

    async def _zero_range(self, offset: int, length: int) -> bool:
        if self._can_zero_range:
            try:
                await self._call(zero_range, self.fd, offset, length)
                return True
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                self._can_zero_range = error.errno not in NOT_SUPPORTED
        return False

    async def _punch_hole(self, offset: int, length: int) -> bool:
        if self._can_punch_hole and not self.keeps_space:
            try:
                await self._call(punch_hole, self.fd, offset, length)
                return True
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                self._can_punch_hole = error.errno not in NOT_SUPPORTED
        return False

    # -- durability and the end -------------------------------------------------------------------

    async def flush(self) -> None:
        """Node.flush: fdatasync on a thread, unless nothing was written since the last one. Raises OSError."""
        if self.read_only or self._no_flush:
            return
        if self._flush_failed:
            # The kernel reports a failed write-back once and then drops the pages as if they were clean: another
            # fdatasync would succeed, and we would promise data that is gone. So this file never flushes again.
            raise OSError(errno.EIO, "an earlier flush failed, written data may be lost", self.name)
        written = self._written
        if written == self._durable:
            return
        try:
            await self._call(os.fdatasync, self.fd)
        except OSError:
            self._flush_failed = True
            raise
        if self._flush_failed:  # meanwhile: the kernel has told the other flush, not this one
            raise OSError(errno.EIO, "another flush failed, written data may be lost", self.name)
        self._durable = max(self._durable, written)

    async def close(self) -> None:
        """Node.close: waits for what is in flight, so that no thread meets a reused file descriptor."""
        if self.fd < 0:
            return
        try:
            while self._in_flight:
                await self._idle.wait()
            await self.flush()
        finally:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status: holes by SEEK_DATA and SEEK_HOLE; data where the file system does not tell."""
        end = min(offset + length, self.size)
        try:
            data = os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but hole up to the end
                return BlockStatus(length, allocated=True, zero=True, host_offset=offset)
            return BlockStatus(length, allocated=True, zero=False, host_offset=offset)
        if data > offset:
            return BlockStatus(min(data - offset, length), allocated=True, zero=True, host_offset=offset)
        hole = os.lseek(self.fd, offset, os.SEEK_HOLE)
        return BlockStatus(min(hole, end) - offset, allocated=True, zero=False, host_offset=offset)

    async def reserve(self, offset: int, length: int) -> None:
        """Node.reserve: by fallocate, else by writing zeros."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        try:
            await self._call(allocate_range, self.fd, offset, length)
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise self._named(error) from None
            await self.write_zeroes(offset, length)
        self.size = max(self.size, offset + length)

    async def offload(self, function: Callable[..., T], *args: Any) -> T:
        """Node.offload: on a thread."""
        return await self.engine.call(function, *args)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        with self._request():
            return await self.engine.call(function, *args)

    @contextmanager
    def _request(self) -> Generator[None, None, None]:
        """Count a request that may be in flight for long, and name the file in its errors."""
        self._in_flight += 1
        try:
            yield
        except OSError as error:
            raise self._named(error) from None
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.wake_all()

    def _named(self, error: OSError) -> OSError:
        if error.filename is None:
            error.filename = self.name
        return error

    def _refuse_write(self, fd: int, iov: IoVec, offset: int) -> int:
        raise ReadOnlyError(self.name)


def _copy_fully(source: int, target: int, source_offset: int, offset: int, length: int) -> None:
    done = 0
    while done < length:
        count = os.copy_file_range(source, target, length - done, source_offset + done, offset + done)
        if count == 0:
            raise OSError(errno.EINVAL, "the source has become shorter")
        done += count


def _open_fd(filename: str, flags: int) -> int:
    """Open a regular file or a block device. Raises ImageError."""
    try:
        if not flags & os.O_CREAT:
            # Looked at before it is opened: opening a tape rewinds it, opening a watchdog arms it.
            _check_kind(filename, os.stat(filename))
        # If it became a FIFO since, O_NONBLOCK keeps us from waiting for its writer; no effect on other files.
        fd = os.open(filename, flags | os.O_NONBLOCK, 0o644)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.EINVAL and flags & os.O_DIRECT:
            what = "this file system has no O_DIRECT; use cache=writeback instead of none or directsync"
        raise ImageError(filename, "", f"cannot be opened: {what}") from error
    try:
        _check_kind(filename, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(filename: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode) and not stat.S_ISBLK(info.st_mode):
        kind = "a directory" if stat.S_ISDIR(info.st_mode) else "neither a regular file nor a block device"
        raise ImageError(filename, "", f"cannot be opened: it is {kind}")
