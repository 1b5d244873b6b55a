"""Node: what every layer that holds bytes offers to the layer above it (files, formats, filters)."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterable

from e2kdisk.aio.engine import IoVec
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.status import BlockStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

EventHook = Callable[[str], Awaitable[None]]
NoteHook = Callable[..., None]
"""note("allocate", host=0x50000, clusters=1): a word for what was decided, and where; offsets and lengths in bytes.

No field is called as one of an event of the laboratory is: what, kind, source, file, request.
"""
"""Called with the name of an event, a key of fault_rules.EVENTS; may delay it, or raise OSError in its place."""

_zeros = memoryview(bytes(1 << 20))
"""Where zeros come from: one read-only buffer for everybody."""


class ReadOnlyError(OSError):
    """A write to something that is open for reading only."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EROFS, "is open for reading only", name)


def zero_fill(iov: Iterable[memoryview]) -> None:
    """Fill byte views with zeros."""
    for view in iov:
        length = view.nbytes
        for start in range(0, length, len(_zeros)):
            end = min(start + len(_zeros), length)
            view[start:end] = _zeros[: end - start]


def zero_iov(length: int) -> IoVec:
    """Views of zeros, length bytes in all, to write from; one shared buffer, however long."""
    whole, rest = divmod(length, len(_zeros))
    iov = [_zeros] * whole
    if rest:
        iov.append(_zeros[:rest])
    return iov


class Node:
    """A thing of `size` bytes that can be read and written at byte offsets.

    All I/O methods are coroutines of `scheduler`. Buffers are lists of byte memory views that the caller
    leaves alone until the coroutine ends. Requests may overlap in time; a caller that needs an order awaits.
    Errors are OSError (the host said no) or ImageError (the image makes no sense).
    """

    scheduler: Scheduler
    name: str
    """For messages: the file name as the user gave it."""
    read_only: bool
    size: int
    """Bytes."""
    event: EventHook | None = None
    """Where a format announces what it is about to do, when somebody below listens (a FaultNode).

    `if file.event is not None: await file.event("l2_update")` costs 30 ns when nobody does: no call, no coroutine;
    5 ns where the format has kept `file.event`, which never changes. The announcement belongs next to the I/O that
    it names, under the same error handling.
    """
    note: NoteHook | None = None
    """Where a format says what it has decided, with where in the file, when somebody below listens (the laboratory).

    As cheap as `event` when nobody does. It is a plain call: it can neither fail nor wait, so it changes nothing.
    """

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Read what can be had at once, without waiting; bytes read from the start of iov, 0 for none."""
        return 0

    async def read(self, offset: int, iov: IoVec) -> None:
        """Fill iov from offset; bytes past the end read as zeros."""
        raise NotImplementedError

    async def write(self, offset: int, iov: IoVec) -> None:
        """Write all of iov at offset; durable after the next flush."""
        raise NotImplementedError

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Make length bytes read as zeros; with unmap, give their space back where that is possible."""
        raise NotImplementedError

    async def discard(self, offset: int, length: int) -> None:
        """Tell that length bytes are no longer needed; a hint: what they read afterwards is the node's choice."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Make every write that has completed durable."""
        raise NotImplementedError

    async def status(self, offset: int, length: int) -> BlockStatus:
        """What is known of the bytes from offset, at most length of them: the longest run of one kind."""
        return BlockStatus(length, allocated=True, zero=False, host_offset=offset)

    async def reserve(self, offset: int, length: int) -> None:
        """Reserve space on the host for bytes that read as zeros; writing the zeros is one way. Raises OSError."""
        await self.write_zeroes(offset, length)

    async def offload(self, function: Callable[..., T], *args: Any) -> T:
        """Compute something long (compression, say), where this node's engine makes calls that may block."""
        return function(*args)

    async def truncate(self, size: int) -> None:
        """Change the size; new bytes read as zeros."""
        raise NotImplementedError

    async def close(self) -> None:
        """Flush what is cached and release the file; the caller has drained its requests."""
        raise NotImplementedError
