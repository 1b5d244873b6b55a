"""Copy what images read as: several pieces in flight, zeros found on the way left out, compression on threads."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum, auto

from e2kdisk.aio.gather import gather
from e2kdisk.aio.sync import Lock, WaitQueue
from e2kdisk.block.node import Node
from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.errors import Failure, report
from e2kdisk.tools.img.rate import RateLimit
from e2kdisk.tools.img.status import kind_at
from e2kdisk.tools.img.zeros import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.tools.img.packed import PackedWriter

CHUNK = 1 << 20
"""Bytes read and written at once: a buffer that is used again at once is still in the processor's cache.

Not more: from 2 MiB on a file system takes huge pages for each write, and hosts are slow to find them.
"""
COMPRESSED_CHUNK = 1 << 20
"""Bytes that one thread compresses at once; at least one cluster."""


class Kind(Enum):
    """What becomes of a piece."""

    DATA = auto()
    ZERO = auto()
    BELOW = auto()
    """The target's backing file has it."""


class Source:
    """A range of an image, and where it goes; bytes."""

    __slots__ = ("length", "node", "start", "to")

    def __init__(self, node: Node, start: int, length: int, to: int) -> None:
        self.node = node
        self.start = start
        self.length = length
        self.to = to


class Piece:
    """A part of a source that is read, and written, at once."""

    __slots__ = ("kind", "length", "number", "offset", "source")

    def __init__(self, number: int, source: Source, offset: int, length: int, kind: Kind) -> None:
        self.number = number
        self.source = source
        self.offset = offset
        """In the source."""
        self.length = length
        self.kind = kind

    @property
    def to(self) -> int:
        """Where it goes in the target."""
        return self.source.to + self.offset - self.source.start


def why(error: BaseException) -> str:
    """The host's word for an error."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"Input/output error ({error})"


class Copier:
    """Copies sources to a target.

    `workers` coroutines take a piece each, in order, read it and write it. What is in the page cache never waits, so
    one of them does it all; what comes from a disk, or is compressed on a thread, makes them overlap.
    """

    def __init__(self, target: Node, *, sparse: int, compressed: bool, is_zero: bool, backing_size: int | None) -> None:
        self.target = target
        self.sparse = sparse
        """Runs of zeros of this many bytes are not written; 0: everything is."""
        self.is_zero = is_zero
        """What is not written reads as zeros."""
        self.backing_size = backing_size
        """Bytes of the target's backing file, which reads as the source's does; None without."""
        self.workers = 8
        self.in_order = True
        """Pieces are written one after the other, so that a new image is laid out as its source."""
        self.offload = False
        """Let the host copy data from file to file, as long as it can (copy_file_range)."""
        self.salvage = False
        self.rate = RateLimit(target.scheduler, 0)
        self.progress: Callable[[int, int], None] = lambda done, whole: None
        self._packed: PackedWriter | None = None
        self._chunk = max(CHUNK, sparse)
        if compressed:
            from e2kdisk.tools.img.packed import PackedWriter

            self._packed = PackedWriter(target, leave_zeros=is_zero and backing_size is None and bool(sparse))
            self._chunk = max(self._packed.cluster_size, COMPRESSED_CHUNK)
        self._buffers: list[bytearray] = []
        """Of `_chunk` bytes, which no piece of data exceeds."""
        self._lock = Lock(target.scheduler)
        self._turn = 0
        self._turns = WaitQueue(target.scheduler)
        self._error: Exception | None = None
        self._done = 0

    async def copy(self, sources: Sequence[Source]) -> None:
        """Copy them all. Raises Failure."""
        whole = sum(source.length for source in sources)
        walk = self._pieces(sources)
        await gather(self.target.scheduler, [self._work(walk, whole) for _ in range(self.workers)])
        if self._error is not None:
            raise self._error

    async def _work(self, walk: AsyncIterator[Piece], whole: int) -> None:
        while self._error is None:
            try:
                async with self._lock:
                    piece = await anext(walk, None)
                if piece is None:
                    return
                await self._copy_piece(piece)
            except Exception as error:
                # The others end what they have begun, and the first error is the one that is told.
                self._error = self._error or error
                self._turns.wake_all()
                return
            self._done += piece.length
            self.progress(self._done, whole)

    async def _copy_piece(self, piece: Piece) -> None:
        if piece.kind is Kind.DATA and not (self.offload and await self._offload(piece)):
            buffer = self._buffers.pop() if self._buffers else bytearray(self._chunk)
            try:
                await self._copy_data(piece, buffer)
            finally:
                self._buffers.append(buffer)
            return
        await self._my_turn(piece)
        try:
            if piece.kind is Kind.ZERO:
                await self._zero(piece.to, piece.length)
        finally:
            self._next_turn()

    # -- what comes next --------------------------------------------------------------------------

    async def _pieces(self, sources: Sequence[Source]) -> AsyncIterator[Piece]:
        number = 0
        for source in sources:
            offset, end = source.start, source.start + source.length
            while offset < end:
                kind, run = await self._run(source, offset, end)
                limit = self._chunk if kind is Kind.DATA else run
                # The run is asked for once, not for each piece: a host may take long to find the next hole.
                while run:
                    piece = Piece(number, source, offset, min(run, limit), kind)
                    yield piece
                    number += 1
                    offset += piece.length
                    run -= piece.length

    async def _run(self, source: Source, offset: int, end: int) -> tuple[Kind, int]:
        try:
            run = await kind_at(source.node, offset, end - offset)
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while reading block status at offset {offset}: {why(error)}") from None
        kind, length = Kind.DATA, run.length
        if self.backing_size is not None and run.depth > 0 and getattr(source.node, "backing", None) is not None:
            to = source.to + offset - source.start
            if to < self.backing_size:
                kind, length = Kind.BELOW, min(length, self.backing_size - to)
        if kind is Kind.DATA and run.zero and self.sparse:
            kind = Kind.ZERO
        if self._packed is None:
            return kind, length
        # Compressed clusters are written whole: only whole clusters can be left out.
        cluster = self._packed.cluster_size
        whole = length if offset + length == end else length - length % cluster
        if kind is Kind.DATA or not whole:
            return Kind.DATA, min(self._chunk, end - offset)
        return kind, whole

    # -- reading and writing ----------------------------------------------------------------------

    async def _copy_data(self, piece: Piece, buffer: bytearray) -> None:
        view = memoryview(buffer)[: piece.length]
        try:
            await piece.source.node.read(piece.offset, [view])
        except (OSError, E2kDiskError) as error:
            if not self.salvage:
                raise Failure(f"error while reading at byte {piece.offset}: {why(error)}") from None
            await self._salvage(piece, view)
        packed = None if self._packed is None else await self._packed.compress(view, piece.to)
        await self._my_turn(piece)
        try:
            await self.rate.passing(piece.length)
            if self._packed is not None and packed is not None:
                await self._packed.write(view, piece.to, packed)
            elif not self.sparse:
                await self.target.write(piece.to, [view])
            else:
                await self._write_sparse(buffer, view, piece.to)
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while writing at byte {piece.to}: {why(error)}") from None
        finally:
            self._next_turn()

    async def _salvage(self, piece: Piece, view: memoryview) -> None:
        """Read sector by sector; what cannot be read is zeros."""
        for start in range(0, view.nbytes, 512):
            part = view[start : start + 512]
            try:
                await piece.source.node.read(piece.offset + start, [part])
            except (OSError, E2kDiskError) as error:
                report(f"warning: error while reading offset {piece.offset + start}: {why(error)}")
                part[:] = bytes(part.nbytes)

    async def _write_sparse(self, buffer: bytearray, view: memoryview, to: int) -> None:
        for start, length, zero in pieces(buffer, view.nbytes, self.sparse):
            if zero:
                await self._zero(to + start, length)
            else:
                await self.target.write(to + start, [view[start : start + length]])

    def _leaves_zeros(self, to: int) -> bool:
        """Whether zeros need not be written at an offset."""
        return self.is_zero and (self.backing_size is None or to >= self.backing_size)

    async def _zero(self, to: int, length: int) -> None:
        if self._leaves_zeros(to):
            return
        try:
            await self.rate.passing(length)
            await self.target.write_zeroes(to, length, unmap=True)
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while writing at byte {to}: {why(error)}") from None

    async def _offload(self, piece: Piece) -> bool:
        """Let the host copy; False if it cannot, and never will."""
        from e2kdisk.tools.img.offload import CannotOffload, copy_range

        await self._my_turn(piece)
        try:
            await self.rate.passing(piece.length)
            await copy_range(piece.source.node, piece.offset, piece.length, self.target, piece.to)
        except CannotOffload:
            self.offload = False
            return False
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while writing at byte {piece.to}: {why(error)}") from None
        return True

    # -- order ------------------------------------------------------------------------------------

    async def _my_turn(self, piece: Piece) -> None:
        while self.in_order and self._turn != piece.number and self._error is None:
            await self._turns.wait()
        if self._error is not None:
            raise Stopped

    def _next_turn(self) -> None:
        self._turn += 1
        if self._turns:
            self._turns.wake_all()


class Stopped(Exception):
    """Another worker has met an error: this one ends without a word."""
