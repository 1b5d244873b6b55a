"""RecorderNode: lies between a format and its file and writes down what passes, so that any crash can be rebuilt."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec
from e2kdisk.block.node import Node
from e2kdisk.block.recording import Change, Kind, Outcome, Recording

_READ_CHUNK = 1 << 20


class RecorderNode(Node):
    """Passes everything on; records changes with their bytes, and which flush made each durable.

    It keeps every written byte in memory: for tests. Changes are kept in the order of completion, which is the order
    of effect with the simulated engine; two that overlap in flight on threads may take effect in another order.
    """

    def __init__(self, file: Node, initial: bytes) -> None:
        """Record from a file that has `initial` as its content; use RecorderNode.start."""
        self.scheduler = file.scheduler
        self.name = file.name
        self.read_only = file.read_only
        self.file = file
        self.event = file.event
        self.epoch = 0
        """Flushes that have succeeded."""
        self._initial = initial
        self._done: list[Change] = []
        self._in_flight: list[Change] = []
        self._undurable: list[Change] = []
        """Completed, in order of completion, and not yet durable."""
        self._retired = 0
        """How many changes have left _undurable at its front, so that positions in it can be compared later."""
        self._marks: list[tuple[int, int, str]] = []

    @classmethod
    async def start(cls, file: Node) -> RecorderNode:
        """Begin to record; what the file holds now counts as durable. Raises OSError."""
        initial = bytearray(file.size)
        view = memoryview(initial)
        for offset in range(0, len(initial), _READ_CHUNK):
            await file.read(offset, [view[offset : offset + _READ_CHUNK]])
        view.release()
        return cls(file, bytes(initial))

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes; the file's own."""
        return self.file.size

    def mark(self, text: str) -> None:
        """Name this moment in the recording (what the guest has been told is done, say)."""
        self._marks.append((self.epoch, len(self._done), text))

    def recording(self) -> Recording:
        """What has been recorded so far; later requests do not change it."""
        changes = [_copy(change) for change in (*self._done, *self._in_flight)]
        return Recording(self._initial, changes, self.epoch, list(self._marks))

    # -- Node -------------------------------------------------------------------------------------

    def try_read(self, offset: int, iov: IoVec) -> int:
        """Node.try_read."""
        return self.file.try_read(offset, iov)

    async def read(self, offset: int, iov: IoVec) -> None:
        """Node.read."""
        await self.file.read(offset, iov)

    async def write(self, offset: int, iov: IoVec) -> None:
        """Node.write."""
        data = b"".join(iov)
        change = self._begin(Kind.WRITE, offset, len(data), data)
        try:
            await self.file.write(offset, iov)
        except BaseException:
            self._end(change, Outcome.FAILED)
            raise
        self._end(change, Outcome.DONE)

    async def write_zeroes(self, offset: int, length: int, *, unmap: bool = False) -> None:
        """Node.write_zeroes."""
        change = self._begin(Kind.ZEROES, offset, length)
        try:
            await self.file.write_zeroes(offset, length, unmap=unmap)
        except BaseException:
            self._end(change, Outcome.FAILED)
            raise
        self._end(change, Outcome.DONE)

    async def discard(self, offset: int, length: int) -> None:
        """Node.discard; replayed as zeros, which is what files and memory make of it."""
        change = self._begin(Kind.DISCARD, offset, length)
        try:
            await self.file.discard(offset, length)
        except BaseException:
            self._end(change, Outcome.FAILED)
            raise
        self._end(change, Outcome.DONE)

    async def truncate(self, size: int) -> None:
        """Node.truncate."""
        change = self._begin(Kind.TRUNCATE, size, 0)
        try:
            await self.file.truncate(size)
        except BaseException:
            self._end(change, Outcome.FAILED)
            raise
        self._end(change, Outcome.DONE)

    async def flush(self) -> None:
        """Node.flush; one that fails promises nothing, so it ends no epoch."""
        covered = self._retired + len(self._undurable)  # completed now, when the flush starts
        await self.file.flush()
        self.epoch += 1
        # A flush that started later may have ended earlier and covered some of these already.
        newly = max(0, covered - self._retired)
        for change in self._undurable[:newly]:
            change.durable = self.epoch
        del self._undurable[:newly]
        self._retired += newly

    async def close(self) -> None:
        """Node.close: the recording stays."""
        await self.file.close()

    # -- recording --------------------------------------------------------------------------------

    def _begin(self, kind: Kind, offset: int, length: int, data: bytes = b"") -> Change:
        change = Change(kind, offset, length, data, self.epoch)
        self._in_flight.append(change)
        return change

    def _end(self, change: Change, outcome: Outcome) -> None:
        change.outcome = outcome
        # By identity: two equal writes may be in flight.
        self._in_flight = [other for other in self._in_flight if other is not change]
        self._done.append(change)
        if outcome is Outcome.DONE:
            self._undurable.append(change)


def _copy(change: Change) -> Change:
    return Change(change.kind, change.offset, change.length, change.data, change.issued, change.durable, change.outcome)
