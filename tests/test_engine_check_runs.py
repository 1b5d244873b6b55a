"""A check by runs of clusters: the same answers as counting every cluster, over tables, images and broken images."""

import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler
from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout, table_runs
from e2kdisk.qcow2.check import walk_with
from e2kdisk.qcow2.check_kernel import Kernel, PythonKernel, make_kernel
from e2kdisk.qcow2.check_runs import RunKernel
from e2kdisk.qcow2.check_walk import MakeKernel
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import read_header
from tests.bench.bench_engine import mapped_image
from tests.engine_lab import Mirror, new_image, put
from tests.qcow2_model import LabFile, open_image
from tests.test_engine_mutants import mutant

REFCOUNT_WIDTHS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(autouse=True)
def never_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_runs, "FEW_RUNS", 1 << 40)
    monkeypatch.setattr(table_runs, "MOST_RUNS", 1 << 40)


@st.composite
def tables(draw: st.DrawFn, cluster_bits: int, clusters: int, length: int) -> bytearray:
    """L2 entries in runs: consecutive, equal or strange, some of which cross the end of the file or of a window."""
    flags = st.sampled_from([0, layout.COPIED, layout.ZERO, layout.COPIED | layout.ZERO])
    strange = st.sampled_from([layout.COMPRESSED, 1 << 61, 1 << 56, 256, 1 << (cluster_bits - 1)])
    edge = st.sampled_from([0, 1, 1 << 10, 1 << 15, 1 << 16, 1 << 17, clusters - 5, clusters, 1 << 30])
    near = st.builds(lambda place, by: max(0, place + by), edge, st.integers(-4, 4))
    entries: list[int] = []
    while len(entries) < length:
        first, count = draw(near), draw(st.integers(1, 40))
        run = [first << cluster_bits | draw(flags)]
        kind = draw(st.sampled_from(["ramp", "ramp", "equal", "zero", "strange", "flag changes"]))
        if kind == "equal":
            run *= count
        elif kind == "zero":
            run = [draw(flags)] * count
        elif kind == "strange":
            run = [run[0] | draw(strange)] * (count % 3 + 1)
        else:
            run = [run[0] + (place << cluster_bits) for place in range(count)]
            if kind == "flag changes":
                run[count // 2] ^= layout.COPIED
        entries += [entry & (1 << 64) - 1 for entry in run]
    return bytearray(struct.pack(f">{length}Q", *entries[:length]))


@st.composite
def blocks(draw: st.DrawFn, bits: int) -> bytearray:
    """512 bytes of refcounts in runs."""
    raw = bytearray()
    while len(raw) < 512:
        unit = draw(st.sampled_from([0, 1, 1, 2, (1 << bits) - 1])).to_bytes(max(1, bits // 8), "big")
        if bits < 8:
            unit = draw(
                st.one_of(st.sampled_from([b"\0", b"\xff", b"\x11", b"\x55"]), st.binary(min_size=1, max_size=1))
            )
        raw += unit * draw(st.integers(1, 70))
    return raw[:512]


@pytest.mark.parametrize(
    "bits", [bits if bits in (1, 16) else pytest.param(bits, marks=pytest.mark.slow) for bits in REFCOUNT_WIDTHS]
)
@given(data=st.data())
def test_runs_of_tables_and_blocks_count_as_their_entries_do(bits: int, data: st.DataObject) -> None:
    cluster_bits = data.draw(st.sampled_from([9, 12, 14, 16, 21]))
    geometry = Geometry(cluster_bits, bits.bit_length() - 1)
    clusters = data.draw(st.sampled_from([1, 40, 1030, 33000]))
    kernels: tuple[Kernel, Kernel] = PythonKernel(geometry, clusters), RunKernel(geometry, clusters)
    drawn = data.draw(st.lists(tables(cluster_bits, clusters, 64), max_size=4))
    for raw in drawn:
        assert kernels[0].count_table(raw) == kernels[1].count_table(raw)
    for first, count in data.draw(st.lists(st.tuples(st.integers(0, clusters - 1), st.integers(0, 5)))):
        for kernel in kernels:
            kernel.reference(first, min(count, clusters - first))
    per_block = 4096 // bits
    geometry.refblock_entries = per_block  # blocks of 512 bytes, whatever the size of a cluster
    for index in data.draw(st.sets(st.integers(0, (clusters - 1) // per_block), max_size=4)):
        block = data.draw(blocks(bits))
        assert kernels[0].load_block(index * per_block, block) == kernels[1].load_block(index * per_block, block)
    assert list(kernels[0].differences()) == list(kernels[1].differences())
    for raw in drawn:
        assert list(kernels[0].wrong_flags(raw)) == list(kernels[1].wrong_flags(raw))
    for start, end in ((0, 50), (clusters - 1, clusters + 9)):
        assert kernels[0].references_of(start, end) == kernels[1].references_of(start, end)
    assert kernels[0].last_used() == kernels[1].last_used()
    for cluster in range(0, clusters, max(1, clusters // 50)):
        assert kernels[0].refcount(cluster) == kernels[1].refcount(cluster)


def found(data: bytes, kernel: MakeKernel) -> Any:
    """Everything that a walk tells, or the refusal."""
    file = LabFile(Scheduler(), data, read_only=True)
    try:
        header = file.scheduler.run(read_header(file))
        header.check_limits(file.name, file.size, refcounts=False)
        walk = file.scheduler.run(walk_with(kernel, file, header))
    except ImageError as error:
        return str(error)
    return vars(walk.result), walk.bad_entries, walk.bad_flags, walk.broken_refcounts, walk.blocks


@pytest.mark.parametrize("refcount_bits", REFCOUNT_WIDTHS)
@pytest.mark.parametrize("cluster_size", [512, 4096])
def test_random_images_are_judged_alike_before_and_after_damage(cluster_size: int, refcount_bits: int) -> None:
    for seed in range(4):
        dice = random.Random(seed)
        size = 200 * cluster_size + 512
        file = new_image(size, cluster_size=cluster_size, refcount_bits=refcount_bits)
        image = open_image(file)
        put(image, 0, b"in order" * (size // 16))
        mirror = Mirror(image, bytearray(size // 16 * 8) + bytearray(size - size // 16 * 8), dice)
        mirror.model[: size // 16 * 8] = b"in order" * (size // 16)
        mirror.change(seed * 6, ("write", "zeroes", "unmap", "discard", "compressed", "snapshot"))
        file.scheduler.run(image.close())
        data = bytearray(file.data)
        whole = found(bytes(data), make_kernel)
        assert not whole[0]["corruptions"] and not whole[0]["leaks"]
        assert found(bytes(data), RunKernel) == whole
        header = Header.parse("t", bytes(data[:cluster_size]))
        tables = struct.unpack_from(f">{header.l1_size}Q", data, header.l1_table_offset)
        places = [table & layout.OFFSET_MASK for table in tables if table & layout.OFFSET_MASK]
        places += [struct.unpack_from(">Q", data, header.refcount_table_offset)[0]]
        for _ in range(12):
            at = dice.choice(places) + 8 * dice.randrange(cluster_size // 8)
            old = struct.unpack_from(">Q", data, at)[0]
            copy = struct.unpack_from(">Q", data, at - at % cluster_size)[0]
            new = dice.choice([old ^ layout.COPIED, old ^ 1 << dice.randrange(64), old + cluster_size, copy, 0])
            struct.pack_into(">Q", data, at, new & (1 << 64) - 1)
            assert found(bytes(data), RunKernel) == found(bytes(data), make_kernel)


@pytest.mark.needs("qemu-utils")
def test_mutated_images_are_judged_alike() -> None:
    for seed in range(400):
        data = mutant(seed)
        assert found(data, RunKernel) == found(data, make_kernel), f"mutant {seed}"


@pytest.mark.parametrize("scattered", [False, True])
def test_only_scattered_images_load_numpy(tmp_path: Path, scattered: bool) -> None:
    pytest.importorskip("numpy")
    path = tmp_path / "disk.qcow2"
    mapped_image(path, 70_000, scattered=scattered)
    code = (
        "import sys; from e2kdisk.qcow2.check import check; found = check(sys.argv[1]);"
        "print(found.clean, found.allocated_clusters, found.fragmented_clusters > 60_000, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "70000", str(scattered), str(scattered)]
