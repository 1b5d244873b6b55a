"""RawNode: the format that is no format, with an optional window on part of a file.

When raw was only a guess, the guest may not write what would make the image look like another format. Otherwise it
could write a qcow2 header that names any file of the host as backing file, and read that file after the next
start (CVE-2008-2004).
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine

from e2kdisk.aio.engine import IoVec, iov_length, iov_slice
from e2kdisk.aio.sync import Lock
from e2kdisk.block.formats import PROBE_SIZE, guess_format
from e2kdisk.block.node import Node, zero_fill
from e2kdisk.block.status import BlockStatus
from e2kdisk.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions

Request = Coroutine[object, object, None]


class RawNode(Node):
    """The bytes of a file from `offset` on, `size` of them; a plain pass, no coroutine of its own."""

    def __init__(self, file: Node, *, offset: int = 0, size: int | None = None) -> None:
        self.scheduler = file.scheduler
        self.name = file.name
        self.read_only = file.read_only
        self.file = file
        self.offset = offset
        self.size = file.size - offset if size is None else size
        if offset < 0 or self.size < 0 or offset + self.size > file.size:
            what = f"window of {self.size} bytes at offset {offset} does not fit into {file.size} bytes"
            raise ImageError(self.name, "", what)
        self._is_window = offset + self.size < file.size

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read."""
        if self._is_window and offset + iov_length(iov) > self.size:
            return 0
        return self.file.try_read(self.offset + offset, iov)

    def read(self, offset: int, iov: IoVec) -> Request:
        """Node.read."""
        if self._is_window and offset + iov_length(iov) > self.size:
            return self._read_past_end(offset, iov)
        return self.file.read(self.offset + offset, iov)

    async def _read_past_end(self, offset: int, iov: IoVec) -> None:
        length = iov_length(iov)
        inside = max(0, self.size - offset)
        if inside:
            await self.file.read(self.offset + offset, iov_slice(iov, 0, inside))
        zero_fill(iov_slice(iov, inside, length - inside))

    def write(self, offset: int, iov: IoVec) -> Request:
        """Node.write. Raises OSError (ENOSPC) past the end."""
        self._check(offset, iov_length(iov))
        return self.file.write(self.offset + offset, iov)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> Request:
        """Node.write_zeroes. Raises OSError (ENOSPC) past the end."""
        self._check(offset, length)
        return self.file.write_zeroes(self.offset + offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> Request:
        """Node.discard. Raises OSError (ENOSPC) past the end."""
        self._check(offset, length)
        return self.file.discard(self.offset + offset, length)

    def flush(self) -> Request:
        """Node.flush."""
        return self.file.flush()

    async def truncate(self, size: int) -> None:
        """Node.truncate; not for a window on part of a file."""
        if self._is_window:
            raise OSError(errno.EOPNOTSUPP, "a window on part of a file cannot change its size", self.name)
        await self.file.truncate(self.offset + size)
        self.size = size

    async def status(self, offset: int, length: int) -> BlockStatus:
        """Node.status."""
        return await self.file.status(self.offset + offset, min(length, self.size - offset))

    def close(self) -> Request:
        """Node.close."""
        return self.file.close()

    def _check(self, offset: int, length: int) -> None:
        if offset + length > self.size:
            raise OSError(errno.ENOSPC, f"write past the end ({self.size} bytes)", self.name)


class GuessedRawNode(RawNode):
    """A raw image whose format was not given: its first bytes may not turn into another format's header."""

    def __init__(self, file: Node) -> None:
        super().__init__(file)
        # Two writes that are harmless one by one could make a header together.
        self._head_lock = Lock(self.scheduler)

    def write(self, offset: int, iov: IoVec) -> Request:
        """Node.write. Raises OSError (EPERM) for what would change the guess."""
        self._check(offset, iov_length(iov))
        if offset < PROBE_SIZE:
            return self._guarded(offset, b"".join(iov_slice(iov, 0, PROBE_SIZE)), self.file.write(offset, iov))
        return self.file.write(offset, iov)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> Request:
        """Node.write_zeroes. Raises OSError (EPERM) for what would change the guess."""
        self._check(offset, length)
        request = self.file.write_zeroes(offset, length, unmap=unmap)
        return self._guarded(offset, bytes(min(length, PROBE_SIZE)), request) if offset < PROBE_SIZE else request

    def discard(self, offset: int, length: int) -> Request:
        """Node.discard. Raises OSError (EPERM) for what would change the guess."""
        self._check(offset, length)
        request = self.file.discard(offset, length)
        return self._guarded(offset, bytes(min(length, PROBE_SIZE)), request) if offset < PROBE_SIZE else request

    async def _guarded(self, offset: int, data: bytes, request: Request) -> None:
        try:
            async with self._head_lock:
                head = bytearray(PROBE_SIZE)
                await self.file.read(0, [memoryview(head)])
                head[offset : offset + len(data)] = data
                name = guess_format(bytes(head[:PROBE_SIZE]))
                if name != "raw":
                    what = f"this write would make the guessed raw image look like {name}; give format=raw to allow it"
                    raise OSError(errno.EPERM, what, self.name)
                await request
        finally:
            request.close()


class RawFormat:
    """The entry in the table of formats."""

    name = "raw"

    def probe(self, head: bytes) -> bool:
        """Format.probe: anything can be raw."""
        return True

    async def open(self, file: Node, options: OpenOptions, opener: Opener) -> Node:
        """Format.open; extras: offset and size in bytes."""
        extras = options.take_extras({"offset": 0, "size": None})
        if options.format is None and not file.read_only:
            return GuessedRawNode(file)
        return RawNode(file, offset=extras["offset"], size=extras["size"])


FORMAT = RawFormat()
