"""The power goes at any moment of any operation: leaks at most, flushed data is there, unflushed sectors old or new.

Workloads are recorded below the format; every content that a crash may have left (all prefixes of every flush epoch,
seeded subsets and torn writes) is checked, opened (which repairs what was left open) and read: all by a checker of the
tests' own, every hundredth by qemu-img too. A state is one content in one epoch, each counted once.

The long run, about three minutes on one core:

    pytest tests/test_engine_crash.py --tier=slow --crash-states 110000
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.recorder import RecorderNode
from e2kdisk.block.recording import CrashState
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.preallocate import preallocate
from tests import oracles
from tests.engine_lab import KEY, Mirror, below, new_image, noise, reopened
from tests.qcow2_model import Checker, LabFile, open_image, read_all

CLUSTER = 1024
SIZE = 64 * 1024 + 512
BASE = noise(random.Random(9), 50 * 1024)


@dataclass
class Version:
    """What the disk shows after an operation."""

    began: int
    """Flushes that had succeeded when the operation began: a crash in an earlier epoch cannot show it."""
    content: bytes


@dataclass
class Held:
    """A snapshot."""

    content: bytes
    sure_from: int | None = None
    """The epoch from which on it is there."""
    gone_from: int | None = None
    """The epoch from which on it may be gone."""


class Work:
    """A recorded workload."""

    def __init__(
        self, seed: int, *, size: int = SIZE, backing: bytes | None = None, key: str | None = None, **options: object
    ) -> None:
        self.dice = random.Random(seed)
        self.backing = backing
        self.key = key
        if backing is not None:
            options |= {"backing_file": "base", "backing_format": "raw"}
        file = new_image(size, **{"cluster_size": CLUSTER, "encrypted": key is not None, **options})
        self.scheduler = file.scheduler
        self.recorder = self.scheduler.run(RecorderNode.start(file))
        self.image = open_image(self.recorder, below(self.scheduler, backing), key=key)
        self.image.mapping.slices.limit = 2
        self.image.refcounts.blocks.limit = 4
        file.engine = SimulatedEngine(self.scheduler, lambda pending: self.dice.randrange(len(pending)))
        model = bytearray((backing or b"")[:size].ljust(size, b"\0"))
        self.mirror = Mirror(self.image, model, self.dice)
        self.versions = [Version(0, bytes(model))]
        self.flushed: list[tuple[int, int]] = [(0, 0)]
        """(epoch, version) of each flush of the guest: from this epoch on, no older version."""
        self.held: dict[str, Held] = {}
        self._sectors: dict[int, list[set[bytes]]] = {}

    @property
    def epoch(self) -> int:
        return self.recorder.epoch

    def do(self, *kinds: str) -> None:
        """Operations of the Mirror, one after the other."""
        for kind in kinds:
            began, before = self.epoch, set(self.mirror.snapshots)
            number = len(self.versions) - 1
            self.mirror.one(kind)
            after = set(self.mirror.snapshots)
            self.versions.append(Version(began, bytes(self.mirror.model)))
            if kind == "flush":
                self.flushed.append((self.epoch, number))
            for name in after - before:
                self.held[name] = Held(self.mirror.snapshots[name], sure_from=self.epoch)
            for name in before - after:
                self.held[name].gone_from = began

    def mixed(self, kinds: str, count: int) -> None:
        """Operations at random, a flush after about every fourth."""
        for _ in range(count):
            self.do(self.dice.choice(kinds.split()))
            if self.dice.random() < 0.25:
                self.do("flush")

    def burst(self, count: int) -> None:
        """Writes to different places, all in flight at once."""
        places = self.dice.sample(range(len(self.mirror.model) // 2048), count)
        began = self.epoch
        for place in places:
            start = place * 2048 + self.dice.randrange(3) * 512
            data = noise(self.dice, 512 * self.dice.choice([1, 1, 2]))
            data = data[: len(self.mirror.model) - start]
            self.mirror.model[start : start + len(data)] = data
            self.versions.append(Version(began, bytes(self.mirror.model)))
            self.scheduler.start(self.image.write(start, [memoryview(data)]))
        self.scheduler.drain()

    def amend(self, **changes: object) -> None:
        self.scheduler.run(amend(self.image, AmendOptions(**changes)))  # type: ignore[arg-type]

    def close(self) -> None:
        number = len(self.versions) - 1
        self.scheduler.run(self.image.close())
        self.flushed.append((self.epoch, number))

    # -- judge ------------------------------------------------------------------------------------

    def judge(self, state: CrashState, sample: Path | None = None) -> None:
        data = bytes(state.content)
        header = Header.parse("t", data[: 1 << 12])
        dirty = bool(header.incompatible_features & 1)
        if not dirty:
            self._consistent(data, leaks=True)
        image = reopened(data, self.backing, key=self.key)
        self._content(state.epoch, bytes(read_all(image)))
        names = [item.name for item in image.snapshots.all()]
        image.scheduler.run(image.close())
        self._consistent(image.file.data, leaks=not dirty)
        assert set(names) <= set(self.held)
        self._snapshots(state.epoch, bytes(image.file.data), names)
        if sample is not None:
            sample.write_bytes(image.file.data)
            if self.backing is not None:
                sample.with_name("base").write_bytes(self.backing)
            # In version 2 qemu-img calls a flag that may be missing a corruption.
            if header.version == 3:
                oracles.assert_clean(sample, allow_leaks=True, key=self.key)

    def _consistent(self, data: bytes | bytearray, *, leaks: bool) -> None:
        checker = Checker(data)
        found = checker.check()
        # In version 2 there is no mark for "flags may be missing", which is harmless: a write copies once more.
        harmless = "COPIED is 0, refcount 1" if checker.version == 2 else "\0"
        wrong = [item for item in found.corruptions if harmless not in item]
        assert not wrong, wrong[:5]
        assert leaks or not found.leaks, "leaks after a repair"

    def _content(self, epoch: int, found: bytes) -> None:
        may = self._possible(epoch)
        for number, offset in enumerate(range(0, len(found), 512)):
            part = found[offset : offset + 512]
            assert part in may[number], f"sector {number}: {part[:16].hex()} is in none of {len(may[number])} versions"

    def _possible(self, epoch: int) -> list[set[bytes]]:
        """For each sector what it may hold in an epoch: what was flushed last, and everything that began since."""
        if epoch not in self._sectors:
            oldest = max(number for since, number in self.flushed if since <= epoch)
            chosen = [item.content for item in self.versions[oldest:] if item.began <= epoch]
            most = max(map(len, chosen))
            self._sectors = {
                epoch: [
                    {content[offset : offset + 512].ljust(512, b"\0") for content in chosen}
                    for offset in range(0, most, 512)
                ]
            }
        return self._sectors[epoch]

    def _snapshots(self, epoch: int, data: bytes, names: list[str]) -> None:
        for name, held in self.held.items():
            if name in names:
                backing = below(self.scheduler, self.backing)
                view = open_image(LabFile(self.scheduler, data, read_only=True), backing, snapshot=name, key=self.key)
                assert bytes(read_all(view)) == held.content, f"snapshot {name} has changed"
            elif held.sure_from is not None and held.sure_from <= epoch:
                assert held.gone_from is not None and held.gone_from <= epoch, f"snapshot {name} is lost"

    def judge_all(self, bound: int, sample: Path, seen: set[tuple[int, bytes]]) -> None:
        """Judge the states that are not in `seen`, which they join."""
        for state in self.recorder.recording().snapshots(bound=bound, seed=3):
            mark = (state.epoch, sha256(state.content).digest())
            if mark in seen:
                continue
            seen.add(mark)
            try:
                self.judge(state, sample if len(seen) % 100 == 0 else None)
            except BaseException as error:
                error.add_note(f"crash {state}")
                raise


def allocation(work: Work) -> None:
    for _ in range(6):
        work.burst(6)
        work.do("write", "flush")


def discard(work: Work) -> None:
    work.burst(20)
    work.mixed("write write discard unmap zeroes", 30)


def snapshots(work: Work) -> None:
    work.burst(12)
    work.mixed("write write snapshot snapshot apply delete discard", 26)


def resize(work: Work) -> None:
    work.burst(8)
    work.mixed("write write grow shrink", 20)


def resize_with_snapshots(work: Work) -> None:
    work.burst(8)
    work.mixed("write write grow shrink snapshot apply delete", 24)


def amend_counts(work: Work) -> None:
    work.burst(6)
    work.do("snapshot", "write", "flush")
    for bits in (64, 8, 16):
        work.amend(refcount_bits=bits)
        work.do("write", "compressed", "flush")


def amend_version(work: Work) -> None:
    work.burst(6)
    work.do("zeroes", "flush")
    for version, lazy in ((2, None), (3, True), (3, False), (2, None)):
        work.amend(version=version, lazy_refcounts=lazy)
        work.do("write", "write", "flush", "write")


def amend_version_with_snapshots(work: Work) -> None:
    work.burst(6)
    work.do("write", "snapshot", "zeroes", "zeroes", "snapshot", "zeroes", "unmap", "write", "flush")
    work.amend(version=2)
    work.do("write", "snapshot", "apply", "delete", "write", "flush")
    work.amend(version=3)
    work.do("zeroes", "write", "snapshot", "zeroes", "delete", "flush", "write")
    work.amend(version=2)


def compressed(work: Work) -> None:
    work.mixed("compressed compressed write discard", 30)


def compressed_with_snapshots(work: Work) -> None:
    work.mixed("compressed compressed write discard snapshot apply delete", 24)


def preallocated(work: Work) -> None:
    work.do("write", "flush")
    work.scheduler.run(preallocate(work.image, 0, 40 * 1024, "metadata"))
    work.scheduler.run(preallocate(work.image, 40 * 1024, 9 * 1024, "full"))
    work.mixed("write zeroes", 10)


def large(work: Work) -> None:
    """The refcount table grows and blocks are made."""
    for _ in range(2):
        work.burst(20)
    data = noise(work.dice, 500 * 1024)
    work.mirror.model[: len(data)] = data
    work.versions.append(Version(work.epoch, bytes(work.mirror.model)))
    work.scheduler.run(work.image.write(0, [memoryview(data)]))
    work.do("flush", "write", "discard", "write", "flush")


WORKLOADS: dict[str, tuple[Callable[[Work], None], dict[str, object]]] = {
    "allocation": (allocation, {}),
    "allocation, lazy": (allocation, {"lazy_refcounts": True}),
    "copy on write": (allocation, {"backing": BASE}),
    "discard": (discard, {}),
    "discard, lazy": (discard, {"lazy_refcounts": True}),
    "discard over a backing file": (discard, {"backing": BASE}),
    "snapshots": (snapshots, {}),
    "snapshots, lazy": (snapshots, {"lazy_refcounts": True}),
    "snapshots, version 2": (snapshots, {"version": 2}),
    "snapshots, small clusters": (snapshots, {"cluster_size": 512, "refcount_bits": 8}),
    "resize": (resize, {}),
    "resize, version 2": (resize, {"version": 2}),
    "resize over a longer backing file": (resize, {"backing": BASE, "size": 30 * 1024}),
    "resize with snapshots": (resize_with_snapshots, {"cluster_size": 512}),
    "amend refcount_bits": (amend_counts, {}),
    "amend the version": (amend_version, {}),
    "amend the version with snapshots": (amend_version_with_snapshots, {}),
    "amend the version with snapshots, backed": (amend_version_with_snapshots, {"backing": BASE}),
    "AES": (allocation, {"key": KEY}),
    "AES over a backing file": (discard, {"key": KEY, "backing": BASE}),
    "AES, snapshots": (snapshots, {"key": KEY}),
    "AES, resize with snapshots": (resize_with_snapshots, {"key": KEY, "cluster_size": 512}),
    "compressed": (compressed, {}),
    "compressed, snapshots": (compressed_with_snapshots, {"cluster_size": 512}),
    "compressed, lazy": (compressed, {"lazy_refcounts": True}),
    "preallocation": (preallocated, {}),
    "refcounts grow": (large, {"cluster_size": 512, "refcount_bits": 64, "size": 600 * 1024}),
}


def crash(name: str, seed: int, bound: int, place: Path, seen: set[tuple[int, bytes]]) -> None:
    workload, options = WORKLOADS[name]
    try:
        work = Work(seed, **options)  # type: ignore[arg-type]
        try:
            workload(work)
        except ImageError as error:
            raise AssertionError(f"the workload itself fails: {error}") from error
        work.close()
        work.judge_all(bound, place / "crash.qcow2", seen)
    except BaseException as error:
        error.add_note(f"workload {name}, seed {seed}, bound {bound}")
        raise


Counted = Callable[[str, int], None]


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_crash_leaves_leaks_at_most_and_all_that_was_flushed(name: str, tmp_path: Path, counted: Counted) -> None:
    seen: set[tuple[int, bytes]] = set()
    crash(name, 1, 10, tmp_path, seen)
    counted("crash states", len(seen))


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("name", WORKLOADS)
def test_many_more_crashes_leave_leaks_at_most(
    name: str, tmp_path: Path, counted: Counted, request: pytest.FixtureRequest
) -> None:
    """Each workload has its share of --crash-states, and goes on with other seeds until it is reached."""
    share = -(-request.config.getoption("crash_states") // len(WORKLOADS))
    seen: set[tuple[int, bytes]] = set()
    total, seed = 0, 2
    while total < share:
        seen.clear()  # another seed, another recording: its contents are others
        crash(name, seed, 200, tmp_path, seen)
        total += len(seen)
        seed += 1
    counted("crash states", total)
