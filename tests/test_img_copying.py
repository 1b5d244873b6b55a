"""What convert does with its options for speed: pieces in flight, their order, a limited rate, copies by the host."""

import errno
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler, VirtualClock
from e2kdisk.block.memory import MemoryNode
from e2kdisk.tools.img.copying import CHUNK, Copier, Source
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.main import main
from e2kdisk.tools.img.rate import RateLimit
from e2kdisk.tools.img.zeros import pieces
from tests import oracles

PIECES = 8
MS = 1_000_000


class SlowNode(MemoryNode):
    """Memory whose reads take milliseconds of the clock, by the number of the piece; notes the order of writes."""

    def __init__(self, scheduler, data, delays=()):
        super().__init__(scheduler, len(data))
        self.data = bytearray(data)
        self.delays = delays
        self.order = []

    async def read(self, offset, iov):
        clock = self.scheduler.clock
        await self.scheduler.sleep_until(clock.now_ns() + self.delays[offset // CHUNK] * MS)
        await super().read(offset, iov)

    async def write(self, offset, iov):
        self.order.append(offset // CHUNK)
        await super().write(offset, iov)


def copied(delays, **options):
    """Copy PIECES pieces whose reads take so many milliseconds: (time in ms, order of the writes)."""
    scheduler = Scheduler(VirtualClock())
    data = b"".join(bytes([number + 1]) * CHUNK for number in range(len(delays)))
    source, target = SlowNode(scheduler, data, delays), SlowNode(scheduler, bytes(len(data)))
    copier = Copier(target, sparse=4096, compressed=False, is_zero=True, backing_size=None)
    for name, value in options.items():
        setattr(copier, name, value)
    scheduler.run(copier.copy([Source(source, 0, len(data), 0)]))
    assert target.data == data
    return scheduler.clock.now_ns() // MS, target.order


def test_as_many_pieces_are_read_at_once_as_there_are_workers():
    for workers, spent in ((1, 80), (2, 40), (8, 10)):
        assert copied([10] * PIECES, workers=workers)[0] == spent


def test_pieces_are_written_in_order_unless_they_need_not_be():
    delays = [80, 70, 60, 50, 40, 30, 20, 10]
    assert copied(delays)[1] == list(range(PIECES))
    assert copied(delays, in_order=False)[1] == list(reversed(range(PIECES)))


def test_the_first_error_ends_the_copy_and_is_the_one_that_is_told():
    scheduler = Scheduler(VirtualClock())
    source = SlowNode(scheduler, b"x" * CHUNK * PIECES, [10] * PIECES)
    target = SlowNode(scheduler, bytes(CHUNK * PIECES))
    good = source.read

    async def read(offset, iov):
        await good(offset, iov)
        if offset == 3 * CHUNK:
            raise OSError(errno.EIO, "broken")

    source.read = read
    copier = Copier(target, sparse=4096, compressed=False, is_zero=True, backing_size=None)
    with pytest.raises(Failure, match=f"error while reading at byte {3 * CHUNK}: Input/output error"):
        scheduler.run(copier.copy([Source(source, 0, source.size, 0)]))
    assert not scheduler.tasks


def test_a_rate_is_kept_over_time():
    scheduler = Scheduler(VirtualClock())
    limit = RateLimit(scheduler, 10_000_000)

    async def send():
        for _ in range(21):
            await limit.passing(1_000_000)

    scheduler.run(send())
    assert scheduler.clock.now_ns() == 2000 * MS


@given(
    st.lists(st.tuples(st.integers(0, 6000), st.booleans()), max_size=20),
    st.sampled_from([512, 1024, 4096, 65536, 1 << 20]),
)
def test_zeros_are_found_as_a_look_at_every_byte_finds_them(parts, grain):
    data = bytearray(b"".join((b"\0" if zero else b"\0a")[-1:] * length for length, zero in parts))
    expected = []
    for at in range(0, len(data), grain):
        block = data[at : at + grain]
        zero = not any(block)
        if expected and expected[-1][2] is zero:
            expected[-1] = (expected[-1][0], expected[-1][1] + len(block), zero)
        else:
            expected.append((at, len(block), zero))
    assert list(pieces(data + b"\0" * 100, len(data), grain)) == expected


# -- copies by the host ---------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """A raw image with data, zeros and a hole, and a tail that fills no cluster."""
    path = tmp_path / "source.raw"
    with path.open("wb") as file:
        file.write(os.urandom(3 << 20) + bytes(1 << 20))
        file.seek(6 << 20)
        file.write(os.urandom(100_352))
    return path


@pytest.fixture
def by_the_host(monkeypatch):
    """The number of bytes that copy_file_range has copied, in a list."""
    copied, real = [0], os.copy_file_range

    def counted(*arguments):
        count = real(*arguments)
        copied[0] += count
        return count

    monkeypatch.setattr(os, "copy_file_range", counted)
    return copied


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("options", [[], ["-W"], ["-m", "1"]])
def test_with_copy_offloading_the_host_copies(source, tmp_path, by_the_host, format, options):
    target = tmp_path / "target"
    arguments = ["-f", "raw", "-O", format, str(source), str(target)]
    assert main(["convert", "-C", *options, *arguments]) == 0
    assert 3 << 20 <= by_the_host[0] <= source.stat().st_size
    oracles.qemu_img("compare", "-f", "raw", "-F", format, source, target)
    assert main(["convert", *options, *arguments]) == 0
    assert by_the_host[0] <= source.stat().st_size


@pytest.mark.needs("qemu-utils")
def test_offloading_finds_the_data_of_a_chain_of_images(source, tmp_path, by_the_host, make_image, qemu_io):
    base, over, target = tmp_path / "base", tmp_path / "over", tmp_path / "target"
    oracles.qemu_img("convert", "-f", "raw", "-O", "qcow2", source, base)
    oracles.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over)
    qemu_io(over, "write -P 5 64k 100k", "write -z 1M 64k")
    assert main(["convert", "-C", "-O", "qcow2", str(over), str(target)]) == 0
    assert by_the_host[0] > 2 << 20
    oracles.qemu_img("compare", over, target)
    oracles.assert_clean(target)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP])
def test_where_the_host_cannot_copy_the_data_is_read_and_written(source, tmp_path, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    target = tmp_path / "target"
    assert main(["convert", "-C", "-f", "raw", "-O", "qcow2", str(source), str(target)]) == 0
    oracles.qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target)
    oracles.assert_clean(target)


@pytest.mark.needs("qemu-utils")
def test_a_rate_limit_slows_convert_and_commit_down(source, tmp_path):
    over = tmp_path / "over"
    oracles.qemu_img("create", "-q", "-f", "qcow2", "-b", source, "-F", "raw", over)
    oracles.run("qemu-io", "-c", "write -P 1 0 4M", over)
    # The last 2 MiB are on their way at once when what came before is paid for.
    for command, least in ((["convert", "-f", "raw", source, tmp_path / "target"], 0.2), (["commit", over], 0.2)):
        begin = time.monotonic()
        assert main([command[0], "-r", "8M", *map(str, command[1:])]) == 0
        assert time.monotonic() - begin > least


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_copy_takes_no_more_space_than_that_of_qemu_img(source, tmp_path, format):
    arguments = ["convert", "-f", "raw", "-O", format, str(source)]
    assert main([*arguments, str(tmp_path / "ours")]) == 0
    oracles.qemu_img(*arguments, tmp_path / "theirs")
    blocks = {name: (tmp_path / name).stat().st_blocks for name in ("ours", "theirs")}
    assert blocks["ours"] <= blocks["theirs"]


# -- compressed clusters --------------------------------------------------------------------------


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("cluster_size", ["512", "64k", "128k", "256k", "2M"])
def test_compressed_clusters_of_every_size_hold_all_the_data(source, tmp_path, cluster_size):
    target = tmp_path / "target"
    with source.open("r+b") as file:
        file.write(b"to compress " * 200_000)
    arguments = ["-o", f"cluster_size={cluster_size}", "-f", "raw", "-O", "qcow2", str(source), str(target)]
    assert main(["convert", "-c", *arguments]) == 0
    oracles.qemu_img("compare", "-f", "raw", "-F", "qcow2", source, target)
    oracles.assert_clean(target)
