"""Random requests, many in flight, against a model and against qemu-img reading the result."""

import random
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine, oldest_first
from e2kdisk.block.raw import RawNode
from e2kdisk.qcow2.create import create
from tests import oracles
from tests.qcow2_model import (
    BASE_TAG,
    OWN_TAG,
    LabFile,
    Model,
    Traffic,
    alternate,
    check_bytes,
    open_image,
    tags_of,
    write_pattern,
)

pytestmark = pytest.mark.needs("qemu-utils")


class Images(RuleBasedStateMachine):
    """One image: requests start, complete one by one in any order, and everything must fit the model."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(mkdtemp(prefix="e2kdisk-"))
        self.path = self.place / "disk.qcow2"
        self.scheduler = Scheduler()
        self.engine = SimulatedEngine(self.scheduler)
        self.dice = random.Random(0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "traffic"):
                self.settle()
                self.close()
                self.judge_by_qemu()
        finally:
            rmtree(self.place)

    # -- the image --------------------------------------------------------------------------------

    @initialize(
        cluster_bits=st.one_of(st.integers(9, 13), st.sampled_from([9, 16, 21])),
        ours=st.booleans(),
        version=st.sampled_from([2, 3, 3]),
        refcount_order=st.integers(0, 6),
        backing=st.sampled_from(["none", "raw", "qcow2"]),
        backing_part=st.sampled_from([0, 1, 3, 4, 6]),
        own=st.sampled_from(["empty", "some", "compressed"]),
        tiny_cache=st.booleans(),
        fine=st.booleans(),
        seed=st.integers(0, 1 << 30),
    )
    def begin(
        self,
        cluster_bits: int,
        ours: bool,
        version: int,
        refcount_order: int,
        backing: str,
        backing_part: int,
        own: str,
        tiny_cache: bool,
        fine: bool,
        seed: int,
    ) -> None:
        """Make an image of some kind. Sizes are not whole clusters; the backing file is shorter or longer."""
        self.dice.seed(seed)
        cluster = 1 << cluster_bits
        self.granule = max(64 if fine else 512, cluster // 32)
        clusters = 8 if cluster_bits > 16 else 60 if cluster_bits > 12 else 700
        self.total = clusters * cluster // self.granule - 5
        size = -(-self.total * self.granule // 512) * 512
        self.total = size // self.granule
        size = self.total * self.granule
        self.cluster = cluster
        self.version = version
        self.tiny_cache = tiny_cache
        refcount_bits = 16 if version == 2 else 1 << refcount_order
        tags = [0] * self.total
        self.below: tuple[str, bytes] | None = None
        options: dict[str, Any] = {}
        if backing != "none":
            base_size = max(512, size * backing_part // 4 & -512)
            base, raw = self.place / f"base.{backing}", self.place / "base.raw"
            base_tags = write_pattern(
                raw, BASE_TAG, [*alternate(base_size // self.granule, 7)], self.granule, base_size
            )
            if backing == "qcow2":
                oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", raw, base)
            self.below = backing, base.read_bytes()
            tags = (base_tags[: base_size // self.granule] + tags)[: self.total]
            options = {"backing": base.name, "backing_format": backing}
        if ours:
            names = {"backing_file": options["backing"], "backing_format": backing} if options else {}
            create(self.path, size, version=version, cluster_size=cluster, refcount_bits=refcount_bits, **names)
        else:
            extra = {"refcount_bits": refcount_bits} if version == 3 else {}
            oracles.create_image(self.path, size, version=version, cluster_size=cluster, **options, **extra)
        if own == "some":
            count = min(64, self.total // 2)
            data = self.place / "data.raw"
            write_pattern(data, OWN_TAG, [(0, count)], self.granule, count * self.granule)
            oracles.qemu_io(self.path, f"write -s {data} 0 {count * self.granule}")
            tags[:count] = [OWN_TAG] * count
        elif own == "compressed":
            per = cluster // self.granule
            for number in (0, 1, 2, 5):
                data = self.place / "data.raw"
                first = number * per
                whole = write_pattern(data, OWN_TAG, [(first, per)], self.granule, (number + 1) * cluster)
                data.write_bytes(data.read_bytes()[number * cluster :])
                oracles.qemu_io(self.path, f"write -c -s {data} {number * cluster} {cluster}")
                tags[first : first + per] = whole[first:]
        self.model = Model(tags)
        self.open()

    def open(self) -> None:
        file = LabFile(self.scheduler, self.path.read_bytes())
        below: Any = None
        if self.below is not None:
            kind, data = self.below
            base = LabFile(self.scheduler, data, read_only=True)
            below = RawNode(base) if kind == "raw" else open_image(base)
            base.engine = self.engine
        image = open_image(file, below, l2_cache_size=512 if self.tiny_cache else 1 << 20)
        if self.tiny_cache:
            image.refcounts.blocks.limit = 4
            image.mapping.slices.limit = 2
        file.engine = self.engine
        self.file = file
        self.traffic = Traffic(image, self.model, self.granule)

    def settle(self) -> None:
        """Everything in flight completes, in some order."""
        self.engine.choose = lambda pending: self.dice.randrange(len(pending))
        self.traffic.drain()
        found = self.traffic.read_all()
        self.model.settle(found)
        self.found = found

    def close(self) -> None:
        self.scheduler.run(self.traffic.image.close())
        check_bytes(self.file.data)
        self.path.write_bytes(self.file.data)

    def judge_by_qemu(self) -> None:
        oracles.assert_clean(self.path)
        raw = self.place / "result.raw"
        oracles.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.path, raw)
        assert tags_of(raw.read_bytes(), 0, self.granule)[: self.total] == self.found

    # -- what may happen --------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(["write", "write", "write", "read", "read", "zero", "unmap", "discard"]),
        where=st.integers(0, 1 << 20),
        length=st.one_of(st.integers(1, 8), st.integers(1, 300)),
        near=st.booleans(),
    )
    def request(self, kind: str, where: int, length: int, near: bool) -> None:
        first = where % (min(self.total, 100) if near else self.total)
        self.traffic.start(kind, first, min(length, self.total - first))

    @rule()
    def flush(self) -> None:
        self.traffic.start("flush")

    @rule(choices=st.lists(st.integers(0, 100), max_size=12))
    def complete(self, choices: list[int]) -> None:
        for choice in choices:
            if self.engine.pending:
                self.engine.complete(self.engine.pending[choice % len(self.engine.pending)])
                self.scheduler.poll()

    @rule()
    def drain(self) -> None:
        self.settle()

    @rule(size=st.integers(1, 400))
    def grow(self, size: int) -> None:
        self.settle()
        self.engine.choose = oldest_first
        step = max(1, 512 // self.granule)
        total = self.total + size * step
        total -= total * self.granule % 512 // self.granule
        self.scheduler.run(self.traffic.image.truncate(total * self.granule))
        self.total = total
        self.model.grow(total)

    @precondition(lambda self: not self.traffic.in_flight)
    @rule()
    def reopen(self) -> None:
        self.settle()
        self.close()
        self.open()


def explore(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Images,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_requests_in_flight_leave_what_the_model_and_qemu_img_expect() -> None:
    explore(25, 30)


@pytest.mark.slow
def test_many_more_requests_in_flight_leave_what_the_model_and_qemu_img_expect() -> None:
    explore(400, 50)
