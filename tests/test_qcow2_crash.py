"""Power cuts: the file as it may be after one, at every point between two writes, is consistent but for leaks.

A LabFile logs what the format writes and when a flush made what durable. A state after a power cut is everything that
a completed flush covers, and any part of what came after it: every prefix, and seeded subsets in which writes are
missing or end in the middle, at a sector.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.block.memory import MemoryNode
from e2kdisk.qcow2.check import check_file
from tests import oracles
from tests.qcow2_model import (
    BASE_TAG,
    LabFile,
    Model,
    Op,
    Traffic,
    alternate,
    apply,
    check_bytes,
    open_image,
    pattern,
    read_all,
    tags_of,
)
from tests.test_qcow2_interleavings import (
    GRANULE,
    Start,
    compressed,
    full_reftable,
    made,
    small_refcounts,
    with_snapshot,
)


class Recorded:
    """A workload on an image whose file remembers everything."""

    def __init__(self, start: Start, seed: int) -> None:
        self.start = start
        self.dice = random.Random(seed)
        self.scheduler = Scheduler()
        self.engine = SimulatedEngine(self.scheduler, lambda pending: self.dice.randrange(len(pending)))
        self.file = LabFile(self.scheduler, start.image, logging=True)
        self.log = self.file.log
        self.image = open_image(self.file, self._backing(self.scheduler))
        # The smallest caches: tables are written back in the middle of everything.
        self.image.mapping.slices.limit = 2
        self.image.refcounts.blocks.limit = 4
        self.file.engine = self.engine
        self.model = Model(start.tags)
        self.traffic = Traffic(self.image, self.model, GRANULE)
        self.traffic.on_start = self._started
        self.traffic.on_finish = self._finished

    def _backing(self, scheduler: Scheduler) -> MemoryNode | None:
        if self.start.backing is None:
            return None
        below = MemoryNode(scheduler, len(self.start.backing))
        below.data[:] = self.start.backing
        return below

    def _started(self, op: Op) -> None:
        op.began, op.ended = len(self.log or ()), None

    def _finished(self, op: Op, error: BaseException | None) -> None:
        assert error is None, error
        op.ended = len(self.log or ())

    def advance(self, steps: int) -> None:
        """Complete some of the I/O in flight."""
        for _ in range(steps):
            if self.engine.pending:
                self.engine.complete(self.engine.pending[self.dice.randrange(len(self.engine.pending))])
                self.scheduler.poll()

    def grow(self, count: int) -> None:
        """Grow the disk by granules."""
        self.traffic.drain()
        total = len(self.model.granules) + count
        self.model.grow(total)
        self.scheduler.run(self.image.truncate(total * GRANULE))

    # -- power cuts -------------------------------------------------------------------------------

    def states(self, effort: int) -> Iterator[tuple[int, str, bytearray]]:
        """(length of the log at the cut, what was lost, the file).

        Prefixes; and at the end of each epoch, just before the flush that would make it durable: one write is
        missing, one write ends in its middle, many are missing.
        """
        log = self.log
        assert log is not None
        durable = bytearray(self.start.image)
        covered = 0
        for position in range(len(log) + 1):
            if position and log[position - 1].kind == "flush":
                for item in log[covered : log[position - 1].covers]:
                    apply(durable, item)
                covered = max(covered, log[position - 1].covers)
            loose = [index for index in range(covered, position) if log[index].kind != "flush"]
            if position % 8 < effort:
                yield position, "nothing is lost", self._file(durable, loose, {})
            if loose and (position == len(log) or log[position].kind == "flush"):
                dice = random.Random(position)
                for index in dice.sample(loose, min(len(loose), 6 * effort)):
                    yield position, f"log entry {index} is lost", self._file(durable, loose, {index: 0})
                    if len(log[index].data) > 512:
                        cut = dice.randrange(512, len(log[index].data), 512)
                        what = f"log entry {index} is lost from byte {cut}"
                        yield position, what, self._file(durable, loose, {index: cut})
                for _ in range(effort if len(loose) > 2 else 0):
                    chance = dice.choice([0.2, 0.5, 0.8])
                    lost = {index: 0 for index in loose if dice.random() < chance}
                    yield position, f"log entries {sorted(lost)} are lost", self._file(durable, loose, lost)

    def _file(self, durable: bytearray, loose: list[int], cuts: dict[int, int]) -> bytearray:
        """The durable part and these log entries, of which some are cut off at a byte."""
        assert self.log is not None
        data = bytearray(durable)
        for index in loose:
            if cuts.get(index) != 0:
                apply(data, self.log[index], cut=cuts.get(index))
        return data

    def judge(self, position: int, data: bytearray) -> None:
        """The file after a power cut is consistent, and holds what was flushed."""
        check_bytes(data, allow_leaks=True)
        scheduler = Scheduler()
        image = open_image(LabFile(scheduler, data, read_only=True), self._backing(scheduler))
        for number, tag in enumerate(tags_of(read_all(image), 0, GRANULE)):
            may = self.model.after_power_cut(number, position)
            assert tag in may, f"granule {number} holds tag {tag}, possible are {sorted(may)}"

    def judge_all(self, effort: int, sample: Path | None = None) -> int:
        """Judge every state; with a path, qemu-img checks every 50th. Returns their number."""
        count = 0
        for position, what, data in self.states(effort):
            try:
                self.judge(position, data)
            except BaseException as error:
                error.add_note(f"power cut after {position} log entries, {what}")
                raise
            if sample is not None and count % 50 == 0:
                sample.write_bytes(data)
                oracles.assert_clean(sample, allow_leaks=True)
                check_ours(data)
            count += 1
        return count


def check_ours(data: bytearray) -> None:
    """Our own check finds leaks at most, and repairs them; then the image can be written again."""
    scheduler = Scheduler()
    file = LabFile(scheduler, data)
    found = scheduler.run(check_file(file))
    assert not found.corruptions
    assert found.leaks == check_bytes(data, allow_leaks=True).leaks
    if found.leaks:
        scheduler.run(check_file(file, "leaks"))
        check_bytes(file.data)


# -- workloads ---------------------------------------------------------------------------------------

SIZE = 96 * 1024


@cache
def tiny_clusters() -> Start:
    """512-byte clusters: an L2 table maps 32 KiB, three of them in a cache of two."""
    return made(SIZE, cluster_size=512, fill=[*alternate(SIZE // GRANULE, 16)])


@cache
def overlay() -> Start:
    return made(SIZE, cluster_size=2048, backing=pattern(BASE_TAG, 0, SIZE // GRANULE - 7, GRANULE))


@cache
def overlay_v2() -> Start:
    return made(SIZE, cluster_size=1024, version=2, backing=pattern(BASE_TAG, 0, SIZE // GRANULE, GRANULE))


@cache
def bits1() -> Start:
    return made(SIZE, cluster_size=512, refcount_bits=1, fill=[(0, 60)])


def mixed(work: Recorded, kinds: str, requests: int) -> None:
    """Random requests of these kinds (w write, z zero, u unmap, d discard), flushes between them, many in flight."""
    names = {"w": "write", "z": "zero", "u": "unmap", "d": "discard"}
    total = len(work.model.granules)
    for _ in range(requests):
        kind = names[work.dice.choice(kinds)]
        first = work.dice.randrange(total)
        work.traffic.start(kind, first, min(work.dice.choice([1, 2, 5, 24]), total - first))
        if work.dice.random() < 0.25:
            work.traffic.start("flush")
        work.advance(work.dice.randrange(12))
    work.traffic.drain()
    work.traffic.start("flush")
    work.traffic.drain()


def growing(work: Recorded) -> None:
    mixed(work, "w", 6)
    work.grow(100)
    mixed(work, "wd", 6)
    work.grow(9000 // GRANULE * 8)
    mixed(work, "wd", 4)


def zeroed_and_rewritten(work: Recorded) -> None:
    """Zero clusters that keep their space are written again: nothing is allocated, only data and L2 entries change."""
    for kind in ("write", "zero", "write", "discard", "write", "zero", "write"):
        for first in range(0, 160, 40):
            work.traffic.start(kind, first, 20)
        work.advance(9)
        work.traffic.drain()
        work.traffic.start("flush")
        work.traffic.drain()


WORKLOADS: dict[str, tuple[Callable[[], Start], Callable[[Recorded], None]]] = {
    "allocation and tables evicted": (tiny_clusters, lambda work: mixed(work, "w", 30)),
    "discard and reuse": (tiny_clusters, lambda work: mixed(work, "wwdu", 40)),
    "zeroes over what is allocated": (tiny_clusters, lambda work: mixed(work, "wzzu", 40)),
    "zeroed and written again": (tiny_clusters, zeroed_and_rewritten),
    "copy on write over a backing file": (overlay, lambda work: mixed(work, "wwz", 30)),
    "discard over a backing file": (overlay, lambda work: mixed(work, "wd", 30)),
    "version 2 over a backing file": (overlay_v2, lambda work: mixed(work, "wdz", 30)),
    "1-bit refcounts": (bits1, lambda work: mixed(work, "wwd", 40)),
    "refcount blocks are made": (small_refcounts, lambda work: mixed(work, "wwd", 30)),
    "refcount table grows": (full_reftable, lambda work: mixed(work, "w", 10)),
    "copy on write of a snapshot's clusters": (with_snapshot, lambda work: mixed(work, "wwzd", 25)),
    "compressed clusters are written over": (compressed, lambda work: mixed(work, "wwd", 25)),
    "the disk grows": (overlay, growing),
    "the disk grows, L1 table moves": (bits1, growing),
}


def cut_power(name: str, seed: int, effort: int, sample: Path | None = None) -> int:
    start, workload = WORKLOADS[name]
    work = Recorded(start(), seed)
    try:
        workload(work)
        work.engine.choose = oldest_first
        work.scheduler.run(work.image.close())
        return work.judge_all(effort, sample)
    except BaseException as error:
        error.add_note(f"{name}, seed {seed}")
        raise


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", WORKLOADS)
def test_after_a_power_cut_the_image_is_consistent_and_has_what_was_flushed(name: str, tmp_path: Path) -> None:
    print(f"{name}: {cut_power(name, 1, 1, tmp_path / 'cut.qcow2')} states")


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("seed", range(2, 8))
def test_after_many_more_power_cuts_the_image_is_consistent(name: str, seed: int, tmp_path: Path) -> None:
    print(f"{name}: {cut_power(name, seed, 8, tmp_path / 'cut.qcow2')} states")
