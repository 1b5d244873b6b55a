"""Persistent bitmaps under random use, power cuts, kill -9 and broken bytes: the right bits, or the mark "in use"."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from e2kdisk.aio import Scheduler
from e2kdisk.errors import ImageError, UsageError
from e2kdisk.qcow2.check import check_file
from tests import oracles
from tests.bitmap_lab import AUTO, IN_USE, extension_place, stored, stored_in
from tests.engine_lab import new_image
from tests.img_server import Server
from tests.qcow2_model import LabFile, Logged, apply, open_image, read_all

NAMES = ("a", "b", "c")


class Bits:
    """What a bitmap should be."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.enabled = True
        self.dirty: set[int] = set()

    def mark(self, offset: int, length: int) -> None:
        if length > 0:
            self.dirty |= set(range(offset >> self.order, (offset + length - 1 >> self.order) + 1))


def ranges_of(bits: Bits, size: int) -> set[int]:
    return {
        sector
        for number in bits.dirty
        for sector in range(number << bits.order >> 9, min(number + 1 << bits.order, size) >> 9)
    }


def sectors(ranges: list[tuple[int, int]]) -> set[int]:
    return {sector for offset, length in ranges for sector in range(offset >> 9, offset + length >> 9)}


class Bitmapped(RuleBasedStateMachine):
    """An image with bitmaps, opened, changed and closed; a set of granules for each bitmap beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(mkdtemp(prefix="e2kdisk-"))
        self.path = self.place / "disk.qcow2"

    @initialize(
        cluster_bits=st.sampled_from([9, 12, 16]),
        size=st.integers(1, 500),
        lazy=st.booleans(),
        refcount_bits=st.sampled_from([1, 16, 64]),
    )
    def begin(self, cluster_bits: int, size: int, lazy: bool, refcount_bits: int) -> None:
        self.size = size * 512
        self.file = new_image(
            self.size, cluster_size=1 << cluster_bits, lazy_refcounts=lazy, refcount_bits=refcount_bits
        )
        self.file.do_discard = self._punch  # type: ignore[method-assign]
        self.model: dict[str, Bits] = {}
        self.image = open_image(self.file)

    def _punch(self, offset: int, length: int) -> None:
        if offset < len(self.file.data):
            LabFile.do_discard(self.file, offset, length)

    def run(self, coroutine: Any) -> Any:
        return self.file.scheduler.run(coroutine)

    @rule(
        kind=st.sampled_from(["write", "zero", "unmap", "discard", "compressed"]),
        where=st.integers(0, 1 << 20),
        length=st.one_of(st.integers(1, 2000), st.integers(1, 1 << 20)),
    )
    def change(self, kind: str, where: int, length: int) -> None:
        offset = where % self.size
        length = min(length, self.size - offset)
        image = self.image
        if kind == "write":
            self.run(image.write(offset, [memoryview(bytes(length))]))
        elif kind == "discard":
            self.run(image.discard(offset, length))
        elif kind == "compressed":
            cluster = image.geometry.cluster_size
            offset -= offset % cluster
            length = min(cluster, self.size - offset)
            self.run(image.write_compressed(offset, [memoryview(bytes(length))]))
        else:
            self.run(image.write_zeroes(offset, length, unmap=kind == "unmap"))
        for bits in self.model.values():
            if bits.enabled:
                bits.mark(offset, length)

    @rule(name=st.sampled_from(NAMES), order=st.integers(9, 18))
    def add(self, name: str, order: int) -> None:
        if name not in self.model:
            self.image.bitmaps.add(name, 1 << order)
            self.model[name] = Bits(order)

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if self.model.pop(name, None) is not None:
            self.run(self.image.bitmaps.remove(name))

    @rule(name=st.sampled_from(NAMES))
    def clear(self, name: str) -> None:
        if name in self.model:
            self.image.bitmaps.clear(name)
            self.model[name].dirty.clear()

    @rule(name=st.sampled_from(NAMES), enabled=st.booleans())
    def enable(self, name: str, enabled: bool) -> None:
        if name in self.model:
            self.image.bitmaps.enable(name, enabled=enabled)
            self.model[name].enabled = enabled

    @rule(name=st.sampled_from(NAMES), source=st.sampled_from(NAMES))
    def merge(self, name: str, source: str) -> None:
        if name in self.model and source in self.model:
            self.image.bitmaps.merge(name, self.image.bitmaps.find(source))
            other = self.model[source]
            for number in sorted(other.dirty):
                start, end = number << other.order, min(number + 1 << other.order, self.size)
                self.model[name].mark(start, end - start)

    @rule(size=st.integers(1, 700))
    def resize(self, size: int) -> None:
        self.size = size * 512
        self.run(self.image.truncate(self.size))
        for bits in self.model.values():
            bits.dirty = {number for number in bits.dirty if number << bits.order < self.size}

    @rule()
    def snapshot(self) -> None:
        snapshots = self.image.snapshots
        if snapshots.all():
            self.run(snapshots.delete(snapshots.all()[0].id))
        elif self.image.geometry.refcount_bits > 1:
            self.run(snapshots.create("s"))

    @rule()
    def reopen(self) -> None:
        self.close()
        self.image = open_image(self.file)
        assert all(item.flags & IN_USE for item in stored_in(bytes(self.file.data)).values())
        for item in self.image.bitmaps:
            assert sectors(list(item.bits.ranges())) == ranges_of(self.model[item.name], self.size), item.name

    def close(self) -> None:
        self.run(self.image.close())
        found = stored_in(bytes(self.file.data))
        assert list(found) == list(self.model)
        for name, bits in self.model.items():
            assert found[name].flags == (AUTO if bits.enabled else 0)
            assert sectors(found[name].dirty) == ranges_of(bits, self.size), name
        assert self.run(check_file(self.file)).clean

    def teardown(self) -> None:
        try:
            if hasattr(self, "image"):
                self.close()
                self.path.write_bytes(self.file.data)
                oracles.assert_clean(self.path)
        finally:
            rmtree(self.place)


def explore(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Bitmapped,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.needs("qemu-utils")
def test_bitmaps_agree_with_sets_of_granules_whatever_is_done() -> None:
    explore(8, 20)


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
def test_bitmaps_agree_with_sets_of_granules_whatever_is_done_for_longer() -> None:
    explore(60, 40)


# -- power cuts --------------------------------------------------------------------------------------

State = tuple[dict[str, set[int]], bytes]
"""The dirty sectors of each bitmap and the contents of the disk."""


class Session:
    """An image that is opened, changed and closed several times, with everything that reaches the file logged."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.dice = random.Random(seed)
        made = new_image(48 * 1024, **options)
        image = open_image(made)
        image.bitmaps.add("fine", 512)
        image.bitmaps.add("coarse", 8192)
        made.scheduler.run(image.close())
        self.start = bytes(made.data)
        self.file = LabFile(made.scheduler, self.start, logging=True)
        self.closed: list[State] = [self.state()]

    def state(self) -> State:
        data = bytes(self.file.data)
        image = open_image(LabFile(Scheduler(), data, read_only=True))
        return {name: sectors(item.dirty) for name, item in stored_in(data).items()}, bytes(read_all(image))

    def live(self, requests: int) -> None:
        """Open, write at random, do something with the bitmaps, close."""
        dice, run = self.dice, self.file.scheduler.run
        image = open_image(self.file)
        for _ in range(requests):
            offset = dice.randrange(image.size) & -512
            length = min(dice.choice([512, 2048, 10240]), image.size - offset)
            run(image.write(offset, [memoryview(dice.randbytes(length))]))
            action = dice.random()
            if action < 0.1:
                run(image.flush())
            elif action < 0.2:
                image.bitmaps.clear(dice.choice(["fine", "coarse"]))
            elif action < 0.25:
                image.bitmaps.merge("coarse", image.bitmaps.find("fine"))
            elif action < 0.3 and len(image.bitmaps) < 4:
                image.bitmaps.add(f"new{len(self.closed)}{offset}", 1024)
            elif action < 0.35 and len(image.bitmaps) > 2:
                run(image.bitmaps.remove(list(image.bitmaps)[-1].name))
        run(image.close())
        self.closed.append(self.state())

    def cuts(self) -> Iterator[bytes]:
        """The file after a power cut: what was flushed, and of the rest a prefix, or all but one, or a random half."""
        log: list[Logged] = self.file.log or []
        durable, covered = bytearray(self.start), 0
        for position in range(len(log) + 1):
            if position and log[position - 1].kind == "flush":
                for item in log[covered : log[position - 1].covers]:
                    apply(durable, item)
                covered = max(covered, log[position - 1].covers)
            loose = [item for item in log[covered:position] if item.kind != "flush"]
            choices = [loose]
            if loose and (position == len(log) or log[position].kind == "flush"):
                choices += [[item for item in loose if item is not lost] for lost in loose[-6:]]
                choices.append([item for item in loose if self.dice.random() < 0.5])
            for chosen in choices:
                data = bytearray(durable)
                for item in chosen:
                    apply(data, item, cut=512 if self.dice.random() < 0.1 and len(item.data) > 512 else None)
                yield bytes(data)

    def judge(self, data: bytes) -> bool:
        """A bitmap without the mark is one that was closed, on the disk as it was then; whether there was one."""
        found = stored_in(data)
        trusted = {name: sectors(item.dirty) for name, item in found.items() if not item.flags & IN_USE}
        scheduler = Scheduler()
        repaired = LabFile(scheduler, data)
        image = open_image(repaired)  # which repairs an image with lazy refcounts
        contents = bytes(read_all(image))
        scheduler.run(image.close())
        assert not scheduler.run(check_file(repaired)).corruptions
        for name, dirty in trusted.items():
            assert any(bitmaps.get(name) == dirty and then == contents for bitmaps, then in self.closed), (
                f"bitmap {name} looks clean and is not what it was at any close"
            )
        return bool(trusted)


OPTIONS: list[dict[str, Any]] = [
    {"cluster_size": 512},
    {"cluster_size": 4096, "lazy_refcounts": True},
    {"cluster_size": 512, "refcount_bits": 64},
]


def cut_everywhere(seed: int, sessions: int, path: Path) -> None:
    work = Session(seed, **OPTIONS[seed % 3])
    for _ in range(sessions):
        work.live(12)
    states = []
    for number, data in enumerate(work.cuts()):
        states.append(work.judge(data))
        if number % 20 == 0:
            path.write_bytes(data)
            if "lazy_refcounts" in OPTIONS[seed % 3]:
                oracles.qemu_img("check", "-q", "-r", "all", path)  # counts that may be old are what they are for
            oracles.assert_clean(path, allow_leaks=True)
    assert True in states
    assert False in states
    print(f"seed {seed}: {len(states)} states, {sum(states)} with bitmaps that may be trusted")


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(3))
def test_after_a_power_cut_a_bitmap_is_right_or_marked_in_use(seed: int, tmp_path: Path) -> None:
    cut_everywhere(seed, 2, tmp_path / "cut.qcow2")


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(3, 15))
def test_after_many_power_cuts_bitmaps_are_right_or_marked_in_use(seed: int, tmp_path: Path) -> None:
    cut_everywhere(seed, 4, tmp_path / "cut.qcow2")


# -- kill -9 -----------------------------------------------------------------------------------------

WRITER = """
import sys
from e2kdisk.block import open_disk
disk = open_disk(sys.argv[1], format="qcow2")
for number in range(1 << 30):
    disk.pwrite(number * 512 % (1 << 20), b"x" * 512)
    if number == 50:
        disk.sync()
        print("go", flush=True)
"""


@pytest.mark.needs("qemu-utils")
def test_kill_9_leaves_bitmaps_in_use_and_a_sound_image(tmp_path: Path) -> None:
    path = oracles.create_image(tmp_path / "disk.qcow2", "1M")
    oracles.qemu_img("bitmap", "--add", path, "b")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGKILL)
    assert stored(path)["b"].flags == AUTO | IN_USE
    assert "in-use" in oracles.qemu_img("info", path)
    oracles.assert_clean(path, allow_leaks=True)
    oracles.qemu_img("bitmap", "--remove", path, "b")
    oracles.assert_clean(path, allow_leaks=True)


# -- broken bytes ------------------------------------------------------------------------------------


@cache
def sound(seed: int) -> bytes:
    file = new_image(200 * 512, cluster_size=[512, 4096][seed % 2])
    image = open_image(file)
    for name, granularity in (("one", 512), ("two", 4096), ("three", 65536)):
        image.bitmaps.add(name, granularity)
    file.scheduler.run(image.write(3000, [memoryview(bytes(9000))]))
    image.bitmaps.clear("two")
    file.scheduler.run(image.close())
    data = bytearray(file.data)
    if seed % 3 == 0:
        for item in stored_in(bytes(data)).values():
            data[item.place + 15] |= IN_USE
    return bytes(data)


def broken(seed: int) -> bytes:
    """An image with one to three fields of its bitmaps changed."""
    dice = random.Random(seed)
    data = bytearray(sound(seed % 6))
    place = extension_place(bytes(data))
    assert place is not None
    found = list(stored_in(bytes(data)).values())
    fields = [(place, 4), (place + 4, 4), (place + 8, 8), (place + 16, 8), (95, 1)]
    for item in found:
        at = item.place
        fields += [(at, 8), (at + 8, 4), (at + 12, 4), (at + 16, 1), (at + 17, 1), (at + 18, 2), (at + 20, 4)]
        fields += [(at + 24, 1), (item.table, 8), (item.table, 8)]
    for _ in range(dice.choice([1, 1, 2, 3])):
        at, width = dice.choice(fields)
        old = int.from_bytes(data[at : at + width], "big")
        values = [0, 1, 2, 9, 255, old + 1, old - 1, old ^ 1 << dice.randrange(8 * width), dice.getrandbits(8 * width)]
        values += [dice.randrange(0, len(data) + 4096, 512), (1 << 8 * width) - 1]
        data[at : at + width] = (dice.choice(values) & (1 << 8 * width) - 1).to_bytes(width, "big")
    return bytes(data)


def use(data: bytes, seed: int) -> str | None:
    """Open and change everything; None, or why the image could not be opened."""
    try:
        reader = open_image(LabFile(Scheduler(), data, read_only=True))
    except (ImageError, UsageError) as error:
        return str(error)
    size = reader.size
    file = LabFile(Scheduler(), data)
    file.do_discard = lambda offset, length: None  # type: ignore[method-assign]
    run = file.scheduler.run
    dice = random.Random(seed)
    try:
        image = open_image(file)
        run(image.write(dice.randrange(size) & -512, [memoryview(bytes(512))]))
        names = [item.name for item in image.bitmaps]
        for name in names:
            action = dice.randrange(4)
            if action == 0:
                run(image.bitmaps.remove(name))
            elif action == 1:
                image.bitmaps.clear(name)
            elif action == 2:
                image.bitmaps.merge(name, image.bitmaps.find(dice.choice(names)))
        run(image.close())
        open_image(LabFile(Scheduler(), bytes(file.data), read_only=True))
    except ImageError:
        pass  # two structures in one place, say: found before anything was written there
    return None


def torment(first: int, count: int, path: Path, every: int) -> None:
    """Everything with broken images; of every so many, `info` says what qemu-img says, in nearly all word for word."""
    refused = compared = other_words = 0
    with closing(Server()) as server:
        for seed in range(first, first + count):
            data = broken(seed)
            try:
                why = use(data, seed)
                assert why is None or "\n" not in why
                refused += why is not None
                if seed % every == 0:
                    path.write_bytes(data)
                    done = oracles.run("qemu-img", "info", path.name, cwd=path.parent, check=False)
                    ours = server.run(["info", path.name], path.parent)
                    assert ours[:2] == (done.returncode, done.stdout), (ours, done)
                    assert (done.returncode == 0) == (why is None), why
                    other_words += ours[2] != done.stderr
                    compared += 1
            except BaseException as error:
                error.add_note(f"broken image {seed}")
                raise
    assert 0 < refused < count
    assert other_words <= compared // 50  # of two mistakes, the other one may be told
    print(f"{count} broken images, {refused} refused, {compared} compared with qemu-img")


@pytest.mark.needs("qemu-utils")
def test_broken_bitmaps_meet_one_line_of_error_where_qemu_has_one(tmp_path: Path) -> None:
    torment(0, 400, tmp_path / "broken.qcow2", 8)


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
def test_many_broken_bitmaps_meet_one_line_of_error_where_qemu_has_one(tmp_path: Path) -> None:
    torment(400, 2000, tmp_path / "broken.qcow2", 8)
