"""The I/O engines: the same bytes from each, and an order of completion that can be chosen."""

import os
import random

import pytest

from e2kdisk.aio import AutoEngine, Scheduler, ThreadEngine, VirtualClock
from e2kdisk.aio.engine import IOV_MAX, iov_length, iov_slice
from e2kdisk.aio.simulated import SimulatedEngine

ENGINES = [AutoEngine, ThreadEngine, SimulatedEngine]
each_engine = pytest.mark.parametrize("kind", ENGINES)


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@each_engine
def test_random_requests_leave_the_same_bytes_as_a_model(kind, fd):
    scheduler = Scheduler()
    engine = kind(scheduler)
    rng, model = random.Random(3), bytearray(200_000)
    os.ftruncate(fd, len(model))
    for _ in range(60):
        offset, length = rng.randrange(150_000), rng.randrange(1, 50_000)
        if rng.random() < 0.5:
            data = rng.randbytes(length)
            cut = rng.randrange(length + 1)
            model[offset : offset + length] = data
            scheduler.run(engine.write(fd, [memoryview(data)[:cut], memoryview(data)[cut:]], offset))
        else:
            buffer = bytearray(length)
            assert scheduler.run(engine.read(fd, [memoryview(buffer)], offset)) == length
            assert buffer == model[offset : offset + length]
    engine.close()
    assert os.pread(fd, len(model) + 1, 0) == model


@each_engine
def test_a_read_over_the_end_says_how_much_there_was(kind, fd):
    scheduler = Scheduler()
    engine = kind(scheduler)
    os.pwrite(fd, b"abc", 0)
    buffer = bytearray(b"....")
    assert scheduler.run(engine.read(fd, [memoryview(buffer)], 1)) == 2
    assert buffer == b"bc.."
    engine.close()


@each_engine
def test_more_views_than_one_system_call_takes(kind, fd):
    scheduler = Scheduler()
    engine = kind(scheduler)
    data = random.Random(4).randbytes(3 * (IOV_MAX + 700))
    out = [memoryview(data)[start : start + 3] for start in range(0, len(data), 3)]
    assert engine.try_write(fd, out, 0) == 0
    scheduler.run(engine.write(fd, out, 0))
    buffer = bytearray(len(data))
    into = [memoryview(buffer)[start : start + 3] for start in range(0, len(data), 3)]
    assert engine.try_read(fd, into, 0) == 0
    assert scheduler.run(engine.read(fd, into, 0)) == len(data)
    assert buffer == data
    engine.close()


@each_engine
def test_an_error_of_the_host_reaches_the_request(kind):
    scheduler = Scheduler()
    engine = kind(scheduler)
    for request in (engine.read(-1, [memoryview(bytearray(1))], 0), engine.write(-1, [memoryview(b"x")], 0)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            scheduler.run(request)
    engine.close()


def test_the_auto_engine_reads_and_writes_the_page_cache_without_a_thread(fd):
    engine = AutoEngine(Scheduler())
    assert engine.try_write(fd, [memoryview(b"hello")], 0) == 5
    buffer = bytearray(5)
    assert engine.try_read(fd, [memoryview(buffer)], 0) == 5
    assert buffer == b"hello"
    assert engine._workers is None


def test_the_simulated_engine_completes_in_the_order_of_its_chooser(fd):
    scheduler = Scheduler(VirtualClock())
    seen = []
    engine = SimulatedEngine(scheduler, lambda pending: len(pending) - 1)
    for number in range(4):
        scheduler.start(
            engine.write(fd, [memoryview(bytes([number]))], 0),
            lambda _result, _error, number=number: seen.append(number),
        )
    assert seen == []
    assert [call.offset for call in engine.pending] == [0] * 4
    scheduler.drain()
    assert seen == [3, 2, 1, 0]
    assert os.pread(fd, 1, 0) == b"\0", "the order of completion is the order of effect"
    engine.close()


def test_an_unexpected_error_of_a_simulated_call_reaches_the_request():
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler)
    with pytest.raises(ValueError, match="invalid literal"):
        scheduler.run(engine.call(int, "x"))


def test_slices_of_buffer_lists_are_views_of_the_same_memory():
    rng = random.Random(5)
    for _ in range(200):
        memory = bytearray(rng.randbytes(50))
        cuts = sorted(rng.randrange(51) for _ in range(rng.randrange(5)))
        iov = [memoryview(memory)[a:b] for a, b in zip([0, *cuts], [*cuts, 50], strict=True)]
        start = rng.randrange(51)
        length = rng.randrange(51 - start)
        part = iov_slice(iov, start, length)
        assert b"".join(part) == memory[start : start + length]
        assert iov_length(part) == length
        for view in part:
            view[:] = bytes(view.nbytes)
        assert memory[start : start + length] == bytes(length)
