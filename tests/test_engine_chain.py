"""Commit, rebase, stream and make-empty under faults and power cuts: the disk never changes, its files stay sound.

Every request and event of the operation, in the image and in the file below it, fails once with EIO and for good with
ENOSPC; every content that a power cut may leave is put together with what the other file holds at that moment.
"""

import errno
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.recorder import RecorderNode
from e2kdisk.block.recording import Outcome
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import chain
from e2kdisk.qcow2.header import Header
from tests import oracles
from tests.engine_lab import KEY, Mirror, below, new_image, noise
from tests.qcow2_model import LabFile, check_bytes, open_image, read_all

CLUSTER = 1024
SIZE = 60 * 1024 + 512
BASE_SIZE = 48 * 1024
OTHER = noise(random.Random(5), 52 * 1024)
"""The raw file that rebase moves the image to."""


@dataclass(frozen=True)
class Start:
    """An image over a qcow2 image, before the operation."""

    top: bytes
    base: bytes
    disk: bytes
    """What the image shows, and goes on showing."""
    below: bytes
    """What the base shows."""
    snapshot: bytes
    """What the image's snapshot shows."""


@cache
def prepared(encrypted: bool) -> Start:
    dice = random.Random(11)
    base_file = new_image(BASE_SIZE, cluster_size=2 * CLUSTER)
    base = open_image(base_file)
    under = bytearray(BASE_SIZE)
    Mirror(base, under, dice).change(12, ("write", "write", "compressed", "zeroes"))
    base_file.scheduler.run(base.close())
    scheduler = Scheduler()
    options = {"backing_file": "base", "backing_format": "qcow2", "encrypted": encrypted}
    file = new_image(SIZE, cluster_size=CLUSTER, **options)
    file.scheduler = scheduler
    top = open_image(file, open_image(LabFile(scheduler, base_file.data)), key=KEY if encrypted else None)
    model = bytearray(under.ljust(SIZE, b"\0"))
    mirror = Mirror(top, model, dice)
    mirror.change(8, ("write", "write", "zeroes", "compressed"))
    scheduler.run(top.snapshots.create("s"))
    held = bytes(model)
    mirror.change(6, ("write", "write", "zeroes", "unmap", "compressed"))
    scheduler.run(top.close())
    return Start(bytes(file.data), bytes(base_file.data), bytes(model), bytes(under), held)


class Chain:
    """Both files of a chain, open, each behind a node of the test's choice."""

    def __init__(self, start: Start, top: bytes, base: bytes, *, key: str | None, wrap: Callable[..., Any]) -> None:
        self.start = start
        self.key = key
        self.scheduler = Scheduler()
        self.files = {"top": LabFile(self.scheduler, top), "base": LabFile(self.scheduler, base)}
        self.nodes = {name: wrap(file) for name, file in self.files.items()}
        self.base = open_image(self.nodes["base"])
        self.image = open_image(self.nodes["top"], self.base, key=key)
        for image in (self.base, self.image):
            image.mapping.slices.limit = 2
            image.refcounts.blocks.limit = 4

    def close(self) -> None:
        for image in (self.image, self.base):
            self.scheduler.run(image.close())


async def commit(chained: Chain) -> None:
    await chain.commit(chained.image, chained.base)
    await chain.make_empty(chained.image)


async def commit_only(chained: Chain) -> None:
    await chain.commit(chained.image, chained.base)


async def rebase(chained: Chain) -> None:
    await chain.rebase(chained.image, below(chained.scheduler, OTHER), "other", "raw")


async def flatten(chained: Chain) -> None:
    await chain.rebase(chained.image, None, None, None)


async def stream(chained: Chain) -> None:
    # The base is closed by stream(); its bytes stay.
    await chain.stream(chained.image)


Act = Callable[[Chain], Awaitable[None]]
Counted = Callable[[str, int], None]
OPERATIONS: dict[str, Act] = {
    "commit": commit,
    "commit without emptying": commit_only,
    "rebase": rebase,
    "rebase to nothing": flatten,
    "stream": stream,
}


def shown(start: Start, top: bytes, base: bytes, key: str | None) -> bytes:
    """What the image reads as, opened anew over the file that its header names."""
    scheduler = Scheduler()
    alone = open_image(LabFile(scheduler, top, read_only=True), key=key)
    name = alone.header.backing_file
    node = None
    if name == "base":
        node = open_image(LabFile(scheduler, base, read_only=True))
    elif name is not None:
        assert name == "other"
        node = below(scheduler, OTHER)
    image = open_image(LabFile(scheduler, top, read_only=True), node, key=key)
    return bytes(read_all(image))


def judge(start: Start, top: bytes, base: bytes, key: str | None) -> None:
    """Both files are sound but for leaks; the disk shows what it always has; each sector of the base is old or new."""
    for data in (top, base):
        check_bytes(data, allow_leaks=True)
    assert shown(start, top, base, key) == start.disk, "the disk has changed"
    under = bytes(read_all(open_image(LabFile(Scheduler(), base, read_only=True))))
    old = start.below.ljust(SIZE, b"\0")
    assert len(under) in (BASE_SIZE, SIZE)
    for at in range(0, len(under), 512):
        may = (old[at : at + 512], start.disk[at : at + 512])
        assert under[at : at + 512] in may, f"sector {at // 512} of the base"


def attempt(chained: Chain, act: Act) -> BaseException | None:
    try:
        chained.scheduler.run(act(chained))  # type: ignore[arg-type]
        chained.scheduler.run(chained.image.flush())
    except (OSError, ImageError) as error:
        return error
    return None


def one_fault(act: Act, start: Start, where: str, rule: str, key: str | None, *, retry: bool) -> Chain | None:
    chained = Chain(start, start.top, start.base, key=key, wrap=FaultNode)
    faults = chained.nodes[where]
    faults.add(rule)
    error = attempt(chained, act)
    if not faults.injected:
        return None
    if error is None:
        assert any(name in rule for name in ("discard", "cluster_free")), "the caller heard nothing of the fault"
    else:
        assert isinstance(error, OSError), f"{error!r} instead of an OSError"
        assert error.errno in (errno.EIO, errno.ENOSPC)
    faults.clear()
    assert bytes(read_all(chained.image)) == start.disk, "the disk has changed at once"
    if retry and error is not None:
        assert attempt(chained, act) is None, "the retry failed"
        if act in (commit, commit_only):
            assert bytes(read_all(chained.base)) == start.disk, "committed, but not all of it"
    else:
        chained.scheduler.run(chained.image.flush())
        chained.scheduler.run(chained.base.flush())
    chained.close()
    judge(start, bytes(chained.files["top"].data), bytes(chained.files["base"].data), key)
    return chained


def sweep(name: str, most: int, place: Path, *, encrypted: bool) -> int:
    act, start, key = OPERATIONS[name], prepared(encrypted), KEY if encrypted else None
    first = Chain(start, start.top, start.base, key=key, wrap=FaultNode)
    for node in first.nodes.values():
        node.seen.clear()
    assert attempt(first, act) is None
    count = 0
    for where, node in first.nodes.items():
        for what, times in sorted(node.seen.items()):
            step = max(1, times / most)
            for number in sorted({int(1 + step * turn) for turn in range(min(most, times))}):
                for kind in ("EIO once", "ENOSPC sticky", *(("EIO late once",) if what in ("write", "flush") else ())):
                    for retry in (True, False):
                        rule = f"{what}@{number}: {kind}"
                        try:
                            chained = one_fault(act, start, where, rule, key, retry=retry)
                            if chained is not None and count % 40 == 0:
                                _qemu_agrees(chained, place)
                            count += chained is not None
                        except BaseException as error:
                            error.add_note(f"{name}: {where}: {rule}, {'tried again' if retry else 'given up'}")
                            raise
    return count


def _qemu_agrees(chained: Chain, place: Path) -> None:
    for name, file in chained.files.items():
        (place / name).write_bytes(file.data)
    (place / "other").write_bytes(OTHER)
    oracles.assert_clean(place / "base", allow_leaks=True)
    oracles.assert_clean(place / "top", allow_leaks=True, key=chained.key)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_in_either_file_of_a_chain_changes_nothing_on_the_disk(
    name: str, tmp_path: Path, counted: Counted
) -> None:
    counted("faults injected", sweep(name, 3, tmp_path, encrypted=False))


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "AES"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_every_step_in_either_file_of_a_chain_changes_nothing_on_the_disk(
    name: str, encrypted: bool, tmp_path: Path, counted: Counted
) -> None:
    counted("faults injected", sweep(name, 60, tmp_path, encrypted=encrypted))


# -- power cuts --------------------------------------------------------------------------------------


async def empty(chained: Chain) -> None:
    await chain.make_empty(chained.image)
    await chained.image.flush()


CUTS: dict[str, tuple[Act, str]] = {
    "commit": (commit_only, "base"),
    "make empty": (empty, "top"),
    "rebase": (rebase, "top"),
    "rebase to nothing": (flatten, "top"),
    "stream": (stream, "top"),
}
"""Operations by the one file that each writes: so the other one is whole at every moment of it."""


def cut(name: str, seed: int, bound: int, *, encrypted: bool) -> int:
    act, written = CUTS[name]
    start, key, dice = prepared(encrypted), KEY if encrypted else None, random.Random(seed)
    base = start.base
    if act is empty:
        done = Chain(start, start.top, start.base, key=key, wrap=lambda file: file)
        assert attempt(done, commit_only) is None
        base = bytes(done.files["base"].data)

    def recorded(file: LabFile) -> RecorderNode:
        node = file.scheduler.run(RecorderNode.start(file))
        file.engine = SimulatedEngine(file.scheduler, lambda pending: dice.randrange(len(pending)))
        return node

    chained = Chain(start, start.top, base, key=key, wrap=recorded)
    chained.scheduler.run(act(chained))  # type: ignore[arg-type]
    recordings = {where: node.recording() for where, node in chained.nodes.items()}
    other = "base" if written == "top" else "top"
    assert not recordings[other].changes, f"{name} writes to {other}"
    assert recordings[written].changes
    # When it returns, all is durable: the caller may forget the other file, or make the image empty.
    undurable = [item for item in recordings[written].changes if item.durable is None and item.outcome is Outcome.DONE]
    assert not undurable or act is not commit_only
    count = 0
    for state in recordings[written].snapshots(bound=bound, seed=seed):
        content = bytes(state.content)
        try:
            judge(start, *((content, base) if written == "top" else (start.top, content)), key)
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}: crash {state}")
            raise
        count += 1
    return count


@pytest.mark.parametrize("name", CUTS)
def test_a_power_cut_changes_nothing_on_the_disk_of_a_chain(name: str, counted: Counted) -> None:
    counted("crash states", cut(name, 1, 4, encrypted=False))


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "AES"])
@pytest.mark.parametrize("name", CUTS)
def test_many_power_cuts_change_nothing_on_the_disk_of_a_chain(name: str, encrypted: bool, counted: Counted) -> None:
    counted("crash states", sum(cut(name, seed, 60, encrypted=encrypted) for seed in range(4)))


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("version", [2, 3])
def test_a_torn_header_names_the_old_backing_file_or_the_new_one(version: int, tmp_path: Path) -> None:
    """Names that do not fit in the first sector, of any length after any other; and then none."""
    file = new_image(SIZE, cluster_size=4096, version=version, backing_file="first", backing_format="raw")
    scheduler = file.scheduler
    recorder = scheduler.run(RecorderNode.start(file))
    image = open_image(recorder, below(scheduler, b""))
    names = ["first"]
    for length in (5, 300, 1000, 4, 600, 601, 1023, 20, 900):
        names.append(chr(ord("a") + len(names)) * length)
        scheduler.run(chain.change_backing(image, names[-1], "raw" if length % 2 else "qcow2"))
    scheduler.run(chain.change_backing(image, None, None))
    may = {(name, "raw" if len(name) % 2 else "qcow2") for name in names} | {(None, None)}
    seen = set()
    for state in recorder.recording().snapshots(bound=200):
        shown = Header.parse("t", bytes(state.content[:4096]))
        assert (shown.backing_file, shown.backing_format) in may, f"crash {state}"
        seen.add(shown.backing_file)
    assert seen == {*names, None}
    path = tmp_path / "disk.qcow2"
    for name in names:
        scheduler.run(chain.change_backing(image, name, "raw"))
        path.write_bytes(file.data)
        assert f"backing file: {name[:60]}" in oracles.qemu_img("info", path)
    scheduler.run(image.close())
