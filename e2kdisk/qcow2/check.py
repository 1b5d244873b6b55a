"""Check an image, and repair it: leaks only, or everything (reference: qcow2_check_refcounts).

Corruptions are refcounts that are too low, pointers that make no sense and wrong COPIED flags; leaks are
refcounts that are too high.
"""

from __future__ import annotations

import os

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.file import FileNode
from e2kdisk.block.node import Node
from e2kdisk.errors import UnsupportedFeature, UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.bitmap_directory import is_stale
from e2kdisk.qcow2.check_kernel import make_kernel
from e2kdisk.qcow2.check_runs import RunKernel
from e2kdisk.qcow2.check_walk import CheckResult, MakeKernel, Walk
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import HeaderWriter, read_header
from e2kdisk.qcow2.repair import FIXES, repair
from e2kdisk.qcow2.table_runs import Scattered

__all__ = ["CheckResult", "check", "check_file"]


async def check_file(file: Node, fix: str | None = None) -> CheckResult:
    """Check the image in an open file, which nobody else uses meanwhile.

    fix: None, "leaks" (lower refcounts that are too high) or "all". Raises ImageError when the check cannot
    begin, OSError.
    """
    if fix is not None and fix not in FIXES:
        raise UsageError(f"fix {fix!r} is not one of {', '.join(FIXES)}")
    header = await read_header(file)
    _need_known_features(file.name, header)
    if fix is not None and is_stale(header):
        # Nobody kept these bitmaps up: without a name their space is a leak like any other.
        await HeaderWriter(file, header).switch(extensions=header.with_extension(layout.EXT_BITMAPS, None))
    walk = await _walk(file, header)
    if fix is None or (walk.result.clean and not header.incompatible_features & layout.INCOMPAT_BROKEN):
        return walk.result
    return await repair(file, header, walk, fix, _walk)


async def _walk(file: Node, header: Header) -> Walk:
    header.check_limits(file.name, file.size, refcounts=False)
    try:
        return await walk_with(RunKernel, file, header)
    except Scattered:
        return await walk_with(make_kernel, file, header)


async def walk_with(kernel: MakeKernel, file: Node, header: Header) -> Walk:
    """Count and compare everything in an image whose header is within the limits. Raises Scattered, as kernel does."""
    walk = Walk(file, header, kernel)
    await walk.count_everything_but_refcounts()
    await walk.count_refcounts()
    await walk.compare()
    return walk


def _need_known_features(filename: str, header: Header) -> None:
    known = layout.INCOMPAT_BROKEN | layout.INCOMPAT_COMPRESSION
    unknown = header.incompatible_features & ~known
    if unknown:
        names = ", ".join(header.feature_names(0, unknown))
        raise UnsupportedFeature(filename, "incompatible_features", f"{names}: cannot be checked")


def check(filename: str | os.PathLike[str], fix: str | None = None) -> CheckResult:
    """Check an image file; with fix ("leaks", "all") also repair it. Raises ImageError, UsageError or OSError."""
    path = os.fspath(filename)
    scheduler = Scheduler()
    engine = AutoEngine(scheduler)
    try:
        return scheduler.run(_check(path, engine, fix))
    finally:
        engine.close()


async def _check(path: str, engine: AutoEngine, fix: str | None) -> CheckResult:
    file = await FileNode.open(path, engine, read_only=fix is None)
    try:
        return await check_file(file, fix)
    finally:
        await file.close()
