"""The order in which metadata may reach the disk: one chain, from refcounts to pointers to freed space.

    guest data, COW data, new empty tables          written at once, marked with note_unsynced()
      v
    refcount blocks     a cluster counts as used
      v                 before anything points to its count
    refcount table      the blocks count
      v                 before anything points to the cluster
    L2 slices           the guest sees the cluster
      v                 before the L2 table is reachable
    L1 table
      v                 only when no pointer on disk leads there any more
    freed clusters      lose their refcount (pending frees, see refcount.py)

Every arrow is an fsync, made only when something was written above it. A crash between two steps leaves
clusters that are counted but not used (a leak), never the reverse.

The reference has pairwise dependencies between two caches instead (qcow2_cache_set_dependency,
qcow2_cache_depends_on_flush): "refcounts before L2" while allocating and "L2 before refcounts" while
freeing, switched by flushing. Because frees wait here until their pointers are durable, the second direction
never occurs, the chain has no cycle, and freed space is not reused while an old pointer to it could still
come back after a crash.
"""

from __future__ import annotations

from e2kdisk.block.node import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Stage(Protocol):
    """One link of the chain: tables of one kind that are changed in memory and written later."""

    @property
    def dirty(self) -> bool:
        """True if anything waits to be written."""

    async def write_back(self) -> None:
        """Write everything dirty; whatever fails stays dirty. Raises OSError."""


class WriteOrder:
    """Writes the stages of one image in order; called with the image's metadata lock held."""

    def __init__(self, file: Node) -> None:
        self._file = file
        self._stages: list[Stage] = []
        self._counts: list[Stage] = []
        self._unsynced = False
        self.lazy = False
        """Refcounts stay in memory until close(): the dirty bit in the header says that those on disk are not right."""

    def add(self, stage: Stage, *, counts: bool = False) -> None:
        """Append a stage behind those added before; `counts` for the refcounts, which may be lazy."""
        self._stages.append(stage)
        if counts:
            self._counts.append(stage)

    def note_unsynced(self) -> None:
        """Something was written that must be durable before any later stage points to it."""
        self._unsynced = True

    async def flush(self, *, before: Stage | None = None, lazy: bool | None = None) -> None:
        """Write all dirty stages, or only those that come before one; then make the result durable.

        With `before`, on return that stage may be written at any time: all it can point to is durable.
        lazy=False writes the refcounts even while they are lazy.
        Raises OSError; then the rest stays dirty and a later flush goes on.
        """
        skipped = self._counts if (self.lazy if lazy is None else lazy) else ()
        for index, stage in enumerate(self._stages):
            if stage is before:
                break
            if stage in skipped:
                continue
            if stage.dirty:
                # The first stage points to nothing: refcounts may be written before the data that they count.
                if index > 0:
                    await self.barrier()
                self._unsynced = True
                await stage.write_back()
        await self.barrier()

    async def barrier(self) -> None:
        """Make durable what was written since the last barrier."""
        if self._unsynced:
            # Cleared first: data that completes while the fsync runs is not covered by it and sets it again.
            self._unsynced = False
            try:
                await self._file.flush()
            except BaseException:
                self._unsynced = True
                raise
