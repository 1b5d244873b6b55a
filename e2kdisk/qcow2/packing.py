"""Space for compressed clusters: byte after byte, several to a cluster (reference: qcow2_alloc_bytes)."""

from __future__ import annotations

from e2kdisk.block.node import EventHook
from e2kdisk.qcow2.geometry import Geometry, HostOffset
from e2kdisk.qcow2.refcount import RefcountTable


class Packing:
    """Where the next compressed cluster goes. Every cluster that a piece touches counts one reference for it."""

    def __init__(self, geometry: Geometry, refcounts: RefcountTable, event: EventHook | None = None) -> None:
        self._geometry = geometry
        self._refcounts = refcounts
        self._event = event
        self._next = 0
        """First free byte of a cluster that others share, 0 for none (free_byte_offset)."""

    def forget(self) -> None:
        """Clusters have been released: the shared one may be among them and somebody else's soon."""
        self._next = 0

    async def allocate(self, length: int) -> HostOffset:
        """Take length bytes, at most one cluster. Needs the metadata lock. Raises OSError or ImageError.

        What is not used goes back with RefcountTable.release(offset, length).
        """
        if self._event is not None:
            await self._event("cluster_alloc_bytes")
        geometry = self._geometry
        start = self._next
        room = -start & geometry.cluster_mask
        if length <= room and await self._share(start):
            self._advance(start + length)
            return HostOffset(start)
        fresh, _ = await self._refcounts.allocate(1)
        if room and start + room == fresh and await self._share(start):
            # The new cluster follows the shared one: the piece lies across both.
            self._advance(start + length)
            return HostOffset(start)
        self._advance(fresh + length)
        return fresh

    async def _share(self, start: int) -> bool:
        """Count one more reference to the shared cluster; False if its refcount is as high as it can get."""
        cluster = start >> self._geometry.cluster_bits
        if await self._refcounts.get(cluster) >= (1 << self._geometry.refcount_bits) - 1:
            return False
        await self._refcounts.add(cluster, 1, 1)
        return True

    def _advance(self, end: int) -> None:
        self._next = end if end & self._geometry.cluster_mask else 0
