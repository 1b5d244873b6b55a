"""FileNode: bytes, sizes, cache modes and what a failed flush means, with each engine."""

import errno
import os
import random
import subprocess
import threading

import pytest

from e2kdisk.aio import AutoEngine, Scheduler, ThreadEngine
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block import FileNode, ReadOnlyError, reserving
from e2kdisk.block import file as file_module
from e2kdisk.errors import ImageError, UsageError


class CountingEngine(AutoEngine):
    """Counts calls by name; those in `failing` fail with EIO, those in `refused` with EOPNOTSUPP."""

    def __init__(self, scheduler):
        super().__init__(scheduler)
        self.calls, self.failing, self.refused = [], set(), set()

    async def call(self, function, *args):
        name = function.__name__
        self.calls.append(name)
        if name in self.failing or name in self.refused:
            raise OSError(errno.EIO if name in self.failing else errno.EOPNOTSUPP, "as told")
        return await super().call(function, *args)


@pytest.fixture(params=[AutoEngine, ThreadEngine, SimulatedEngine])
def engine(request):
    engine = request.param(Scheduler())
    yield engine
    engine.close()


@pytest.fixture
def counting():
    engine = CountingEngine(Scheduler())
    yield engine
    engine.close()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.raw"
    path.write_bytes(bytes(range(1, 101)) * 100)
    return str(path)


def opened(path, engine, **options):
    return engine.scheduler.run(FileNode.open(path, engine, **options))


def get(node, offset, length):
    buffer = bytearray(b"\xaa" * length)
    node.scheduler.run(node.read(offset, [memoryview(buffer)[: length // 3], memoryview(buffer)[length // 3 :]]))
    return bytes(buffer)


def put(node, offset, data):
    node.scheduler.run(node.write(offset, [memoryview(data)]))


def close(node):
    node.scheduler.run(node.close())


def test_what_is_past_the_end_reads_as_zeros(engine, path):
    node = opened(path, engine)
    assert node.size == 10_000
    assert get(node, 9_990, 30) == bytes(range(91, 101)) + bytes(20)
    assert get(node, 20_000, 30) == bytes(30)
    close(node)


def test_a_write_past_the_end_extends_the_file(engine, path):
    node = opened(path, engine)
    put(node, 12_000, b"end")
    assert node.size == 12_003
    assert get(node, 9_999, 2_005) == b"\x64" + bytes(2_000) + b"end" + b"\0"
    close(node)
    assert os.path.getsize(path) == 12_003


def test_a_file_cut_by_somebody_else_reads_as_zeros_not_as_garbage(engine, path):
    node = opened(path, engine)
    os.truncate(path, 10)
    assert get(node, 5, 20) == bytes(range(6, 11)) + bytes(15)
    close(node)


@pytest.mark.parametrize("unmap", [False, True])
@pytest.mark.parametrize("refused", [set(), {"zero_range"}, {"zero_range", "punch_hole"}])
def test_zeroes_are_written_however_the_host_can(counting, path, unmap, refused):
    counting.refused = refused
    node = opened(path, counting)
    node.scheduler.run(node.write_zeroes(100, 5_000, unmap=unmap))
    node.scheduler.run(node.write_zeroes(9_000, 3_000, unmap=unmap))
    assert node.size == 12_000
    assert get(node, 99, 5_002) == b"\x64" + bytes(5_000) + b"\x01"
    close(node)
    assert os.path.getsize(path) == 12_000
    with open(path, "rb") as file:
        assert file.read()[9_000:] == bytes(3_000)


@pytest.mark.parametrize("seed", range(10))
def test_zeroes_that_extend_the_file_cut_off_no_write_behind_them(path, seed):
    rng = random.Random(seed)
    scheduler = Scheduler()
    node = opened(path, SimulatedEngine(scheduler, lambda pending: rng.randrange(len(pending))))
    scheduler.start(node.write_zeroes(9_000, 3_000, unmap=True))
    scheduler.start(node.write(13_000, [memoryview(b"behind")]))
    scheduler.drain()
    assert node.size == 13_006
    assert get(node, 12_998, 8) == b"\0\0behind"
    close(node)


def test_what_the_host_refuses_once_is_not_asked_again(counting, path):
    counting.refused = {"zero_range", "punch_hole"}
    node = opened(path, counting)
    for _ in range(3):
        node.scheduler.run(node.write_zeroes(0, 100, unmap=True))
        node.scheduler.run(node.discard(0, 100))
    assert counting.calls.count("zero_range") == 1
    assert counting.calls.count("punch_hole") == 1
    close(node)


def test_a_discard_gives_space_back_and_never_extends(engine, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(b"x" * (1 << 20))
    node = opened(str(path), engine)
    before = os.stat(path).st_blocks
    node.scheduler.run(node.discard(0, 4 << 20))
    node.scheduler.run(node.flush())
    assert os.path.getsize(path) == 1 << 20
    assert os.stat(path).st_blocks < before or before == 0
    close(node)


def test_truncate_shrinks_and_grows_with_zeros(engine, path):
    node = opened(path, engine)
    node.scheduler.run(node.truncate(10))
    node.scheduler.run(node.truncate(30))
    assert node.size == 30
    assert get(node, 0, 30) == bytes(range(1, 11)) + bytes(20)
    close(node)
    assert os.path.getsize(path) == 30


# -- cache modes ----------------------------------------------------------------------------------


def open_flags(node):
    with open(f"/proc/self/fdinfo/{node.fd}") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))


@pytest.mark.parametrize("cache", ["writeback", "writethrough", "none", "directsync", "unsafe"])
def test_a_cache_mode_decides_about_the_hosts_page_cache(counting, path, cache):
    node = opened(path, counting, cache=cache)
    assert bool(open_flags(node) & os.O_DIRECT) == (cache in ("none", "directsync"))
    put(node, 0, b"data")
    counting.calls.clear()
    node.scheduler.run(node.flush())
    assert ("fdatasync" in counting.calls) == (cache != "unsafe")
    close(node)
    with open(path, "rb") as file:
        assert file.read(4) == b"data"


def test_an_unknown_cache_mode_is_refused_with_the_known_ones(counting, path):
    with pytest.raises(UsageError, match="unknown cache mode 'fast'; known are writeback, writethrough, none"):
        opened(path, counting, cache="fast")


def test_a_flush_without_writes_since_the_last_costs_nothing(counting, path):
    node = opened(path, counting)
    for _ in range(3):
        node.scheduler.run(node.flush())
    assert counting.calls.count("fdatasync") == 1, "the first one: an earlier process may have left writes"
    put(node, 0, b"x")
    node.scheduler.run(node.flush())
    assert counting.calls.count("fdatasync") == 2
    close(node)
    assert counting.calls.count("fdatasync") == 2


def test_a_write_that_completes_during_a_flush_needs_the_next_flush(path):
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler, lambda pending: len(pending) - 1)  # the write before the fdatasync
    node = opened(path, engine)
    scheduler.start(node.flush())
    put(node, 0, b"x")
    scheduler.drain()
    seen = []
    scheduler.start(node.flush(), lambda *_: seen.append("flushed"))
    assert [call.kind for call in engine.pending] == ["fdatasync"]
    scheduler.drain()
    assert seen == ["flushed"]
    close(node)


def test_after_a_failed_flush_no_later_flush_claims_success(counting, path):
    node = opened(path, counting)
    put(node, 0, b"data")
    counting.failing = {"fdatasync"}
    with pytest.raises(OSError, match="as told"):
        node.scheduler.run(node.flush())
    counting.failing = set()
    put(node, 0, b"more")
    for _ in range(2):
        with pytest.raises(OSError, match="may be lost"):
            node.scheduler.run(node.flush())
    assert get(node, 0, 4) == b"more", "reading and writing go on"
    fd = node.fd
    with pytest.raises(OSError, match="may be lost"):
        close(node)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_flush_in_flight_while_another_fails_fails_too(path):
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler)
    node = opened(path, engine)
    seen = []
    for _ in range(2):
        scheduler.start(node.flush(), lambda _result, error: seen.append(error))
    engine.pending[0].function = os.close  # an fdatasync that fails; the kernel tells only one of the two
    engine.pending[0].args = (-1,)
    scheduler.drain()
    assert [type(error) for error in seen] == [OSError, OSError]
    with pytest.raises(OSError, match="may be lost"):
        close(node)


# -- opening and closing --------------------------------------------------------------------------


def test_a_read_only_file_refuses_every_change(engine, path):
    node = opened(path, engine, read_only=True)
    requests = [
        node.write(0, [memoryview(b"x")]),
        node.write_zeroes(0, 10),
        node.discard(0, 10),
        node.truncate(0),
    ]
    for request in requests:
        with pytest.raises(ReadOnlyError, match=r"read.*only.*file\.raw"):
            node.scheduler.run(request)
    node.scheduler.run(node.flush())
    close(node)


def test_what_cannot_be_opened_is_one_line_with_the_name(engine, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    cases = {
        "missing": "missing: cannot be opened: No such file or directory",
        ".": "cannot be opened: it is a directory",
        "fifo": "fifo: cannot be opened: it is neither a regular file nor a block device",
        "a\0b": "cannot be opened: embedded null byte",
    }
    for name, message in cases.items():
        with pytest.raises(ImageError) as caught:
            opened(f"{tmp_path}/{name}", engine)
        assert str(caught.value).endswith(message)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="neither a regular file nor a block device"):
        opened("/dev/null", engine)


def test_a_file_that_cannot_be_opened_leaves_no_file_descriptor(engine, path):
    node = opened(path, engine)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ImageError, match="locked"):
        opened(path, engine)
    assert set(os.listdir("/proc/self/fd")) == before
    close(node)


def test_creating_a_file_empties_it_only_when_nobody_uses_it(engine, path):
    node = opened(path, engine)
    with pytest.raises(ImageError, match="locked"):
        opened(path, engine, create=True)
    assert os.path.getsize(path) == 10_000
    close(node)
    node = opened(path, engine, create=True)
    assert node.size == os.path.getsize(path) == 0
    close(node)
    close(opened(path + ".new", engine, create=True))
    assert os.path.exists(path + ".new")


def test_close_waits_for_the_call_in_flight(path):
    scheduler = Scheduler()
    engine = ThreadEngine(scheduler)
    node = opened(path, engine)
    release, seen = threading.Event(), []

    async def slow_request():
        await node._call(release.wait, 10)
        seen.append("request ended")
        assert node.fd >= 0

    scheduler.start(slow_request())
    scheduler.start(node.close(), lambda *_: seen.append("closed"))
    assert not scheduler.wait(timeout=0.02)
    release.set()
    scheduler.drain()
    assert seen == ["request ended", "closed"]
    engine.close()


def test_a_closed_file_answers_with_an_error_not_with_somebody_elses_data(engine, path):
    node = opened(path, engine)
    close(node)
    close(node)
    with pytest.raises(OSError, match="Bad file descriptor"):
        get(node, 0, 10)
    with pytest.raises(OSError, match="Bad file descriptor"):
        put(node, 0, b"x")


def test_an_error_of_the_host_names_the_file(counting, path):
    node = opened(path, counting)
    counting.failing = {"ftruncate"}
    with pytest.raises(OSError, match=r"file\.raw"):
        node.scheduler.run(node.truncate(5))
    os.close(node.fd)
    with pytest.raises(OSError, match=r"Bad file descriptor.*file\.raw"):
        put(node, 0, b"x")
    node.fd = -1


def test_zeros_are_written_in_bounded_pieces(counting, path, monkeypatch):
    monkeypatch.setattr(file_module, "ZERO_CHUNK", 1000)
    counting.refused = {"zero_range"}
    node = opened(path, counting)
    node.scheduler.run(node.write_zeroes(1, 9_500))
    assert get(node, 0, 9_502) == b"\x01" + bytes(9_500) + b"\x02"
    close(node)


# -- writes whose space is taken first ------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What fallocate was asked for, in a list; the next answer is an errno of the other list, if there is one."""
    asked, answers, real = [], [], reserving.fallocate

    def fallocate(fd, mode, offset, length):
        asked.append((mode, offset, length))
        if answers:
            raise OSError(answers[0], os.strerror(answers[0]))
        real(fd, mode, offset, length)

    monkeypatch.setattr(reserving, "fallocate", fallocate)
    monkeypatch.setattr(reserving, "is_cheaper", lambda device: True)
    return asked, answers


def file_system(path):
    return subprocess.run(
        ["findmnt", "-no", "FSTYPE", "-T", path], capture_output=True, text=True, check=True
    ).stdout.split()[0]


@pytest.mark.parametrize("answer", [[], [errno.EOPNOTSUPP], [errno.ENOSPC]])
def test_only_long_writes_take_their_space_first_and_only_as_long_as_the_host_can(tmp_path, asked, answer):
    ranges, answers = asked
    answers += answer
    node = opened(str(tmp_path / "new"), AutoEngine(Scheduler()), create=True)
    node.reserve_before_writes()
    data = random.Random(1).randbytes(reserving.LONG_WRITE)
    for offset in (0, len(data), 5_000_000):
        put(node, offset, data)
    put(node, 3 * len(data), data[:-1])
    assert get(node, 0, len(data) * 2) == data * 2
    assert get(node, 5_000_000, len(data)) == data
    assert node.size == 5_000_000 + len(data) == os.fstat(node.fd).st_size
    expected = [(reserving.KEEP_SIZE, offset, len(data)) for offset in (0, len(data), 5_000_000)]
    assert ranges == (expected if not answer else expected[:1])
    close(node)


def test_space_is_taken_first_on_no_other_file_system_than_those_named(tmp_path):
    for path in (tmp_path, "/proc", "/dev/shm"):
        assert reserving.is_cheaper(os.stat(path).st_dev) == (file_system(path) in reserving.CHEAPER_ON)
