"""Memory, null and raw nodes; above all what a guest may write to an image whose format was guessed."""

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block import MemoryNode, NullNode, RawNode, open_disk
from e2kdisk.block.raw import GuessedRawNode
from e2kdisk.errors import ImageError, UsageError


@pytest.fixture
def memory():
    node = MemoryNode(Scheduler(), 10_000)
    node.data[:] = bytes(range(100)) * 100
    return node


def get(node, offset, length):
    buffer = bytearray(b"\xaa" * length)
    node.scheduler.run(node.read(offset, [memoryview(buffer)]))
    return bytes(buffer)


def put(node, offset, data):
    node.scheduler.run(node.write(offset, [memoryview(data)]))


def test_memory_grows_with_writes_and_reads_zeros_behind_its_end(memory):
    put(memory, 10_010, b"end")
    assert memory.size == len(memory.data) == 10_013
    assert get(memory, 9_999, 20) == b"\x63" + bytes(11 - 1) + b"\0end"[1:] + bytes(6)
    memory.scheduler.run(memory.truncate(5))
    memory.scheduler.run(memory.write_zeroes(3, 10))
    assert memory.data == b"\0\1\2" + bytes(10)
    memory.scheduler.run(memory.discard(0, 100))
    assert memory.data == bytes(13)


def test_memory_has_everything_at_once(memory):
    buffers = [bytearray(3), bytearray(5)]
    assert memory.try_read(9_996, [memoryview(buffer) for buffer in buffers]) == 4
    assert b"".join(buffers) == b"\x60\x61\x62\x63" + bytes(4)


def test_null_reads_zeros_and_drops_writes():
    node = NullNode(Scheduler(), 1000)
    put(node, 0, b"lost")
    assert get(node, 0, 4) == bytes(4)


# -- raw ------------------------------------------------------------------------------------------


def test_a_raw_window_shows_part_of_a_file_and_nothing_else(memory):
    window = RawNode(memory, offset=1_000, size=50)
    assert window.size == 50
    assert get(window, 40, 20) == bytes(range(40, 50)) + bytes(10)
    assert get(window, 60, 5) == bytes(5)
    put(window, 48, b"ab")
    assert memory.data[1_048:1_051] == b"ab\x32"
    with pytest.raises(OSError, match="past the end"):
        put(window, 49, b"ab")
    for change in (window.write_zeroes, window.discard):
        with pytest.raises(OSError, match="past the end"):
            window.scheduler.run(change(40, 11))
    with pytest.raises(OSError, match="cannot change its size"):
        window.scheduler.run(window.truncate(60))
    assert window.try_read(40, [memoryview(bytearray(20))]) == 0
    assert window.try_read(40, [memoryview(bytearray(10))]) == 10


@pytest.mark.parametrize(("offset", "size"), [(-1, None), (9_000, 1_001), (10_001, None), (0, 10_001)])
def test_a_window_outside_the_file_is_refused(memory, offset, size):
    with pytest.raises(ImageError, match="does not fit into 10000 bytes"):
        RawNode(memory, offset=offset, size=size)


def test_raw_takes_its_window_from_the_options(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000) + b"hello" + bytes(1000))
    with open_disk(tmp_path / "file", format="raw", offset=1000, size=5) as disk:
        assert disk.pread(0, 5) == b"hello"
    with pytest.raises(UsageError, match="unknown option 'ofset'; known for this format: offset, size"):
        open_disk(tmp_path / "file", format="raw", ofset=1000)


QCOW2 = b"QFI\xfb\0\0\0\3"


@pytest.fixture
def guessed():
    return GuessedRawNode(MemoryNode(Scheduler(), 10_000))


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0, QCOW2), (0, QCOW2 + bytes(5_000)), (0, b"KDMV"), (0x40, b"\x7f\x10\xda\xbe"), (0, b"LUKS\xba\xbe\0\1")],
)
def test_a_guest_cannot_turn_a_guessed_raw_image_into_another_format(guessed, offset, data):
    with pytest.raises(OSError, match="give format=raw to allow it"):
        put(guessed, offset, data)
    assert guessed.file.data == bytes(10_000)


def test_a_guest_cannot_build_a_header_from_harmless_pieces(guessed):
    put(guessed, 4, QCOW2[4:])
    put(guessed, 1, QCOW2[1:4])
    with pytest.raises(OSError, match="look like qcow2"):
        put(guessed, 0, QCOW2[:1])
    assert get(guessed, 0, 8) == b"\0" + QCOW2[1:]


def test_two_pieces_in_flight_make_no_header_either(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with open_disk(path, engine="threads") as disk:
        seen = []
        for piece in (slice(0, 4), slice(4, 8)):
            request = disk.write(piece.start, [memoryview(QCOW2[piece])])
            disk.scheduler.start(request, lambda _result, error: seen.append(error))
        disk.scheduler.drain()
        assert sum(error is None for error in seen) == 1


def test_zeroes_make_no_header_either(guessed):
    guessed.file.data[64:68] = b"\x7f\x10\xda\xbe"  # a vdi header, but for the first bytes
    guessed.file.data[0:4] = b"KDMV"
    for change in (guessed.write_zeroes, guessed.discard):
        with pytest.raises(OSError, match="look like vdi"):
            guessed.scheduler.run(change(0, 4))


def test_everything_else_may_be_written_to_a_guessed_raw_image(guessed):
    put(guessed, 0, b"\xeb\x58\x90mkfs.fat" + bytes(501))
    put(guessed, 510, b"\x55\xaa")
    put(guessed, 2048, QCOW2)
    guessed.scheduler.run(guessed.write_zeroes(0, 5_000))
    guessed.scheduler.run(guessed.discard(0, 5_000))
    assert get(guessed, 0, 5_000) == bytes(5_000)


def test_with_a_given_format_the_guest_writes_what_it_likes(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    with open_disk(path, format="raw") as disk:
        disk.pwrite(0, QCOW2)
    assert path.read_bytes()[:8] == QCOW2
