"""Repair: refcounts and flags set to what the references say, in an order that a crash cannot make worse.

    1. pointers that make no sense become zeros                 nothing else can be done with them
       snapshot entries that lack fields are written anew       behind the end of the file, where 2. counts them
    2. refcounts that are too low go up                         before anybody allocates what is in use
    3. COPIED flags follow the refcounts                        (for "leaks" only where nothing else is wrong)
    4. refcounts that are too high go down                      last: only now nothing depends on them
    5. the dirty and corrupt bits in the header are cleared

If the refcount table or blocks themselves are broken, 2 to 4 become: build new ones behind the end of the
file and switch to them with one write of the header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from e2kdisk.block.node import Node
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.check_walk import CheckResult, Walk
from e2kdisk.qcow2.entries import decode_refcounts, pack64
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import HeaderWriter
from e2kdisk.qcow2.rebuild import rebuild_refcounts
from e2kdisk.qcow2.snapshot_table import pack_snapshots, read_snapshots

FIXES = ("leaks", "all")

Walker = Callable[[Node, Header], Awaitable[Walk]]


async def repair(file: Node, header: Header, walk: Walk, fix: str, walker: Walker) -> CheckResult:
    """Repair what a walk has found; returns the result of another walk, with what has been fixed. Raises OSError."""
    found = walk.result
    only_flags = found.corruptions == len(walk.wrong_flags) and not found.leaks
    flags = walk.wrong_flags
    writer = HeaderWriter(file, header)
    if fix == "all":
        if walk.bad_entries:
            await _clear_entries(file, walk.bad_entries)
            walk = await walker(file, header)
        if walk.incomplete_snapshots:
            await _complete_snapshots(file, header, walk.geometry, writer)
            walk = await walker(file, header)
        if walk.broken_refcounts:
            await _rebuild(file, header, writer)
            walk = await walker(file, header)
        await _adjust(file, walk, raise_=True)
        # A flag follows the refcount, which may just have changed: judged by what is in the file now.
        walk = await walker(file, header)
        for where, value in walk.bad_flags:
            await file.write(where, [memoryview(pack64([value]))])
        await file.flush()
    # A flag that only a leak makes wrong is no corruption of its own.
    found.judge_flags(flags, [text for text in walk.wrong_flags if not walk.consequences.get(text)])
    if not walk.broken_refcounts:
        await _adjust(file, walk, raise_=False)
    # Where nothing else is wrong the refcounts can be believed, so that the flags may follow them.
    if fix == "all" or only_flags:
        walk = await walker(file, header)
        for where, value in walk.bad_flags:
            await file.write(where, [memoryview(pack64([value]))])
        await file.flush()
    after = (await walker(file, header)).result
    if not after.corruptions and header.incompatible_features & layout.INCOMPAT_BROKEN and fix == "all":
        await writer.switch(incompatible_features=header.incompatible_features & ~layout.INCOMPAT_BROKEN)
    after.corruptions_fixed = max(0, found.corruptions - after.corruptions)
    after.leaks_fixed = max(0, found.leaks - after.leaks)
    after.problems = found.problems
    return after


async def _complete_snapshots(file: Node, header: Header, geometry: Geometry, writer: HeaderWriter) -> None:
    """Write the snapshot table with all fields behind the end of the file; one write of the header switches to it."""
    snapshots, _ = await read_snapshots(file, header)
    data = pack_snapshots(snapshots)
    offset = geometry.round_up(file.size)
    await file.write(offset, [memoryview(data.ljust(geometry.round_up(len(data)), b"\0"))])
    await file.flush()
    await writer.switch(snapshots_offset=offset)


async def _clear_entries(file: Node, entries: list[tuple[int, int]]) -> None:
    for where, value in entries:
        await file.write(where, [memoryview(pack64([value]))])
    await file.flush()


async def _adjust(file: Node, walk: Walk, *, raise_: bool) -> None:
    """Write refcounts as high as the references (raise_), or exactly as high, where blocks exist."""
    geometry = walk.geometry
    touched = {cluster >> geometry.refblock_bits for cluster, _, _ in walk.kernel.differences()}
    last = (walk.clusters - 1) >> geometry.refblock_bits
    if not raise_:
        # Counts of clusters past the end of the file are leaks too.
        touched |= {index for index in walk.blocks if index >= last}
    for index in sorted(touched):
        offset = walk.blocks.get(index)
        if offset is None:
            continue
        raw = bytearray(geometry.cluster_size)
        await file.read(offset, [memoryview(raw)])
        counts = decode_refcounts(raw, geometry.refcount_bits)
        first = index << geometry.refblock_bits
        for slot, references in enumerate(walk.kernel.references_of(first, first + geometry.refblock_entries)):
            if counts.get(slot) < references if raise_ else counts.get(slot) > references:
                counts.set(slot, min(references, (1 << geometry.refcount_bits) - 1))
        await file.write(offset, [memoryview(counts.pack(0, geometry.cluster_size))])
    await file.flush()


async def _rebuild(file: Node, header: Header, writer: HeaderWriter) -> None:
    walk = Walk(file, header)
    await walk.count_everything_but_refcounts()

    async def references(first: int, end: int) -> list[int]:
        return walk.kernel.references_of(first, end)

    await rebuild_refcounts(file, writer, walk.geometry, walk.clusters, references)
