"""A driver brings the device up as the specification says, in both generations of the transport."""

import struct

import pytest

from e2kdisk.devices.virtio import VirtioBlk, VirtioMmio
from e2kdisk.devices.virtio.features import bit, mask, names
from e2kdisk.errors import UsageError
from tests.virtio_driver import Driver, contents, make_disk

both_transports = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])


@both_transports
def test_a_driver_reads_and_writes(legacy):
    disk = make_disk()
    driver = Driver(disk, legacy=legacy)
    assert driver.read(0, 8) == bytes(contents(disk)[:4096])
    driver.write(3, b"x" * 1024)
    assert contents(disk)[3 * 512 : 5 * 512] == b"x" * 1024
    driver.flush()
    assert driver.interrupts == 3


@both_transports
def test_the_identification_registers_are_those_of_the_specification(legacy):
    driver = Driver(make_disk(), legacy=legacy, init=False)
    assert driver.reg(0x000).to_bytes(4, "little") == b"virt"
    assert driver.reg(0x004) == (1 if legacy else 2)
    assert driver.reg(0x008) == 2
    assert driver.reg(0x034) == 256
    driver.set_reg(0x030, 1)
    assert driver.reg(0x034) == 0  # there is no second queue


def test_each_era_is_offered_its_own_features():
    modern, legacy = Driver(make_disk()), Driver(make_disk(), legacy=True)
    assert modern.features - legacy.features == mask("VERSION_1", "RING_RESET") - bit("ANY_LAYOUT")
    assert names(legacy.features) == [
        "SEG_MAX",
        "BLK_SIZE",
        "FLUSH",
        "TOPOLOGY",
        "CONFIG_WCE",
        "DISCARD",
        "WRITE_ZEROES",
        "ANY_LAYOUT",
        "INDIRECT_DESC",
        "EVENT_IDX",
    ]
    assert names(1 << 60) == ["bit 60"]


def test_feature_words_past_the_second_are_empty_and_ignored():
    driver = Driver(make_disk(), init=False)
    driver.set_reg(0x014, 2)
    assert driver.reg(0x010) == 0
    driver.set_reg(0x024, 2)
    driver.set_reg(0x020, 0xFFFFFFFF)
    assert driver.device.features == 0


@pytest.mark.parametrize(
    ("accepted", "complaint"),
    [(bit("VERSION_1") | 1 << 50, "not offered"), (bit("FLUSH"), "VERSION_1")],
    ids=["a feature that is not offered", "no VERSION_1"],
)
def test_features_ok_does_not_stick_when_the_features_are_wrong(accepted, complaint):
    driver = Driver(make_disk(), init=False)
    driver.set_reg(0x070, 3)
    for word in (0, 1):
        driver.set_reg(0x024, word)
        driver.set_reg(0x020, accepted >> 32 * word & 0xFFFFFFFF)
    driver.set_reg(0x070, 11)
    assert driver.status == 3
    assert complaint in driver.trace.guest_errors[-1]
    driver.set_reg(0x070, 7)  # DRIVER_OK nevertheless
    assert driver.status == 3


def test_features_cannot_change_after_features_ok():
    driver = Driver(make_disk())
    before = driver.device.features
    driver.set_reg(0x024, 0)
    driver.set_reg(0x020, 0)
    assert driver.device.features == before
    assert "after FEATURES_OK" in driver.trace.guest_errors[-1]


def test_a_modern_device_serves_nothing_before_driver_ok_and_a_legacy_one_does():
    for legacy in (False, True):
        driver = Driver(make_disk(), legacy=legacy)
        driver.set_reg(0x070, 3 if legacy else 11)
        pending = driver.start(0, length=512)
        driver.kick()
        assert bool(driver.collect()) == legacy
        assert (pending.used_length is not None) == legacy


def test_a_legacy_driver_keeps_the_page_size_over_its_reset():
    # Driver.init writes GuestPageSize and then Status = 0; the queue is found only if 512 is remembered.
    driver = Driver(make_disk(), legacy=True, page_size=512, align=512)
    assert driver.read(0, 1)
    driver.set_reg(0x070, 0)
    assert driver.mmio.save()["page_size"] == 512
    driver.mmio.reset()  # the board's reset does clear it
    assert driver.mmio.save()["page_size"] == 4096


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("align", [4, 512, 4096])
def test_a_legacy_queue_lies_where_page_size_and_alignment_put_it(page_size, align):
    driver = Driver(make_disk(), legacy=True, page_size=page_size, align=align)
    driver.write(0, b"a" * 512)
    assert driver.read(0, 1) == b"a" * 512
    assert driver.reg(0x040) == driver.desc // page_size


def test_a_legacy_queue_stops_with_page_number_zero_and_starts_anew():
    driver = Driver(make_disk(), legacy=True)
    driver.read(0, 1)
    driver.set_reg(0x040, 0)
    assert driver.reg(0x040) == 0
    driver.start(0, length=512)
    driver.kick()
    assert not driver.collect()
    driver._init_queue()
    assert driver.read(0, 1)


def test_a_modern_queue_stops_with_ready_zero_and_starts_anew():
    driver = Driver(make_disk())
    driver.read(0, 1)
    assert driver.reg(0x044) == 1
    driver.set_reg(0x044, 0)
    assert driver.reg(0x044) == 0
    driver.start(0, length=512)
    driver.set_reg(0x050, 0)
    assert not driver.collect()
    driver._init_queue()
    assert driver.read(0, 1)


def test_a_queue_reset_forgets_the_ring_and_needs_the_feature():
    driver = Driver(make_disk(), size=16)
    driver.read(0, 1)
    driver.set_reg(0x0C0, 1)
    assert driver.reg(0x0C0) == driver.reg(0x044) == 0
    assert driver.device.queues[0].size == 256
    driver._init_queue()
    assert driver.read(0, 1)
    other = Driver(make_disk(), without=("RING_RESET",))
    other.set_reg(0x0C0, 1)
    assert "without the feature" in other.trace.guest_errors[-1]
    assert other.read(0, 1)


@pytest.mark.parametrize("size", [2, 4, 128, 256])
def test_a_driver_may_choose_a_smaller_queue(size):
    driver = Driver(make_disk(), size=size)
    for sector in range(10):
        assert driver.call(0, sector, length=512, indirect=True).status == 0


def test_status_zero_and_the_boards_reset_forget_the_driver():
    for reset in (lambda driver: driver.set_reg(0x070, 0), lambda driver: driver.mmio.reset()):
        driver = Driver(make_disk())
        driver.start(0, length=512)
        driver.kick()
        assert driver.irq.level
        reset(driver)
        assert not driver.irq.level
        assert driver.reg(0x060) == 0
        assert driver.status == 0
        assert driver.device.features == 0
        assert driver.reg(0x044) == 0
        driver.init()
        assert driver.read(0, 1)


def test_the_interrupt_line_follows_status_and_acknowledge():
    driver = Driver(make_disk())
    driver.start(0, length=512)
    driver.kick()
    assert driver.reg(0x060) == 1
    driver.set_reg(0x064, 2)  # not what is raised
    assert driver.irq.level
    driver.set_reg(0x064, 1)
    assert not driver.irq.level


def test_registers_take_32_bit_accesses_only_and_the_rest_is_reported():
    driver = Driver(make_disk())
    before = len(driver.trace.guest_errors)
    for size in (1, 2, 8):
        assert driver.mmio.read(0x000, size) == 0
        driver.mmio.write(0x070, size, 0)
    assert driver.reg(0x0D0) == 0
    assert driver.reg(0x050) == 0
    driver.set_reg(0x000, 1)
    driver.set_reg(0x002, 1)
    assert driver.status == 15
    assert len(driver.trace.guest_errors) == before + 10


def test_every_register_has_its_name_in_traces():
    modern = VirtioMmio(VirtioBlk(make_disk()))
    assert [modern.register_name(offset) for offset in (0x050, 0x070, 0x100, 0x104, 0x120, 0x1FF)] == [
        "QueueNotify",
        "Status",
        "capacity",
        "capacity+4",
        "writeback",
        "",
    ]
    assert VirtioMmio(VirtioBlk(make_disk()), legacy=True).register_name(0x040) == "QueuePFN"


# -- configuration space ----------------------------------------------------------------------------


def expected_config(disk, queue_size=256):
    exponent = (disk.physical_block_size // disk.logical_block_size).bit_length() - 1
    return struct.pack(
        "<QIIHBBIBBHIBBHIIIIIB",
        disk.size // 512,
        0,
        queue_size - 2,
        *(0, 0, 0),
        disk.logical_block_size,
        exponent,
        0,
        1 << exponent,
        0,
        1,
        0,
        1,
        1 << 22,
        32,
        disk.logical_block_size // 512,
        1 << 22,
        32,
        1,
    )


@both_transports
def test_the_configuration_space_reads_the_same_at_every_width(legacy):
    disk = make_disk(logical_block_size=512, physical_block_size=4096)
    driver = Driver(disk, legacy=legacy)
    expected = expected_config(disk).ljust(0x100, b"\0")
    for width in (1, 2, 4, 8):
        found = b"".join(driver.config(offset, width).to_bytes(width, "little") for offset in range(0, 0x100, width))
        assert found == expected


def test_a_size_that_is_not_whole_sectors_is_rounded_down():
    driver = Driver(make_disk(1000))
    assert driver.config(0, 8) == 1
    assert driver.call(0, 1, length=512).status == 1


def test_a_resize_interrupts_for_the_configuration_and_changes_its_generation():
    disk = make_disk()
    driver = Driver(disk)
    generation = driver.reg(0x0FC)
    disk.resize(2 << 20)
    assert driver.reg(0x060) == 3
    assert driver.reg(0x0FC) != generation
    assert driver.config(0, 8) == 4096
    assert driver.read(4095, 1) == bytes(512)


def test_only_writeback_can_be_written_and_only_with_the_feature():
    for without, writable in (((), True), (("CONFIG_WCE",), False)):
        disk = make_disk()
        driver = Driver(disk, without=without)
        assert disk.write_cache
        for offset in (0, 20, 33, 0xF0):
            driver.mmio.write(0x100 + offset, 1, 0xFF)
        driver.mmio.write(0x120, 1, 0)
        assert disk.write_cache != writable
        assert driver.config(32, 1) == (0 if writable else 1)
        assert driver.config(0, 8) == 2048


@pytest.mark.parametrize(
    ("without", "default", "expected"),
    [
        ((), True, True),
        ((), False, False),
        (("FLUSH", "CONFIG_WCE"), True, False),
        (("FLUSH",), True, False),
        (("CONFIG_WCE",), True, True),
        (("CONFIG_WCE",), False, False),
    ],
)
@both_transports
def test_a_driver_that_cannot_flush_gets_writes_that_are_durable(legacy, without, default, expected):
    disk = make_disk(writethrough=not default)
    driver = Driver(disk, legacy=legacy, without=without)
    assert disk.write_cache == expected
    assert driver.config(32, 1) == expected
    driver.set_reg(0x070, 0)
    assert not disk.write_cache  # whoever comes next has not promised to flush


def test_impossible_sizes_are_refused_when_the_device_is_made():
    for disk, options in ((make_disk(), {"queue_size": 100}), (make_disk(logical_block_size=1000), {})):
        with pytest.raises(UsageError, match="power of 2"):
            VirtioBlk(disk, **options)


def test_a_read_only_disk_says_so():
    driver = Driver(make_disk(read_only=True))
    assert driver.features & mask("RO", "DISCARD", "WRITE_ZEROES") == bit("RO")


@both_transports
def test_registers_of_a_queue_that_does_not_exist_do_nothing(legacy):
    driver = Driver(make_disk(), legacy=legacy)
    driver.set_reg(0x030, 7)
    for offset in (0x038, 0x03C, 0x040, 0x044, 0x080, 0x084, 0x090, 0x0A0):
        driver.set_reg(offset, 1)
        assert driver.reg(offset) == 0
    driver.set_reg(0x050, 7)
    assert "no such queue" in driver.trace.guest_errors[-1]
    assert driver.read(0, 1)


def test_a_running_queue_cannot_be_moved():
    driver = Driver(make_disk())
    driver.set_reg(0x080, 0)
    driver.set_reg(0x038, 1)
    assert "while it is in use" in driver.trace.guest_errors[-1]
    assert driver.read(0, 1)


def test_legacy_sizes_that_are_not_powers_of_two_are_ignored():
    driver = Driver(make_disk(), legacy=True, init=False)
    for offset, value in ((0x028, 3), (0x028, 0), (0x03C, 3), (0x03C, 0)):
        driver.set_reg(offset, value)
    assert len(driver.trace.guest_errors) == 4
    driver.init()
    assert driver.read(0, 1)
