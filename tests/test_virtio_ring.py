"""The split ring: order, wrap-around, notification suppression, and every mistake a driver can make with it."""

import random

import pytest

from e2kdisk.aio import VirtualClock
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.virtio.blk_request import BlkMistake
from e2kdisk.devices.virtio.queue import INDIRECT, NEXT, WRITE, RingMistake
from tests.virtio_driver import DESCRIPTOR, HEADER, IN, OK, OUT, RAM_BASE, Driver, contents, make_disk

both_transports = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
with_and_without_event_index = pytest.mark.parametrize("without", [(), ("EVENT_IDX",)], ids=["event index", "flags"])


@pytest.fixture(scope="module", autouse=True, params=["mmio", "pci"])
def transport(request):
    """Every test of this file runs over every transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "transport", request.param)
        yield request.param


# -- order ------------------------------------------------------------------------------------------


class CopyingArea:
    """A ring in memory that the host cannot map: every access is a call, and a line in the log."""

    def __init__(self, memory, address, length):
        self.memory, self.address, self.length = memory, address, length

    def unpack(self, layout, offset):
        return layout.unpack(self.memory.ram.source(self.address + offset, layout.size))

    def pack(self, layout, offset, *values):
        self.memory.log.append(self.memory.name_of(self.address + offset))
        self.memory.ram.target(self.address + offset, layout.size)[:] = layout.pack(*values)


class CopyingMemory:
    """Guest memory behind calls, as in somebody else's emulator: views are copies until they are published."""

    def __init__(self, driver):
        self.driver = driver
        self.ram = RamMemory()
        self.ram.add_bank(RAM_BASE, memoryview(driver.ram))
        self.log = []
        self.filled = []

    def name_of(self, address):
        if address == self.driver.used_ring + 2:
            return "used index"
        if address == self.driver.used_ring + 4 + 8 * self.driver.size:
            return "avail event"
        return "used entry"

    def area(self, address, length):
        return CopyingArea(self, address, length) if self.ram.source(address, length) is not None else None

    def source(self, address, length):
        view = self.ram.source(address, length)
        return None if view is None else memoryview(bytes(view))

    def target(self, address, length):
        return None if self.ram.target(address, length) is None else memoryview(bytearray(length))

    def written(self, address, view):
        self.log.append("status" if view.nbytes == 1 else "data")
        self.filled.append((address, view))

    def publish(self):
        for address, view in self.filled:
            self.ram.target(address, view.nbytes)[:] = view
        self.filled = []
        self.log.append("publish")


def test_data_status_used_entry_index_and_interrupt_come_in_this_order():
    driver = Driver(make_disk(), init=False)
    memory = CopyingMemory(driver)
    driver.controller.connect(memory, IrqLine(lambda level: memory.log.append("interrupt") if level else None))
    driver.init()
    pending = driver.start(IN, 1, length=1024)
    driver.kick()
    assert memory.log == ["data", "status", "used entry", "avail event", "publish", "used index", "interrupt"]
    driver.wait(pending)
    assert driver.result(pending).data == contents(driver.disk)[512:1536]
    driver.write(1, b"z" * 512)
    assert driver.read(1, 1) == b"z" * 512
    # A status byte that shares a descriptor with the data leaves the data's bytes alone, and the reverse.
    assert driver.call(IN, 1, length=512, cuts=[0]).data == b"z" * 512


def test_requests_of_one_notification_are_one_batch():
    driver = Driver(make_disk())
    requests = [driver.start(IN, sector, length=512) for sector in range(8)]
    driver.published.clear()
    driver.kick()
    assert driver.interrupts == 1
    assert len(driver.published) <= 8
    assert driver.peek16(driver.used_ring + 2) == 8
    driver.wait(*requests)
    for sector, pending in enumerate(requests):
        assert driver.result(pending).data == contents(driver.disk)[512 * sector : 512 * sector + 512]


# -- indices ----------------------------------------------------------------------------------------


def at_index(driver, index):
    """Move both ring indices on, as if `index` requests had been made."""
    state = driver.controller.save()
    state["device"]["queues"][0] |= {"next_avail": index, "used_index": index}
    driver.controller.load(state)
    driver.avail_index = driver.seen_used = driver._kicked = index
    for address in (driver.avail + 2, driver.used_ring + 2, driver.used_ring + 4 + 8 * driver.size):
        driver.poke16(address, index)
    driver.poke16(driver.avail + 4 + 2 * driver.size, index)


@both_transports
@with_and_without_event_index
@pytest.mark.parametrize("in_flight", [1, 3, 64])
def test_the_indices_wrap_at_65536(legacy, without, in_flight):
    driver = Driver(make_disk(), legacy=legacy, without=without, size=64)
    at_index(driver, 65536 - 100)
    for _ in range(0, 256, in_flight):
        requests = [driver.start(IN, sector % 7, length=512, indirect=True) for sector in range(in_flight)]
        edges = driver.interrupts
        driver.kick()
        assert driver.interrupts == edges + 1
        driver.wait(*requests)
        assert all(driver.result(pending).status == OK for pending in requests)
    assert driver.avail_index < 256


def test_seventy_thousand_requests_are_each_used_once():
    driver = Driver(make_disk(), trace=False)
    served = 0
    while served < 70_000:
        requests = [driver.start(IN, 1, length=512) for _ in range(80)]
        driver.kick()
        assert len(driver.collect()) == len(requests)
        served += len(requests)
    assert not driver.broken
    assert driver.seen_used == served & 0xFFFF


# -- suppression ------------------------------------------------------------------------------------


def test_no_interrupt_comes_while_the_driver_asks_for_none():
    driver = Driver(make_disk(), without=("EVENT_IDX",))
    driver.no_interrupts(True)
    pending = driver.start(IN, 0, length=512)
    driver.kick()
    assert driver.interrupts == 0
    assert driver.collect() == [pending]
    driver.no_interrupts(False)
    driver.read(0, 1)
    assert driver.interrupts == 1


def test_the_interrupt_comes_when_the_used_index_passes_the_event():
    driver = Driver(make_disk())
    driver.poke16(driver.avail + 4 + 2 * driver.size, 2)  # tell me about the third
    for expected in (0, 0, 1, 1):
        driver.start(IN, 0, length=512)
        driver.kick()
        assert driver.interrupts == expected
    assert len(driver.collect()) == 4


def test_a_batch_that_jumps_over_the_event_interrupts_once():
    driver = Driver(make_disk())
    driver.poke16(driver.avail + 4 + 2 * driver.size, 2)
    for _ in range(6):
        driver.start(IN, 0, length=512)
    driver.kick()
    assert driver.interrupts == 1


def test_the_device_asks_to_be_notified_about_the_next_chain():
    driver = Driver(make_disk())
    for expected in range(1, 5):
        driver.start(IN, 0, length=512)
        assert driver.kick()
        assert driver.peek16(driver.used_ring + 4 + 8 * driver.size) == expected


def test_a_chain_that_comes_while_the_device_goes_to_sleep_is_served(monkeypatch):
    # The driver on another CPU adds a chain between the device's last look at the ring and its avail_event, and
    # does not notify, since the old event index does not ask for it.
    driver = Driver(make_disk())
    queue = driver.device.queues[0]
    write_used = queue._write_used
    late = []

    def racing(offset, value):
        if offset == 4 + 8 * driver.size and not late:
            late.append(driver.start(IN, 1, length=512))
        write_used(offset, value)

    monkeypatch.setattr(queue, "_write_used", racing)
    first = driver.start(IN, 0, length=512)
    driver.notify()
    done = driver.collect()
    assert done == [first, *late]


# -- mistakes ---------------------------------------------------------------------------------------

BUFFER = RAM_BASE + (512 << 10)
END = RAM_BASE + (1 << 20)


def chain(driver, *descriptors):
    """Offer a chain of (address, length, flags) that are linked one after the other."""
    driver.poke(BUFFER, HEADER.pack(IN, 0, 0))
    for index, (address, length, flags) in enumerate(descriptors):
        last = index == len(descriptors) - 1
        driver.descriptor(index, address, length, flags | (0 if last else NEXT), 0 if last else index + 1)
    driver.offer(0)


HEAD = (BUFFER, 16, 0)
STATUS = (BUFFER + 4096, 1, WRITE)


def indirect(length=48, flags=0, table=BUFFER + 8192):
    def build(driver):
        for index, (address, size, bits) in enumerate((HEAD, (BUFFER + 100, 512, WRITE), STATUS)):
            driver.poke(
                BUFFER + 8192 + 16 * index, DESCRIPTOR.pack(address, size, bits | (NEXT if index < 2 else 0), index + 1)
            )
        chain(driver, (table, length, INDIRECT | flags))

    return build


def nested(driver):
    driver.poke(BUFFER + 8192, DESCRIPTOR.pack(BUFFER + 12288, 16, INDIRECT, 0))
    chain(driver, (BUFFER + 8192, 16, INDIRECT))


def indirect_loop(driver):
    driver.poke(BUFFER + 8192, DESCRIPTOR.pack(BUFFER, 16, NEXT, 0))
    chain(driver, (BUFFER + 8192, 16, INDIRECT))


def indirect_next(driver):
    driver.poke(BUFFER + 8192, DESCRIPTOR.pack(BUFFER, 16, NEXT, 3))
    chain(driver, (BUFFER + 8192, 48, INDIRECT))


def loop(length):
    def build(driver):
        for index in range(length):
            driver.descriptor(index, BUFFER, 16, NEXT, (index + 1) % length)
        driver.offer(0)

    return build


def next_past_the_table(driver):
    driver.descriptor(0, BUFFER, 16, NEXT, driver.size)
    driver.offer(0)


def indirect_without_end(driver):
    for index in range(2000):
        driver.poke(BUFFER + 8192 + 16 * index, DESCRIPTOR.pack(BUFFER, 16, NEXT, index + 1))
    chain(driver, (BUFFER + 8192, 16 * 2001, INDIRECT))


def index_jump(by):
    return lambda driver: driver.poke16(driver.avail + 2, by)


def used_index(driver):
    driver.poke16(driver.used_ring + 2, 7)
    chain(driver, HEAD, STATUS)


def same_head_twice(driver):
    # The first one is in flight while the second is looked at: nothing of this ends on the spot.
    driver.device.scheduler.start = lambda coro, then, owner: coro.close()
    chain(driver, HEAD, STATUS)
    driver.offer(0)


MISTAKES = {
    "available index too far ahead": (index_jump(257), RingMistake.AVAIL_INDEX),
    "available index moved back": (index_jump(0xFFFF), RingMistake.AVAIL_INDEX),
    "used index moved": (used_index, RingMistake.USED_INDEX),
    "head past the table": (lambda driver: driver.offer(256), RingMistake.HEAD),
    "head of 65535": (lambda driver: driver.offer(65535), RingMistake.HEAD),
    "head twice": (same_head_twice, RingMistake.HEAD_IN_FLIGHT),
    "next past the table": (next_past_the_table, RingMistake.NEXT),
    "loop of one": (loop(1), RingMistake.LOOP),
    "loop of two": (loop(2), RingMistake.LOOP),
    "loop of all": (loop(256), RingMistake.LOOP),
    "nested indirect table": (nested, RingMistake.INDIRECT_NESTED),
    "indirect with NEXT": (indirect(flags=NEXT), RingMistake.INDIRECT_NEXT),
    "indirect of length 0": (indirect(0), RingMistake.INDIRECT_LENGTH),
    "indirect of odd length": (indirect(47), RingMistake.INDIRECT_LENGTH),
    "indirect outside RAM": (indirect(table=END - 32), RingMistake.INDIRECT_ADDRESS),
    "indirect of 4 GiB": (indirect(0xFFFFFFF0), RingMistake.INDIRECT_ADDRESS),
    "indirect loop": (indirect_loop, RingMistake.LOOP),
    "indirect of 2001 descriptors": (indirect_without_end, RingMistake.LOOP),
    "indirect next past its table": (indirect_next, RingMistake.NEXT),
    "readable after writable": (lambda driver: chain(driver, STATUS, HEAD), RingMistake.ORDER),
    "empty readable buffer": (lambda driver: chain(driver, HEAD, (BUFFER, 0, 0), STATUS), RingMistake.EMPTY_BUFFER),
    "empty writable buffer": (lambda driver: chain(driver, HEAD, (BUFFER, 0, WRITE)), RingMistake.EMPTY_BUFFER),
    "more than 4 GiB": (
        lambda driver: chain(driver, HEAD, (BUFFER, 0xFFFFFFFF, WRITE), (BUFFER, 0xFFFFFFFF, WRITE)),
        RingMistake.CHAIN_BYTES,
    ),
    "header before RAM": (lambda driver: chain(driver, (RAM_BASE - 8, 16, 0), STATUS), RingMistake.BUFFER_ADDRESS),
    "header past RAM": (lambda driver: chain(driver, (END - 15, 16, 0), STATUS), RingMistake.BUFFER_ADDRESS),
    "header at the end of the address space": (
        lambda driver: chain(driver, ((1 << 64) - 8, 16, 0), STATUS),
        RingMistake.BUFFER_ADDRESS,
    ),
    "data past RAM": (
        lambda driver: chain(driver, HEAD, (END - 511, 512, WRITE), STATUS),
        RingMistake.BUFFER_ADDRESS,
    ),
    "status past RAM": (lambda driver: chain(driver, HEAD, (END, 1, WRITE)), RingMistake.BUFFER_ADDRESS),
    "short header": (lambda driver: chain(driver, (BUFFER, 15, 0), STATUS), BlkMistake.HEADER),
    "no header": (lambda driver: chain(driver, STATUS), BlkMistake.HEADER),
    "no status": (lambda driver: chain(driver, HEAD), BlkMistake.STATUS),
}


@both_transports
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_breaks_the_device_until_it_is_reset(name, legacy):
    build, mistake = MISTAKES[name]
    driver = Driver(make_disk(), legacy=legacy)
    start = driver.device.scheduler.start
    build(driver)
    before = bytes(driver.ram)
    used = driver.peek16(driver.used_ring + 2)
    driver.notify()
    driver.device.scheduler.start = start
    assert driver.broken
    assert driver.irq.level
    assert driver.link.take_reasons() == 3
    assert mistake.text in driver.trace.guest_errors[-1]
    assert driver.peek16(driver.used_ring + 2) == used
    if mistake is not RingMistake.USED_INDEX:  # that one is found when its request is done
        assert driver.ram == before
    # Nothing is served any more, whatever the driver does but a reset.
    driver.notify()
    driver.set_status(0x0F)
    assert driver.broken
    assert len(driver.trace.guest_errors) == 1
    driver.device.queues[0].in_flight.clear()  # of the head that was kept in flight
    driver.init()
    assert driver.read(1, 1) == contents(driver.disk)[512:1024]


def test_what_came_before_a_mistake_is_done_and_told():
    driver = Driver(make_disk())
    good = [driver.start(IN, sector, length=512) for sector in range(3)]
    driver.offer(999)
    driver.notify()
    assert driver.broken
    assert driver.collect() == good


def test_an_indirect_descriptor_without_the_feature_is_a_mistake():
    driver = Driver(make_disk(), without=("INDIRECT_DESC",))
    driver.start(IN, 0, length=512, indirect=True)
    driver.kick()
    assert RingMistake.INDIRECT.text in driver.trace.guest_errors[-1]


def test_an_indirect_table_may_follow_direct_descriptors_and_be_larger_than_the_queue():
    driver = Driver(make_disk(), size=4)
    address = driver.alloc(4096)
    driver.poke(address, HEADER.pack(IN, 0, 2))
    table = driver.alloc(16 * 9)
    for index in range(9):
        following = 0 if index == 8 else NEXT
        length = 1 if index == 8 else 64
        driver.poke(
            table + 16 * index, DESCRIPTOR.pack(address + 64 * index + 64, length, WRITE | following, index + 1)
        )
    driver.descriptor(0, address, 16, NEXT, 1)
    driver.descriptor(1, table, 16 * 9, INDIRECT)
    driver.offer(0)
    driver.notify()
    assert not driver.broken
    assert driver.peek(address + 64, 512) == contents(driver.disk)[1024:1536]
    assert driver.peek(address + 64 + 512, 1) == b"\0"
    assert driver.take_used() == [(0, 513)]


@pytest.mark.parametrize("size", [0, 3, 512, 0x8000, 0xFFFF])
def test_a_queue_of_an_impossible_size_breaks_the_device(size):
    driver = Driver(make_disk(), init=False)
    driver.link.start_queue(size, RAM_BASE, RAM_BASE, RAM_BASE, 4096, 4096)
    assert driver.broken
    assert RingMistake.QUEUE_SIZE.text in driver.trace.guest_errors[-1]


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize(
    ("address", "mistake"),
    [
        (RAM_BASE + 1, RingMistake.RING_ALIGNMENT),
        (END - 16, RingMistake.RING_ADDRESS),
        (RAM_BASE - 16, RingMistake.RING_ADDRESS),
        (1 << 32 | RAM_BASE, RingMistake.RING_ADDRESS),
    ],
)
def test_a_ring_that_is_not_in_ram_or_not_aligned_breaks_the_device(part, address, mistake):
    driver = Driver(make_disk(), init=False)
    parts = [address if number == part else RAM_BASE for number in range(3)]
    driver.link.start_queue(256, *parts, 4096, 4096)
    assert driver.broken
    assert not driver.device.queues[0].ready
    assert mistake.text in driver.trace.guest_errors[-1]


def test_a_legacy_queue_outside_ram_breaks_the_device():
    driver = Driver(make_disk(), legacy=True, init=False)
    driver.link.start_queue(256, 0xFFFFFFFF << 12, 0, 0, 4096, 4096)
    assert driver.broken
    driver.init()
    assert driver.read(0, 1)


def test_a_lying_length_costs_nothing():
    # 250 pieces of 16 MiB each: 4 GB that the small disk never had, refused without mapping them.
    driver = Driver(make_disk(), ram_size=17 << 20)
    address = RAM_BASE + (64 << 10)
    driver.poke(address, HEADER.pack(OUT, 0, 0))
    pieces = [(address, 16 << 20)] * 250
    status = driver.alloc(1)
    driver.add([(address, 16), *pieces], [(status, 1)], indirect=False)
    driver.kick()
    assert driver.peek(status, 1) == b"\1"
    assert not driver.broken


def test_disk_data_that_lands_on_the_ring_cannot_keep_the_device_busy_for_ever(monkeypatch):
    # Every request reads a new available index over the old one: there is always one more to do.
    clock = VirtualClock()
    driver = Driver(make_disk(clock=clock), size=2, without=("EVENT_IDX",))
    address = driver.alloc(16)
    driver.poke(address, HEADER.pack(IN, 0, 0))
    count = 0

    async def read(offset, iov):
        nonlocal count
        count += 1
        iov[0][2:4] = (count + 1 & 0xFFFF).to_bytes(2, "little")

    monkeypatch.setattr(driver.disk, "_node_read", read)
    driver.descriptor(0, address, 16, NEXT, 1)
    driver.descriptor(1, driver.avail, 513, WRITE)
    driver.offer(0)
    driver.notify()
    assert count == 4
    driver.disk.scheduler.poll()
    assert count == 4
    for pieces in (2, 3, 4):
        clock.advance(1_000_000)
        driver.disk.scheduler.poll()
        assert count == 4 * pieces  # it goes on, a bounded piece at a time...
    driver.set_status(0)
    clock.advance(1_000_000)
    driver.disk.scheduler.poll()
    assert count == 16  # ... and a reset ends it


def test_random_rings_of_a_random_size_agree_with_a_plain_disk():
    chance = random.Random(5)
    for size in (4, 16, 256):
        driver = Driver(make_disk(), size=size)
        model = bytearray(contents(driver.disk))
        for _ in range(100):
            sector, count = chance.randrange(2000), chance.randrange(1, 9)
            if chance.random() < 0.5:
                data = chance.randbytes(512 * count)
                driver.write(sector, data)
                model[512 * sector : 512 * (sector + count)] = data
            assert driver.read(sector, count) == model[512 * sector : 512 * (sector + count)]


def test_a_device_works_over_two_banks_of_ram():
    driver = Driver(make_disk(), init=False)
    low, high = bytearray(4096), bytearray(4096)
    memory = RamMemory()
    memory.add_bank(0, memoryview(low))
    memory.add_bank(1 << 40, memoryview(high))
    assert memory.target(4000, 100) is None
    assert memory.target((1 << 40) + 4000, 96) is not None
    driver.controller.connect(memory, IrqLine())
    assert driver.status == 0
