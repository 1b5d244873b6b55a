"""Disk: what controllers, exports and people use; a node with a size to keep to, a write cache, and a safe end.

Reads hand out the node's own coroutine: a layer of coroutine costs more than everything else that a Disk does.
Writes have one, so that close() knows what it must wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from e2kdisk.aio.engine import Engine, IoVec, iov_length
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.sync import WaitQueue
from e2kdisk.block.node import Node, ReadOnlyError
from e2kdisk.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

Request = Coroutine[object, object, None]


class Disk:
    """A disk over a chain of nodes, which it owns. All offsets and lengths are bytes."""

    def __init__(
        self,
        node: Node,
        *,
        writethrough: bool = False,
        serial: str = "",
        read_only: bool | None = None,
        logical_block_size: int = 512,
        physical_block_size: int = 512,
        engine: Engine | None = None,
    ) -> None:
        """Take over node and, if given, the engine, which is closed with the disk.

        read_only=None: as the node is. writethrough: the write cache starts switched off. The block sizes are what
        controllers report to guests; requests here may have any alignment.
        """
        self.node = node
        self.scheduler: Scheduler = node.scheduler
        self.name = node.name
        self.serial = serial
        self.read_only = node.read_only if read_only is None else (read_only or node.read_only)
        self.logical_block_size = logical_block_size
        self.physical_block_size = physical_block_size
        self.write_cache = not writethrough
        """False: each write, write_zeroes and discard is durable when it completes. Controllers may switch it."""
        self.on_resize: list[Callable[[int], None]] = []
        """Called with the new size in bytes after resize()."""
        self._engine = engine
        self._node_read = node.read
        self._writes = 0
        self._no_writes = WaitQueue(self.scheduler)
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.node.size

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    # -- requests ---------------------------------------------------------------------------------

    def read(self, offset: int, iov: IoVec) -> Request:
        """Fill iov from offset. Raises UsageError for a range outside the disk; awaiting it, OSError, ImageError."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        if offset < 0 or offset + length > self.node.size:
            self._check(offset, length)
        return self._node_read(offset, iov)

    def write(self, offset: int, iov: IoVec, fua: bool = False) -> Request:
        """Write all of iov; with fua it is durable on completion. Raises UsageError, ReadOnlyError, OSError."""
        length = iov[0].nbytes if len(iov) == 1 else iov_length(iov)
        if self.read_only or self._closed or offset < 0 or offset + length > self.node.size:
            self._check_write(offset, length)
        return self._change(self.node.write(offset, iov), fua)

    def write_zeroes(self, offset: int, length: int, unmap: bool = False) -> Request:
        """Make length bytes read as zeros; with unmap their space may be given back."""
        self._check_write(offset, length)
        return self._change(self.node.write_zeroes(offset, length, unmap=unmap), False)

    def discard(self, offset: int, length: int) -> Request:
        """Tell that length bytes are no longer needed."""
        self._check_write(offset, length)
        return self._change(self.node.discard(offset, length), False)

    def flush(self) -> Request:
        """Make every write that has completed durable. Raises OSError when that cannot be promised."""
        if self._closed:
            self._check(0, 0)
        return self.node.flush()

    async def _change(self, request: Request, fua: bool) -> None:
        self._writes += 1
        try:
            await request
            if fua or not self.write_cache:
                await self.node.flush()
        finally:
            self._writes -= 1
            if self._closed and not self._writes:
                self._no_writes.wake_all()

    def _read_closed(self, offset: int, iov: IoVec) -> Request:
        raise UsageError(f"{self.name}: is closed")

    def _check(self, offset: int, length: int) -> None:
        if self._closed:
            raise UsageError(f"{self.name}: is closed")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"{self.name}: {length} bytes at offset {offset} are not inside its {self.size} bytes")

    def _check_write(self, offset: int, length: int) -> None:
        if self.read_only:
            raise ReadOnlyError(self.name)
        self._check(offset, length)

    # -- for callers without coroutines -----------------------------------------------------------

    def pread(self, offset: int, length: int) -> bytes:
        """Read length bytes and wait for them."""
        self._check(offset, length)
        buffer = bytearray(length)
        self.scheduler.run(self.read(offset, [memoryview(buffer)]))
        return bytes(buffer)

    def pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write data and wait for it."""
        self.scheduler.run(self.write(offset, [memoryview(data).cast("B")]))

    def sync(self) -> None:
        """Flush and wait for it."""
        self.scheduler.run(self.flush())

    def resize(self, size: int) -> None:
        """Change the size in bytes, wait for it, then tell everyone in on_resize."""
        if self.read_only:
            raise ReadOnlyError(self.name)
        self._check(0, 0)
        if size < 0:
            raise UsageError(f"{self.name}: a size of {size} bytes")
        self.scheduler.run(self._change(self.node.truncate(size), False))
        for tell in self.on_resize:
            tell(self.size)

    def replace(self, node: Node) -> None:
        """Take another chain of nodes in place of this one, which stays the caller's to close; nothing is in flight."""
        if self._writes or self._closed:
            raise UsageError(f"{self.name}: cannot be replaced {'when closed' if self._closed else 'during writes'}")
        self.node = node
        self._node_read = node.read

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the writes in flight, flush, close the chain; a second call does nothing.

        Reads in flight end too, with their data or an OSError. Raises OSError when the flush fails; everything is
        closed nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        self._node_read = self._read_closed
        try:
            self.scheduler.run(self._close())
        finally:
            if self._engine is not None:
                self._engine.close()

    async def _close(self) -> None:
        try:
            while self._writes:
                await self._no_writes.wait()
            if not self.read_only:
                await self.node.flush()
        finally:
            await self.node.close()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Disk {self.name} {self.size} bytes{' read-only' if self.read_only else ''}>"
