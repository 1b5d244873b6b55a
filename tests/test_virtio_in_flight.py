"""Requests that end later: in any order, with a reset, a save or a closing notification in between."""

import hashlib
import json
import random
import time

import pytest

from e2kdisk.aio import Scheduler, ThreadEngine
from e2kdisk.aio.engine import read_fully
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from tests.virtio_driver import FLUSH, IN, IOERR, OK, OUT, Driver, contents, make_disk

SECTORS = 2048


class SlowThreadEngine(ThreadEngine):
    """Reads take a while, so that they surely are in flight."""

    async def read(self, fd, iov, offset):
        return await self.call(slow_read, fd, iov, offset)


def slow_read(fd, iov, offset):
    time.sleep(0.02)
    return read_fully(fd, iov, offset)


@pytest.fixture(scope="module", autouse=True, params=["mmio", "pci"])
def transport(request):
    """Every test of this file runs over every transport."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "transport", request.param)
        yield request.param


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(b"%015x," % sector * 32 for sector in range(SECTORS)))
    return path


@pytest.fixture
def opened():
    disks = []
    yield lambda path, engine: disks.append(open_disk(path, format="raw", engine=engine)) or disks[-1]
    for disk in disks:
        disk.scheduler.drain()
        disk.close()
        disk._engine is None or disk._engine.close()


def simulated(seed=0):
    chance = random.Random(seed)
    return SimulatedEngine(Scheduler(), lambda pending: chance.randrange(len(pending)))


def sector_bytes(sector):
    return b"%015x," % sector * 32


@pytest.mark.parametrize("without", [(), ("EVENT_IDX",)], ids=["event index", "flags"])
@pytest.mark.parametrize("seed", range(5))
def test_requests_that_end_in_any_order_are_each_used_once(image, opened, seed, without):
    driver = Driver(opened(image, simulated(seed)), without=without)
    chance = random.Random(seed)
    order = []
    for _ in range(10):
        requests = []
        for sector in chance.sample(range(0, SECTORS, 2), 40):
            write = chance.random() < 0.5
            data = sector_bytes(sector) if write else b""
            requests.append((sector, driver.start(OUT if write else IN, sector, data, 0 if write else 512)))
            if chance.random() < 0.3:
                driver.kick()
        driver.kick()
        started = [pending for _, pending in requests]
        while driver.in_flight:
            # KeyError in collect(): a head that comes back twice. The order is the engine's.
            order += [started.index(pending) for pending in driver.collect()]
            assert driver.disk.scheduler.wait(1) or not driver.in_flight
        for sector, pending in requests:
            result = driver.result(pending)
            assert result.status == OK
            assert result.data == sector_bytes(sector)[: pending.data_length]
    assert order != sorted(order)


@pytest.mark.parametrize("without", [(), ("EVENT_IDX",)], ids=["event index", "flags"])
@pytest.mark.parametrize("seed", range(5))
def test_a_driver_that_sleeps_until_its_interrupt_never_misses_the_last_one(image, opened, seed, without):
    driver = Driver(opened(image, simulated(seed)), without=without)
    chance = random.Random(seed)
    for _ in range(40):
        count = chance.randrange(1, 20)
        for sector in range(count):
            driver.start(IN, sector, length=512)
        driver.kick()
        while driver.in_flight:
            # Ask for an interrupt only when some more are done, check once more, then sleep.
            if driver.event_idx:
                more = chance.randrange(len(driver.in_flight))
                driver.poke16(driver.avail + 4 + 2 * driver.size, driver.seen_used + more)
                slept = len(driver.in_flight) - more
            while not driver.irq.level:
                assert driver.disk.scheduler.wait(1), "asleep for ever"
            driver.collect()
            if driver.event_idx:
                assert len(driver.in_flight) < slept


def ram_hash(driver):
    return hashlib.sha256(driver.ram).hexdigest()


@pytest.mark.parametrize(
    "reset",
    [
        lambda driver: driver.set_status(0),
        lambda driver: driver.controller.reset(),
        lambda driver: driver.link.stop_queue(),
    ],
    ids=["Status", "the board's line", "the queue's register"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
@pytest.mark.parametrize(
    "make_engine", [lambda: SlowThreadEngine(Scheduler()), simulated], ids=["threads", "simulated"]
)
def test_nothing_is_written_to_memory_after_a_reset(image, opened, make_engine, legacy, reset):
    disk = opened(image, make_engine())
    driver = Driver(disk, legacy=legacy)
    for sector in range(24):
        driver.start(IN, sector, length=512)
    driver.kick()
    assert len(driver.device.queues[0].in_flight) == 24
    reset(driver)
    assert not driver.device.queues[0].in_flight
    after = ram_hash(driver)
    assert driver.peek16(driver.used_ring + 2) == 0
    assert driver.interrupts == 0
    time.sleep(0.05)
    while disk.scheduler.wait(0.01):
        pass
    assert ram_hash(driver) == after
    assert driver.interrupts == 0
    driver.link.power_on()
    driver.init()
    assert driver.read(5, 1) == sector_bytes(5)


def test_a_write_in_flight_at_a_reset_is_not_lost(image, opened):
    driver = Driver(opened(image, simulated()))
    driver.start(OUT, 9, b"w" * 512)
    driver.kick()
    driver.set_status(0)
    driver.init()
    assert driver.read(9, 1) == b"w" * 512


def test_a_broken_device_says_no_more_even_when_earlier_requests_end(image, opened):
    driver = Driver(opened(image, simulated()))
    driver.start(IN, 1, length=512)
    driver.kick()
    driver.offer(999)
    driver.notify()
    assert driver.broken
    while driver.disk.scheduler.wait(0.01):
        pass
    assert not driver.collect()
    driver.init()
    assert driver.read(1, 1) == sector_bytes(1)


def test_a_head_that_is_in_flight_cannot_be_offered_again(image, opened):
    driver = Driver(opened(image, simulated()))
    pending = driver.start(IN, 1, length=512)
    driver.kick()
    for _ in range(1000):
        driver.offer(pending.head)
        driver.notify()
    assert driver.broken
    assert "available again" in driver.trace.guest_errors[0]
    assert len(driver.trace.guest_errors) == 1


def test_an_error_that_comes_later_is_an_i_o_error(image, opened):
    engine = simulated()
    driver = Driver(opened(image, engine))

    def fail(*args):
        raise OSError(5, "Input/output error")

    pending = driver.start(IN, 1, length=512)
    driver.kick()
    engine.pending[0].function = fail
    driver.wait(pending)
    assert driver.result(pending).status == IOERR


def test_a_resize_while_a_request_is_in_flight_shows_both_reasons():
    driver = Driver(make_disk())
    driver.disk.resize(1 << 21)
    driver.start(FLUSH)
    driver.kick()
    assert driver.link.take_reasons() == 3


# -- save and load ----------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
def test_a_device_goes_on_after_save_and_load_as_if_nothing_had_happened(legacy):
    straight, moved = (Driver(make_disk(), legacy=legacy, page_size=512) for _ in range(2))
    for step in range(12):
        for driver in (straight, moved):
            driver.start(OUT, step, b"%d" % step * 512)
            driver.kick()
            driver.start(IN, step, length=512)  # available, not yet notified: stays so over the save
        state = moved.controller.save()
        state = json.loads(json.dumps(state))  # plain data
        twin = Driver(moved.disk, legacy=legacy, init=False)
        twin.memory, twin.ram = moved.memory, moved.ram
        twin.controller.connect(moved.memory, moved.irq)
        twin.controller.load(state)
        assert twin.controller.save() == state
        moved.controller, moved.device, moved.link = twin.controller, twin.device, twin.link
        moved.controller.trace = moved.trace
        assert moved.irq.level == straight.irq.level
        for driver in (straight, moved):
            driver.kick()
            driver.collect()
    assert moved.ram == straight.ram
    assert contents(moved.disk) == contents(straight.disk)
    assert moved.trace == straight.trace
    assert moved.interrupts == straight.interrupts


def test_a_broken_device_is_broken_after_load():
    driver = Driver(make_disk())
    driver.offer(999)
    driver.notify()
    twin = Driver(make_disk(), init=False)
    twin.controller.load(driver.controller.save())
    assert twin.broken
    assert twin.irq.level


def test_the_chosen_cache_mode_is_part_of_the_state():
    driver = Driver(make_disk())
    driver.link.set_config(32, 1, 0)
    twin = Driver(make_disk(), init=False)
    twin.controller.load(driver.controller.save())
    assert not twin.disk.write_cache
    assert twin.config(32, 1) == 0


def test_a_save_with_requests_in_flight_is_refused(image, opened):
    driver = Driver(opened(image, simulated()))
    pending = driver.start(IN, 0, length=512)
    driver.kick()
    with pytest.raises(RuntimeError, match="in flight"):
        driver.controller.save()
    driver.wait(pending)
    driver.controller.save()


def test_state_of_another_kind_is_refused(transport):
    state = Driver(make_disk()).controller.save()
    with pytest.raises(ValueError, match="another transport"):
        Driver(make_disk(), legacy=True, transport="pci" if transport == "mmio" else "mmio").controller.load(state)
    state["device"]["version"] = 99
    with pytest.raises(ValueError, match="version 99"):
        Driver(make_disk()).controller.load(state)
