"""Direct I/O: any alignment works, and overlapping unaligned writes in flight lose nothing."""

import itertools
import mmap
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler, ThreadEngine
from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block import FileNode, MemoryNode
from e2kdisk.block.direct import DirectFileNode, RangeLock
from e2kdisk.errors import ImageError

SIZE = 20_000


def open_direct(path, engine, **options):
    try:
        return engine.scheduler.run(FileNode.open(str(path), engine, cache="none", **options))
    except ImageError as error:
        if "no O_DIRECT" not in str(error):
            raise
        pytest.skip("the directory for temporary files has no O_DIRECT")


@pytest.fixture
def direct_file(tmp_path):
    engine = ThreadEngine(Scheduler())
    path = tmp_path / "direct"
    path.write_bytes(bytes(SIZE))
    node = open_direct(path, engine)
    yield node
    engine.scheduler.run(node.close())
    engine.close()


requests = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "write", "zeroes", "unmap", "truncate"]),
        st.one_of(st.integers(0, SIZE), st.sampled_from([0, 512, 4096, 8192])),
        st.one_of(st.integers(1, 9000), st.sampled_from([512, 4096, 8192])),
        st.integers(0, 255),
        st.integers(1, 4),
    ),
    max_size=12,
)


@pytest.mark.parametrize("alignment", [512, 4096])
def test_any_alignment_agrees_with_bytes_in_memory(direct_file, alignment):
    node, run = direct_file, direct_file.scheduler.run
    if alignment < node.alignment:
        pytest.skip(f"this disk wants {node.alignment}")
    node.alignment = alignment

    @given(requests)
    def agrees(steps):
        run(node.truncate(0))
        run(node.truncate(SIZE))
        model = MemoryNode(node.scheduler, SIZE)
        for what, offset, length, fill, parts in steps:
            if what == "truncate":
                run(node.truncate(offset))
                run(model.truncate(offset))
                continue
            if what in ("zeroes", "unmap"):
                run(node.write_zeroes(offset, length, unmap=what == "unmap"))
                run(model.write_zeroes(offset, length))
                continue
            data = random.Random(fill).randbytes(length)
            memory = memoryview(mmap.mmap(-1, length + parts))[:length] if fill % 2 else memoryview(bytearray(length))
            step = -(-length // parts)
            iov = [memory[start : start + step] for start in range(0, length, step)]
            if what == "write":
                memory[:] = data
                run(node.write(offset, iov))
                run(model.write(offset, iov))
            else:
                expected = bytearray(length)
                run(node.read(offset, iov))
                run(model.read(offset, [memoryview(expected)]))
                assert memory == expected
        assert node.size == model.size
        everything = bytearray(node.size)
        run(node.read(0, [memoryview(everything)]))
        assert everything == model.data

    agrees()


@pytest.mark.parametrize("seed", range(20))
def test_overlapping_unaligned_writes_in_flight_lose_no_update(tmp_path, seed):
    rng = random.Random(seed)
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler, lambda pending: rng.randrange(len(pending)))
    path = tmp_path / "direct"
    path.write_bytes(bytes(8192))
    node = open_direct(path, engine)
    cuts = sorted({0, 8192, *rng.sample(range(8192), 15)})
    pieces = list(itertools.pairwise(cuts))
    rng.shuffle(pieces)
    for number, (start, end) in enumerate(pieces):
        scheduler.start(node.write(start, [memoryview(bytes([number + 1]) * (end - start))]))
    scheduler.drain()
    scheduler.run(node.close())
    data = path.read_bytes()
    for number, (start, end) in enumerate(pieces):
        assert data[start:end] == bytes([number + 1]) * (end - start)


def test_a_file_that_ends_inside_a_block_keeps_its_exact_length(direct_file, tmp_path):
    run = direct_file.scheduler.run
    assert direct_file.size == SIZE
    run(direct_file.write(SIZE, [memoryview(b"ten bytes.")]))
    assert direct_file.size == SIZE + 10
    run(direct_file.close())
    assert (tmp_path / "direct").read_bytes() == bytes(SIZE) + b"ten bytes."


def test_a_close_meanwhile_does_not_cut_what_writes_in_flight_add(tmp_path):
    scheduler = Scheduler()
    path = tmp_path / "direct"
    path.write_bytes(bytes(100))
    node = open_direct(path, SimulatedEngine(scheduler))
    scheduler.run(node.write(100, [memoryview(b"one")]))
    scheduler.start(node.write(5_000, [memoryview(b"two")]))
    scheduler.run(node.close())
    scheduler.drain()
    assert path.read_bytes() == bytes(100) + b"one" + bytes(4_897) + b"two"


def test_aligned_writes_need_no_bounce_and_wait_for_nobody(direct_file):
    assert isinstance(direct_file, DirectFileNode)
    memory = memoryview(mmap.mmap(-1, 8192))
    memory[:] = os.urandom(8192)
    run = direct_file.scheduler.run

    async def no_read(*_args):
        raise AssertionError("an aligned write reads nothing")

    direct_file._read_whole = no_read
    run(direct_file.write(4096, [memory[:4096], memory[4096:]]))
    back = memoryview(mmap.mmap(-1, 8192))
    run(direct_file.read(4096, [back]))
    assert back == memory


def test_a_file_system_without_o_direct_is_named(tmp_path):
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no tmpfs here")
    path = f"/dev/shm/e2kdisk-test-{os.getpid()}"
    engine = ThreadEngine(Scheduler())
    with open(path, "wb") as file:
        file.write(bytes(4096))
    message = ""
    try:
        node = engine.scheduler.run(FileNode.open(path, engine, cache="none"))
        engine.scheduler.run(node.close())
    except ImageError as error:
        message = str(error)
    finally:
        os.unlink(path)
    hint = "this file system has no O_DIRECT; use cache=writeback instead of none or directsync"
    assert message in ("", f"{path}: cannot be opened: {hint}")  # tmpfs since Linux 6.6 accepts the flag


def test_range_locks_keep_out_what_overlaps_in_order_of_arrival():
    scheduler = Scheduler(VirtualClock())
    ranges, log = RangeLock(scheduler), []

    async def user(name, start, end, exclusive, until):
        async with ranges.hold(start, end, exclusive=exclusive):
            log.append(name)
            await scheduler.sleep_until(until)
            log.append(f"/{name}")

    now = scheduler.clock.now_ns()
    ms = 1_000_000
    scheduler.start(user("shared 0-10", 0, 10, False, now + 30 * ms))
    scheduler.start(user("shared 5-15", 5, 15, False, now + 20 * ms))
    scheduler.start(user("alone 9-12", 9, 12, True, now + 40 * ms))
    scheduler.start(user("alone 12-20", 12, 20, True, now + 50 * ms))
    scheduler.start(user("alone 20-30", 20, 30, True, now + 10 * ms))
    scheduler.drain()
    assert log == [
        "shared 0-10",
        "shared 5-15",
        "alone 20-30",
        "/alone 20-30",
        "/shared 5-15",
        "alone 12-20",
        "/shared 0-10",
        "alone 9-12",
        "/alone 9-12",
        "/alone 12-20",
    ]
