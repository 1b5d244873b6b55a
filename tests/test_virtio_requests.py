"""Each request type of the block device, however the driver lays it out in memory."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.errors import ImageError
from tests.virtio_driver import (
    DISCARD,
    FLUSH,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    UNSUPP,
    WRITE_ZEROES,
    Driver,
    contents,
    make_disk,
    ranges,
)

SECTORS = 2048


@pytest.fixture(scope="module", autouse=True, params=["mmio", "pci"])
def transport(request):
    """Every test of this file runs over every transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "transport", request.param)
        yield request.param


@pytest.fixture
def driver():
    return Driver(make_disk(serial="E2K-0001"))


def test_in_reads_and_counts_data_and_status(driver):
    result = driver.call(IN, 7, length=1024)
    assert (result.status, result.used_length) == (OK, 1025)
    assert result.data == contents(driver.disk)[7 * 512 : 9 * 512]


def test_out_writes_and_counts_the_status_only(driver):
    result = driver.call(OUT, SECTORS - 1, b"w" * 512)
    assert (result.status, result.used_length) == (OK, 1)
    assert contents(driver.disk)[-512:] == b"w" * 512


def test_in_and_out_without_data_succeed(driver):
    assert driver.call(IN, 0).status == OK
    assert driver.call(OUT, SECTORS).status == OK


def test_flush_reaches_the_disk(driver, monkeypatch):
    flushed = []

    async def flush():
        flushed.append(True)

    monkeypatch.setattr(driver.disk.node, "flush", flush)
    result = driver.call(FLUSH)
    assert (result.status, result.used_length, flushed) == (OK, 1, [True])


def test_get_id_gives_twenty_bytes_padded_with_zeros(driver):
    result = driver.call(GET_ID, length=20)
    assert (result.status, result.used_length) == (OK, 21)
    assert result.data == b"E2K-0001".ljust(20, b"\0")


def test_get_id_fills_no_more_than_there_is_room_for_and_no_more_than_twenty():
    driver = Driver(make_disk(serial="0123456789" * 3))
    assert driver.call(GET_ID, length=8).data == b"01234567"
    result = driver.call(GET_ID, length=30)
    assert result.data == b"01234567890123456789" + b"\xee" * 10
    assert result.used_length == 20  # the status byte lies behind bytes that were not written


def test_discard_and_write_zeroes_take_several_ranges(driver):
    assert driver.call(DISCARD, 0, ranges((1, 1, 0), (5, 2, 0))).status == OK
    assert driver.call(WRITE_ZEROES, 0, ranges((10, 1, 0), (12, 1, 1), (0, 0, 0))).status == OK
    zeros = [sector for sector in range(20) if not any(contents(driver.disk)[512 * sector : 512 * sector + 512])]
    assert zeros == [1, 5, 6, 10, 12]


def test_write_zeroes_hands_on_whether_space_may_be_given_back(driver, monkeypatch):
    calls = []

    async def write_zeroes(offset, length, *, unmap=False):
        calls.append((offset, length, unmap))

    monkeypatch.setattr(driver.disk.node, "write_zeroes", write_zeroes)
    driver.call(WRITE_ZEROES, 0, ranges((1, 2, 0), (3, 4, 1)))
    assert calls == [(512, 1024, False), (1536, 2048, True)]


@pytest.mark.parametrize(
    ("kind", "sector", "data", "length", "status"),
    [
        (IN, 0, b"", 511, IOERR),
        (IN, SECTORS, b"", 512, IOERR),
        (IN, SECTORS - 1, b"", 1024, IOERR),
        (IN, (1 << 64) - 1, b"", 512, IOERR),
        (OUT, 0, b"x" * 513, 0, IOERR),
        (OUT, SECTORS, b"x" * 512, 0, IOERR),
        (OUT, 1 << 63, b"x" * 512, 0, IOERR),
        (2, 0, b"", 0, UNSUPP),
        (3, 0, b"", 0, UNSUPP),
        (0xFFFFFFFF, 0, b"", 0, UNSUPP),
        (DISCARD, 0, b"", 0, UNSUPP),
        (DISCARD, 0, b"x" * 15, 0, UNSUPP),
        (DISCARD, 0, ranges((0, 1, 0)) + b"x", 0, UNSUPP),
        (DISCARD, 0, ranges((0, 1, 1)), 0, UNSUPP),
        (DISCARD, 0, ranges((0, 1, 2)), 0, UNSUPP),
        (DISCARD, 0, ranges((0, 0xFFFFFFFF, 0)), 0, IOERR),
        (DISCARD, 0, ranges((SECTORS, 1, 0)), 0, IOERR),
        (DISCARD, 0, ranges((0, 1, 0), ((1 << 64) - 1, 1, 0)), 0, IOERR),
        (DISCARD, 0, ranges(*[(0, 1, 0)] * 33), 0, IOERR),
        (WRITE_ZEROES, 0, ranges((0, 1, 0x80000001)), 0, UNSUPP),
        (WRITE_ZEROES, 0, ranges((0, 1, 0), (0, 1, 2)), 0, UNSUPP),
        (WRITE_ZEROES, 0, ranges((0, 0xFFFFFFFF, 1)), 0, IOERR),
        (WRITE_ZEROES, 0, ranges((SECTORS - 1, 2, 0)), 0, IOERR),
    ],
)
def test_a_bad_request_has_its_status_and_changes_nothing(driver, kind, sector, data, length, status):
    before = bytes(contents(driver.disk))
    result = driver.call(kind, sector, data, length)
    assert result.status == status
    assert contents(driver.disk) == before
    assert result.data == b"\xee" * length
    assert result.used_length == (0 if length else 1)
    assert not driver.broken
    assert driver.read(0, 1)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(OUT, b"x" * 512), (DISCARD, ranges((0, 1, 0))), (WRITE_ZEROES, ranges((0, 1, 1)))],
    ids=["OUT", "DISCARD", "WRITE_ZEROES"],
)
def test_a_read_only_disk_refuses_every_change(kind, data):
    driver = Driver(make_disk(read_only=True))
    before = bytes(contents(driver.disk))
    assert driver.call(kind, 0, data).status == IOERR
    assert contents(driver.disk) == before
    assert driver.read(0, 1) == before[:512]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        OSError(errno.ENOSPC, "full"),
        ImageError("disk.qcow2", "L2 entry 3", "is nonsense"),
    ],
    ids=["EIO", "ENOSPC", "ImageError"],
)
def test_an_error_of_the_disk_is_an_i_o_error_of_the_request(driver, monkeypatch, error):
    async def fail(*args, **options):
        raise error

    for method in ("write", "flush", "discard", "write_zeroes"):
        monkeypatch.setattr(driver.disk.node, method, fail)
    monkeypatch.setattr(driver.disk, "_node_read", fail)
    for kind, data, length in (
        (IN, b"", 512),
        (OUT, b"x" * 512, 0),
        (FLUSH, b"", 0),
        (DISCARD, ranges((0, 1, 0)), 0),
        (WRITE_ZEROES, ranges((0, 1, 0)), 0),
    ):
        result = driver.call(kind, 0, data, length)
        assert result.status == IOERR
        assert result.used_length == (0 if length else 1)
    assert not driver.broken


def test_a_defect_of_ours_is_raised_to_the_caller_and_the_driver_still_gets_its_answer(driver, monkeypatch):
    async def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(driver.disk, "_node_read", fail)
    pending = driver.start(IN, 0, length=512)
    with pytest.raises(ZeroDivisionError):
        driver.kick()
    driver.wait(pending)
    assert driver.result(pending).status == IOERR


def test_the_cache_switched_off_makes_each_write_durable(driver, monkeypatch):
    order = []

    async def flush():
        order.append("flush")

    monkeypatch.setattr(driver.disk.node, "flush", flush)
    driver.write(0, b"x" * 512)
    assert order == []
    driver.link.set_config(32, 1, 0)
    driver.write(0, b"x" * 512)
    assert order == ["flush"]
    driver.link.set_config(32, 1, 1)
    driver.write(0, b"x" * 512)
    assert order == ["flush"]


def test_each_request_is_in_the_trace(driver):
    driver.read(5, 2)
    driver.call(99)
    assert all(driver.memory.target(fields.pop("status_at"), 1) is not None for fields in driver.trace.requests)
    assert driver.trace.requests == [
        {"type": "IN", "sector": 5, "bytes": 1024, "status": OK, "head": 0},
        {"type": "0x63", "sector": 0, "bytes": 0, "status": UNSUPP, "head": 0},
    ]


def test_what_the_device_writes_is_published_in_whole_ranges(driver):
    driver.published.clear()
    result = driver.start(IN, 0, length=4096)
    driver.kick()
    # Data and status lie side by side: one invalidation of translated code.
    assert driver.published == [(result.data_address, result.data_address + 4097)]


# -- any layout -------------------------------------------------------------------------------------

REQUESTS = st.sampled_from(
    [
        (IN, 3, b"", 2048),
        (OUT, 9, bytes(range(256)) * 6, 0),
        (FLUSH, 0, b"", 0),
        (GET_ID, 0, b"", 20),
        (DISCARD, 0, ranges((2, 3, 0), (8, 1, 0)), 0),
        (WRITE_ZEROES, 0, ranges((4, 2, 1), (16, 4, 0)), 0),
        (IN, SECTORS, b"", 512),
        (77, 0, b"data", 12),
    ]
)


@given(REQUESTS, st.lists(st.integers(0, 2100), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_the_cuts_between_descriptors_make_no_difference(request_, cuts, indirect, legacy):
    kind, sector, data, length = request_
    answers = []
    for layout in ({}, {"cuts": cuts, "indirect": indirect}):
        driver = Driver(make_disk(16384 + (1 << 15), serial="cut"), legacy=legacy, trace=False)
        result = driver.call(kind, sector, data, length, **layout)
        answers.append((result, bytes(contents(driver.disk))))
    assert answers[0] == answers[1]


def test_every_byte_may_be_a_descriptor_of_its_own():
    driver = Driver(make_disk())
    data = bytes(range(256)) * 2
    assert driver.call(OUT, 5, data, cuts=range(16 + 512), indirect=True).status == OK
    assert driver.call(IN, 5, length=512, cuts=range(16 + 512), indirect=True).data == data
