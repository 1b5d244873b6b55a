"""FreeSearch: finds runs of free clusters, first fit, and remembers where it need not look again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.cache import Table
from e2kdisk.qcow2.entries import Refcounts
from e2kdisk.qcow2.geometry import Geometry

BlockGetter = Callable[[int], Awaitable[Table[Refcounts] | None]]
"""The refcount block with an index, None if there is none (all that it would count is free)."""


class FreeSearch:
    """The search for one image's free clusters, which are numbered; under the metadata lock."""

    def __init__(self, name: str, geometry: Geometry, block: BlockGetter) -> None:
        self._name = name
        self._geometry = geometry
        self._block = block
        self._hint = 0
        """No cluster before this one is free (free_cluster_index)."""
        self._run_length = 1
        self._run_from = 0
        """No run of _run_length free clusters or more begins before this cluster."""

    def freed(self, cluster: int) -> None:
        """A cluster has become free: searches begin there again."""
        self._hint = min(self._hint, cluster)
        self._run_length, self._run_from = 1, self._hint

    def taken(self, first: int, clusters: int) -> None:
        """The run that find() has just returned is in use now."""
        if first == self._hint:
            self._hint = first + clusters
        self._run_from = first + clusters

    async def find(self, clusters: int) -> int:
        """The first of the first run of that many free clusters. Raises ImageError at the largest file offset."""
        geometry = self._geometry
        limit = layout.MAX_HOST_OFFSET >> geometry.cluster_bits
        cluster = self._hint
        if clusters < self._run_length:
            self._run_length = clusters
            self._run_from = cluster
        elif self._run_from > cluster:
            cluster = self._run_from
        only_used = cluster == self._hint
        start, run = cluster, 0
        while run < clusters:
            if cluster + clusters - run > limit:
                raise ImageError(self._name, "", "the image file has reached its largest size")
            block = await self._block(cluster >> geometry.refblock_bits)
            slot = cluster & (geometry.refblock_entries - 1)
            if block is None:
                free = geometry.refblock_entries - slot
                run += free
                cluster += free
                continue
            found = block.entries.find_free(slot)
            if found != slot:
                # Something used lies between: the run, if any, is over.
                cluster += (found if found >= 0 else geometry.refblock_entries) - slot
                start, run = cluster, 0
                continue
            run += 1
            cluster += 1
            if only_used:
                # All from the old hint to here are in use.
                self._hint = start
                only_used = False
        self._run_length = clusters
        self._run_from = start
        return start
