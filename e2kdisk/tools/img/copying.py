"""Copy what images read as: in large pieces, zeros found on the way left out, compression on threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.sync import WaitQueue
from e2kdisk.block.node import Node
from e2kdisk.errors import E2kDiskError
from e2kdisk.qcow2.image import Qcow2Image
from e2kdisk.tools.img.errors import Failure, report
from e2kdisk.tools.img.status import run_at

CHUNK = 2 << 20
COMPRESSED_CHUNK = 16


def why(error: BaseException) -> str:
    """The host's word for an error."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"Input/output error ({error})"


class Copier:
    """Copies sources, one behind the other, to a target."""

    def __init__(self, target: Node, *, sparse: int, compressed: bool, is_zero: bool, backing_size: int | None) -> None:
        self.target = target
        self.sparse = sparse
        """Runs of zeros of this many bytes are not written; 0: everything is."""
        self.compressed = compressed
        self.is_zero = is_zero
        """What is not written reads as zeros."""
        self.backing_size = backing_size
        """Bytes of the target's backing file, which reads as the source's does; None without."""
        self.salvage = False
        self.progress: Callable[[int, int], None] = lambda done, whole: None
        self._buffer = bytearray(CHUNK)

    async def copy(self, source: Node, start: int, length: int, at: int, whole: int) -> None:
        """Copy a range of a source to an offset of the target. Raises Failure."""
        offset = start
        end = start + length
        while offset < end:
            to = at + offset - start
            try:
                run = await run_at(source, offset, end - offset)
            except (OSError, E2kDiskError) as error:
                raise Failure(f"error while reading block status at offset {offset}: {why(error)}") from None
            size = run.length
            top_only = self.backing_size is not None and getattr(source, "backing", None) is not None
            elsewhere = top_only and run.depth > 0 and to < (self.backing_size or 0)
            if self.compressed:
                # Compressed clusters are written whole: only whole clusters can be left out.
                whole_clusters = size if offset + size == end else size - size % self._cluster
                if whole_clusters and (elsewhere or (run.zero and self.sparse)):
                    size = whole_clusters
                else:
                    elsewhere, run.zero = False, False
                    size = min(COMPRESSED_CHUNK * self._cluster, end - offset)
            if elsewhere:
                pass  # the target's backing file has it
            elif run.zero and self.sparse:
                await self._zero(to, size)
            else:
                size = min(size, CHUNK) if not self.compressed else size
                await self._copy_data(source, offset, size, to)
            offset += size
            self.progress(at + offset - start, whole)

    @property
    def _cluster(self) -> int:
        assert isinstance(self.target, Qcow2Image)
        return self.target.geometry.cluster_size

    async def _copy_data(self, source: Node, offset: int, length: int, to: int) -> None:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view = memoryview(self._buffer)[:length]
        try:
            await source.read(offset, [view])
        except (OSError, E2kDiskError) as error:
            if not self.salvage:
                raise Failure(f"error while reading at byte {offset}: {why(error)}") from None
            await self._salvage(source, offset, view)
        try:
            if self.compressed:
                await self._write_compressed(view, to)
            elif not self.sparse:
                await self.target.write(to, [view])
            else:
                await self._write_sparse(view, to)
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while writing at byte {to}: {why(error)}") from None

    async def _salvage(self, source: Node, offset: int, view: memoryview) -> None:
        """Read sector by sector; what cannot be read is zeros."""
        for start in range(0, view.nbytes, 512):
            part = view[start : start + 512]
            try:
                await source.read(offset + start, [part])
            except (OSError, E2kDiskError) as error:
                report(f"warning: error while reading offset {offset + start}: {why(error)}")
                part[:] = bytes(part.nbytes)

    async def _write_sparse(self, view: memoryview, to: int) -> None:
        for start, length, zero in pieces(self._buffer, view.nbytes, self.sparse):
            if zero:
                await self._zero(to + start, length)
            else:
                await self.target.write(to + start, [view[start : start + length]])

    async def _zero(self, to: int, length: int) -> None:
        if self.is_zero and (self.backing_size is None or to >= self.backing_size):
            return
        try:
            await self.target.write_zeroes(to, length, unmap=True)
        except (OSError, E2kDiskError) as error:
            raise Failure(f"error while writing at byte {to}: {why(error)}") from None

    async def _write_compressed(self, view: memoryview, to: int) -> None:
        target, size = self.target, self._cluster
        assert isinstance(target, Qcow2Image)
        zeros = bytes(size)
        work = []
        for start in range(0, view.nbytes, size):
            part = view[start : start + size]
            whole = part.nbytes == size or to + start + part.nbytes == target.size
            if whole and (to + start) % size == 0:
                if self.is_zero and self.sparse and bytes(part) == zeros[: part.nbytes] and self.backing_size is None:
                    continue
                work.append(target.write_compressed(to + start, [part]))
            else:
                work.append(target.write(to + start, [part]))
        await gather(target.scheduler, work)


def pieces(buffer: bytearray, length: int, grain: int) -> Iterator[tuple[int, int, bool]]:
    """Cut bytes into runs of (start, length, zeros?) in steps of grain."""
    zeros = bytes(grain)
    if not any_zeros(buffer, length, zeros):
        yield 0, length, False
        return
    start = 0
    kind: bool | None = None
    for at in range(0, length, grain):
        stop = min(at + grain, length)
        zero = buffer[at:stop] == zeros[: stop - at]
        if zero is not kind:
            if kind is not None:
                yield start, at - start, kind
            start, kind = at, zero
    if kind is not None:
        yield start, length - start, kind


def any_zeros(buffer: bytearray, length: int, zeros: bytes) -> bool:
    """Whether any of the steps can be zeros: the first bytes of each tell for most data."""
    grain = len(zeros)
    firsts = buffer[0:length:grain]
    return 0 in firsts


async def gather(scheduler: Scheduler, work: list[Coroutine[Any, Any, None]]) -> None:
    """Do several things at once; raises the first error when all have ended."""
    waiting = WaitQueue(scheduler)
    left = len(work)
    errors: list[BaseException] = []

    def then(result: Any, error: BaseException | None) -> None:
        nonlocal left
        left -= 1
        if error is not None:
            errors.append(error)
        waiting.wake_all()

    for item in work:
        scheduler.start(item, then)
    while left:
        await waiting.wait()
    if errors:
        raise errors[0]
