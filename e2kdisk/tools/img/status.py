"""What lies where in a chain of images: the runs that map prints, convert copies and compare skips."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from e2kdisk.block.node import Node


class Run:
    """A run of bytes of one kind."""

    __slots__ = ("data", "depth", "host", "length", "name", "present", "zero")

    def __init__(
        self, length: int, *, data: bool, zero: bool, present: bool, depth: int, host: int | None, name: str
    ) -> None:
        self.length = length
        self.data = data
        """There may be bytes to read."""
        self.zero = zero
        """It is known to read as zeros."""
        self.present = present
        """Some image of the chain says what is read here."""
        self.depth = depth
        """Which: 0 for the top."""
        self.host = host
        """Where the bytes lie in that image's file."""
        self.name = name

    def continues(self, other: Run, length: int) -> bool:
        """Whether other, which lies length bytes further on, is more of the same."""
        same = (self.data, self.zero, self.present, self.depth) == (other.data, other.zero, other.present, other.depth)
        if not same or (self.host is None) != (other.host is None):
            return False
        return self.host is None or (other.host == self.host + length and self.name == other.name)


async def run_at(node: Node, offset: int, length: int) -> Run:
    """The run at offset, at most length bytes."""
    depth = 0
    while True:
        backing: Node | None = getattr(node, "backing", None)
        if not hasattr(node, "mapping"):
            return await _plain(node, offset, length, depth)
        status = await node.status(offset, length)
        length = min(length, status.length)
        if status.allocated:
            data, zero, host = not status.zero, status.zero, status.host_offset
            if data and host is not None and await _is_preallocated(node):
                below = await _file_of(node).status(host, length)
                length, zero = min(length, below.length), below.zero
            return Run(length, data=data, zero=zero, present=True, depth=depth, host=host, name=node.name)
        if backing is None or offset >= backing.size:
            return Run(length, data=False, zero=True, present=False, depth=depth, host=None, name=node.name)
        length = min(length, backing.size - offset)
        node = backing
        depth += 1


async def kind_at(node: Node, offset: int, length: int) -> Run:
    """The run at offset, at most length bytes, wherever its bytes lie: one run where run_at finds many."""
    if not hasattr(node, "mapping"):
        return await run_at(node, offset, length)
    from e2kdisk.qcow2.extent_status import data_run
    from e2kdisk.qcow2.geometry import GuestOffset

    data = await data_run(node, GuestOffset(offset), length)  # type: ignore[arg-type]
    if not data or await _is_preallocated(node):
        return await run_at(node, offset, length)
    return Run(data, data=True, zero=False, present=True, depth=0, host=None, name=node.name)


async def _plain(node: Node, offset: int, length: int, depth: int) -> Run:
    """A run of an image that is not qcow2; behind its last byte come zeros up to a whole sector."""
    if offset >= node.size:
        return Run(length, data=False, zero=True, present=True, depth=depth, host=offset, name=node.name)
    status = await node.status(offset, min(length, node.size - offset))
    return Run(
        status.length,
        data=not status.zero,
        zero=status.zero,
        present=True,
        depth=depth,
        host=status.host_offset,
        name=node.name,
    )


async def runs(node: Node, start: int, end: int) -> AsyncIterator[tuple[int, Run]]:
    """All runs of a range with their offsets, neighbours of the same kind as one."""
    offset = start
    current: Run | None = None
    begin = start
    while offset < end:
        run = await run_at(node, offset, end - offset)
        if current is not None and current.continues(run, offset - begin):
            current.length += run.length
        else:
            if current is not None:
                yield begin, current
            current, begin = run, offset
        offset += run.length
    if current is not None:
        yield begin, current


def _file_of(node: Node) -> Node:
    file: Node = getattr(node, "file")  # noqa: B009
    return file


async def _is_preallocated(node: Node) -> bool:
    """Whether far more clusters are in use than the host has stored: then holes of the file are worth asking for."""
    known: bool | None = getattr(node, "_img_preallocated", None)
    if known is None:
        known = await _count_preallocated(node)
        node._img_preallocated = known  # type: ignore[attr-defined]
    return known


async def _count_preallocated(node: Node) -> bool:
    from e2kdisk.qcow2.image import Qcow2Image

    file = _file_of(node)
    descriptor = getattr(file, "fd", None)
    if descriptor is None or not isinstance(node, Qcow2Image):
        return False
    stored = os.fstat(descriptor).st_blocks * 512
    if stored * 10 >= file.size * 9:
        return False
    geometry = node.geometry
    stored_clusters = geometry.clusters(stored)
    enough = max(stored_clusters * 10 // 9, stored_clusters + 2)
    used = 0
    async with node.lock:
        for cluster in range(geometry.clusters(file.size)):
            used += bool(await node.refcounts.get(cluster))
            if used >= enough:
                return True
    return False
