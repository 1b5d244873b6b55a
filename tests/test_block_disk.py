"""Disk: ranges, read-only, write cache, resize, and an end that loses no write and leaks no file descriptor."""

import errno
import os
import random

import pytest

from e2kdisk.aio import AutoEngine, Scheduler
from e2kdisk.aio.bridge import AsyncioBridge
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block import Disk, FileNode, MemoryNode, RawNode, ReadOnlyError, open_disk
from e2kdisk.errors import UsageError


class LoggedNode(MemoryNode):
    """Memory that remembers what was asked of it; a flush fails while `broken`."""

    def __init__(self, size=4096):
        super().__init__(Scheduler(), size)
        self.log = []
        self.broken = False

    async def write(self, offset, iov):
        self.log.append("write")
        await super().write(offset, iov)

    async def write_zeroes(self, offset, length, *, unmap=False):
        self.log.append("unmap" if unmap else "zeroes")
        await super().write_zeroes(offset, length)

    async def discard(self, offset, length):
        self.log.append("discard")
        await super().discard(offset, length)

    async def flush(self):
        self.log.append("flush")
        if self.broken:
            raise OSError(errno.EIO, "flush failed")

    async def close(self):
        self.log.append("close")


@pytest.fixture
def node():
    return LoggedNode()


def test_reads_and_writes_go_to_the_node(node):
    disk = Disk(node, serial="abc")
    disk.pwrite(10, b"hello")
    disk.pwrite(15, memoryview(bytearray(b" you")))
    assert disk.pread(8, 12) == b"\0\0hello you\0"
    disk.sync()
    assert (disk.size, disk.name, disk.serial, disk.read_only, disk.write_cache) == (4096, "memory", "abc", False, True)
    assert node.log == ["write", "write", "flush"]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (4096, 1), (4000, 97), (0, 4097), (1 << 70, 1)])
def test_a_range_outside_the_disk_is_refused(node, offset, length):
    disk = Disk(node)
    iov = [memoryview(bytearray(length))]
    for call in (
        lambda: disk.read(offset, iov),
        lambda: disk.write(offset, iov),
        lambda: disk.write_zeroes(offset, length),
        lambda: disk.discard(offset, length),
        lambda: disk.pread(offset, length),
        lambda: disk.pwrite(offset, bytes(length)),
    ):
        with pytest.raises(
            UsageError, match=f"memory: {length} bytes at offset {offset} are not inside its 4096 bytes"
        ):
            call()
    disk.pwrite(4096, b"")
    assert disk.pread(4096, 0) == b""


def test_a_read_only_disk_refuses_every_change(node):
    disk = Disk(node, read_only=True)
    for call in (
        lambda: disk.write(0, [memoryview(b"x")]),
        lambda: disk.write_zeroes(0, 1),
        lambda: disk.discard(0, 1),
        lambda: disk.resize(1),
    ):
        with pytest.raises(ReadOnlyError):
            call()
    disk.close()
    assert node.log == ["close"]
    node.read_only = True
    assert Disk(node, read_only=False).read_only, "the disk cannot write what its node cannot"


def test_without_a_write_cache_every_change_is_flushed_before_it_completes(node):
    disk = Disk(node, writethrough=True)
    assert not disk.write_cache
    disk.pwrite(0, b"x")
    disk.scheduler.run(disk.write_zeroes(0, 10, unmap=True))
    disk.scheduler.run(disk.discard(0, 10))
    assert node.log == ["write", "flush", "unmap", "flush", "discard", "flush"]
    disk.write_cache = True
    disk.pwrite(0, b"x")
    disk.scheduler.run(disk.write(0, [memoryview(b"x")], fua=True))
    assert node.log[6:] == ["write", "write", "flush"]


@pytest.mark.parametrize("cache", ["writethrough", "directsync", "writeback", "none", "unsafe"])
def test_the_cache_mode_decides_about_the_write_cache(tmp_path, cache):
    (tmp_path / "disk").write_bytes(bytes(4096))
    with open_disk(tmp_path / "disk", format="raw", cache=cache) as disk:
        assert disk.write_cache == (cache not in ("writethrough", "directsync"))
        disk.pwrite(100, b"x")
        assert disk.pread(99, 3) == b"\0x\0"


def test_resize_tells_everybody(node):
    disk = Disk(node)
    told = []
    disk.on_resize.append(told.append)
    disk.resize(8192)
    disk.pwrite(8000, b"x")
    disk.resize(100)
    assert told == [8192, 100]
    assert disk.size == 100
    with pytest.raises(UsageError):
        disk.resize(-1)


# -- the end --------------------------------------------------------------------------------------


def test_close_flushes_once_and_only_once(node):
    with Disk(node) as disk:
        disk.pwrite(0, b"x")
    disk.close()
    assert disk.closed
    assert node.log == ["write", "flush", "close"]


def test_a_closed_disk_says_so(node):
    disk = Disk(node)
    disk.close()
    for call in (
        lambda: disk.pread(0, 1),
        lambda: disk.pwrite(0, b"x"),
        lambda: disk.read(0, [memoryview(bytearray(1))]),
        lambda: disk.write(0, [memoryview(b"x")]),
        lambda: disk.write_zeroes(0, 1),
        lambda: disk.discard(0, 1),
        disk.sync,
        lambda: disk.resize(1),
    ):
        with pytest.raises(UsageError, match="memory: is closed"):
            call()


def test_a_failed_flush_is_raised_by_close_and_everything_is_closed(node):
    disk = Disk(node)
    node.broken = True
    with pytest.raises(OSError, match="flush failed"):
        disk.close()
    disk.close()
    assert node.log == ["flush", "close"]


def test_a_failed_flush_leaks_no_file_descriptor(tmp_path):
    class Failing(AutoEngine):
        async def call(self, function, *args):
            raise OSError(errno.EIO, "lost")

    path = tmp_path / "disk"
    path.write_bytes(bytes(512))
    before = os.listdir("/proc/self/fd")
    disk = open_disk(path, format="raw", engine=Failing(Scheduler()))
    with pytest.raises(OSError, match="lost"):
        disk.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("cache", ["writeback", "none"])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_close_waits_for_writes_in_flight_on_threads(make_image, qemu_img, format, cache):
    image = make_image("4M", format=format)
    disk = open_disk(image, format=format, engine="threads", cache=cache)
    rng, model, completed = random.Random(2), bytearray(4 << 20), []
    for start in range(0, len(model), 37_000):
        data = rng.randbytes(min(37_000, len(model) - start))
        model[start : start + len(data)] = data
        disk.scheduler.start(disk.write(start, [memoryview(data)]), lambda _result, error: completed.append(error))
    assert len(completed) < 114, "most are in flight"
    disk.close()
    assert completed == [None] * 114
    if format == "qcow2":
        qemu_img("convert", "-f", "qcow2", "-O", "raw", image, f"{image}.raw")
        image = image.with_name(image.name + ".raw")
    assert image.read_bytes() == model


def test_reads_in_flight_at_close_end_somehow(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"\x55" * (1 << 20))
    disk = open_disk(path, format="raw", engine="threads")
    buffers, seen = [bytearray(65536) for _ in range(16)], []
    for buffer in buffers:
        disk.scheduler.start(disk.read(0, [memoryview(buffer)]), lambda _result, error: seen.append(error))
    disk.close()
    disk.scheduler.drain()
    assert seen == [None] * 16
    assert all(buffer == b"\x55" * 65536 for buffer in buffers)


def test_an_order_of_completion_can_be_chosen_and_close_still_waits(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(100))
    scheduler = Scheduler()
    engine = SimulatedEngine(scheduler, lambda pending: len(pending) - 1)
    disk = Disk(RawNode(scheduler.run(FileNode.open(str(path), engine))), engine=engine)
    for number in range(10):
        scheduler.start(disk.write(0, [memoryview(bytes([number]) * 100)]))
    disk.close()
    assert path.read_bytes() == bytes(100)


def test_a_disk_is_awaited_from_asyncio(tmp_path):
    import asyncio

    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    disk = open_disk(path, format="raw", engine="threads")

    async def program():
        with AsyncioBridge(disk.scheduler) as bridge:
            blocks = [bytes([number]) * 4096 for number in range(64)]
            await asyncio.gather(
                *(bridge.run(disk.write(n * 4096, [memoryview(block)])) for n, block in enumerate(blocks))
            )
            await bridge.run(disk.flush())
            back = [bytearray(4096) for _ in blocks]
            await asyncio.gather(*(bridge.run(disk.read(n * 4096, [memoryview(b)])) for n, b in enumerate(back)))
            assert back == blocks

    asyncio.run(program())
    disk.close()
