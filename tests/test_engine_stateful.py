"""All operations of an image in any order, many in flight with a snapshot in their middle, beside a model."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.amend import AmendOptions, amend
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.preallocate import preallocate
from e2kdisk.qcow2.vm_state import read_vm_state, write_vm_state
from tests import oracles
from tests.engine_lab import KEY, Mirror, below, new_image, noise, qemu_reads
from tests.qcow2_model import LabFile, check_bytes, open_image, read_all

SEEDS = st.integers(0, 2**16)
SIZES = st.sampled_from([(512, 40 * 512), (512, 200 * 512), (1024, 64 * 1024 + 512), (4096, 300 * 1024)])


class Engine(RuleBasedStateMachine):
    """One image; between rules nothing is in flight."""

    image: Any = None
    killed = False
    """Since when clusters may have leaked: the frees that the last flush made possible were not written any more."""

    @initialize(
        size=SIZES,
        bits=st.sampled_from([1, 2, 8, 16, 64]),
        version=st.sampled_from([2, 3, 3]),
        lazy=st.booleans(),
        backed=st.booleans(),
        key=st.sampled_from([None, None, KEY]),
        seed=SEEDS,
    )
    def make(
        self, size: tuple[int, int], bits: int, version: int, lazy: bool, backed: bool, key: str | None, seed: int
    ) -> None:
        self.dice = random.Random(seed)
        self.key = key
        cluster, length = size
        options: dict[str, Any] = {"cluster_size": cluster, "version": version, "encrypted": key is not None}
        if version == 3:
            options |= {"refcount_bits": bits, "lazy_refcounts": lazy}
        self.backing = noise(self.dice, length // 2 & -512) if backed else None
        if backed:
            options |= {"backing_file": "base", "backing_format": "raw"}
        self.model = bytearray((self.backing or b"").ljust(length, b"\0"))
        self.held: dict[str, bytes] = {}
        self.open(new_image(length, **options).data)
        self.flushed = bytes(self.model)

    def open(self, data: bytes | bytearray) -> None:
        self.file = LabFile(Scheduler(), data)
        self.image = open_image(self.file, below(self.file.scheduler, self.backing), key=self.key)
        self.image.mapping.slices.limit = 2
        self.image.refcounts.blocks.limit = 4
        self.file.engine = SimulatedEngine(self.file.scheduler, lambda pending: self.dice.randrange(len(pending)))
        self.mirror = Mirror(self.image, self.model, self.dice)
        self.mirror.snapshots = self.held

    @rule(kind=st.sampled_from(["write", "zeroes", "unmap", "discard", "compressed"]), count=st.integers(1, 4))
    def change(self, kind: str, count: int) -> None:
        for _ in range(count):
            self.mirror.one(kind)

    @rule(kind=st.sampled_from(["snapshot", "apply", "delete", "grow", "shrink"]))
    def restructure(self, kind: str) -> None:
        if len(self.model) < 600 * 1024 or kind != "grow":
            self.mirror.one(kind)

    @rule(count=st.integers(2, 6), create=st.booleans(), steps=st.integers(0, 30))
    def many_in_flight(self, count: int, create: bool, steps: int) -> None:
        """Writes, and a snapshot that is taken among them: each sector of it is old or new."""
        before = bytes(self.model)
        errors: list[BaseException] = []

        def then(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                errors.append(error)

        scheduler, engine = self.file.scheduler, self.file.engine
        assert engine is not None
        sectors = len(self.model) // 512
        pieces = sorted(self.dice.sample(range(sectors), min(2 * count, sectors)))
        name = f"f{self.dice.randrange(10**9)}"
        for number, (first, end) in enumerate(zip(pieces[::2], pieces[1::2], strict=False)):
            if create and number == count // 2:
                scheduler.start(self.image.snapshots.create(name), then)
            data = noise(self.dice, min(end - first, 24) * 512)
            scheduler.start(self.image.write(first * 512, [memoryview(data)]), then)
            self.model[first * 512 : first * 512 + len(data)] = data
            for _ in range(steps if number % 2 else 0):
                if engine.pending:
                    engine.complete(self.dice.choice(engine.pending))
                    scheduler.poll()
        scheduler.drain()
        for error in errors:
            if not (isinstance(error, ImageError) and "does not fit in" in str(error)):
                raise error
        if create and not errors:
            self.image.scheduler.run(self.image.flush())
            found = self.snapshot_content(name)
            for at in range(0, len(found), 512):
                assert found[at : at + 512] in (before[at : at + 512], self.model[at : at + 512]), f"sector {at // 512}"
            self.held[name] = found

    @rule()
    def flush(self) -> None:
        self.mirror.one("flush")

    @rule(bits=st.sampled_from([8, 16, 32, 64]), lazy=st.booleans())
    def amend(self, bits: int, lazy: bool) -> None:
        if self.image.header.version == 3:
            self.file.scheduler.run(amend(self.image, AmendOptions(refcount_bits=bits, lazy_refcounts=lazy)))

    @rule(version=st.sampled_from([2, 3]))
    def amend_version(self, version: int) -> None:
        if version == 2 and self.image.geometry.refcount_bits != 16:
            return
        if version == 2 and any(len(content) != len(self.model) for content in self.held.values()):
            return
        self.file.scheduler.run(amend(self.image, AmendOptions(version=version)))

    @rule(place=SEEDS, mode=st.sampled_from(["metadata", "full"]))
    def preallocate(self, place: int, mode: str) -> None:
        """Where nothing is allocated and nothing is below."""
        if self.backing is None:
            offset = place % len(self.model) // 512 * 512
            status = self.file.scheduler.run(self.image.status(offset, 20000))
            cluster = self.image.geometry.cluster_size
            if not status.allocated and not offset % cluster and status.length >= cluster:
                self.file.scheduler.run(preallocate(self.image, offset, status.length, mode))

    @rule(length=st.integers(1, 20000))
    def vm_state(self, length: int) -> None:
        data = self.dice.randbytes(length)
        self.file.scheduler.run(write_vm_state(self.image, 100, [memoryview(data)]))
        found = bytearray(length)
        self.file.scheduler.run(read_vm_state(self.image, 100, [memoryview(found)]))
        assert found == data

    @rule()
    def reopen(self) -> None:
        self.file.scheduler.run(self.image.close())
        check_bytes(self.file.data, allow_leaks=self.killed)
        self.open(self.file.data)

    @rule()
    def kill(self) -> None:
        """Flushed, then the process is gone: the next one repairs what has to be."""
        self.mirror.one("flush")
        self.killed = True
        self.open(self.file.data)

    def snapshot_content(self, name: str) -> bytes:
        file = LabFile(self.file.scheduler, self.file.data, read_only=True)
        return bytes(read_all(open_image(file, below(self.file.scheduler, self.backing), key=self.key, snapshot=name)))

    @precondition(lambda self: self.image is not None)
    @invariant()
    def reads_as_the_model(self) -> None:
        self.mirror.compare()

    def teardown(self) -> None:
        if self.image is None:
            return
        assert self.file.engine is not None
        self.file.engine.choose = oldest_first
        self.file.scheduler.run(self.image.close())
        check_bytes(self.file.data, allow_leaks=self.killed)
        assert not Header.parse("t", bytes(self.file.data[:4096])).incompatible_features
        for name, content in self.held.items():
            assert self.snapshot_content(name) == content, f"snapshot {name} has changed"
        self.open(self.file.data)
        self.mirror.compare()
        if self.dice.random() < 0.1 and self.backing is None:
            with TemporaryDirectory() as place:
                path = Path(place) / "disk.qcow2"
                path.write_bytes(self.file.data)
                oracles.assert_clean(path, allow_leaks=True, key=self.key)
                assert qemu_reads(path, key=self.key) == self.model


@pytest.mark.needs("qemu-utils")
def test_all_operations_in_any_order_keep_what_the_guest_wrote() -> None:
    run_state_machine_as_test(Engine, settings=settings(max_examples=80, stateful_step_count=30))


def test_a_width_that_is_amended_after_a_kill_keeps_the_flags_right() -> None:
    """The kill leaves counts that are too high; a width that is amended counted anew and left COPIED cleared."""
    state = Engine()
    state.make(size=(512, 20480), bits=1, version=3, lazy=False, backed=False, key=None, seed=0)
    state.many_in_flight(count=2, create=False, steps=0)
    state.amend(bits=8, lazy=False)
    state.restructure(kind="snapshot")
    state.change(count=1, kind="write")
    state.kill()
    state.restructure(kind="apply")
    state.restructure(kind="delete")
    state.amend(bits=16, lazy=False)
    state.reopen()
    state.reads_as_the_model()
    state.teardown()


@pytest.mark.slow
@pytest.mark.needs("qemu-utils")
def test_all_operations_in_any_order_keep_what_the_guest_wrote_for_long() -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Engine, settings=settings(max_examples=300, stateful_step_count=60, suppress_health_check=quiet)
    )
