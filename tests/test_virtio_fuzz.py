"""A guest that does anything at all: no exception, no byte outside its RAM, a device that a reset heals."""

import random
from typing import ClassVar

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from e2kdisk.devices.virtio.queue import INDIRECT, NEXT, WRITE
from tests.virtio_driver import (
    DESCRIPTOR,
    DISCARD,
    FLUSH,
    GET_ID,
    HEADER,
    IN,
    OUT,
    RAM_BASE,
    WRITE_ZEROES,
    Driver,
    make_disk,
)

GUARD = 1 << 16
RAM_SIZE = 1 << 16
KINDS = (IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 2, 99)


REACHED = {("IN", 0), ("IN", 1), ("OUT", 0), ("OUT", 1), ("FLUSH", 0), ("GET_ID", 0), ("DISCARD", 2), ("0x63", 2)}


class HostileDriver(Driver):
    """Chooses what to do next by chance; most of it is nearly right, which reaches deepest."""

    def __init__(self, disk, seed, legacy):
        self.chance = random.Random(seed)
        super().__init__(disk, legacy=legacy, ram_size=RAM_SIZE, queue_size=16, page_size=512)
        # The guest's RAM lies between guards in one buffer: a write outside shows.
        self.buffer = bytearray(b"\xa5" * GUARD + bytes(RAM_SIZE) + b"\xa5" * GUARD)
        self.ram = memoryview(self.buffer)[GUARD : GUARD + RAM_SIZE]
        self.memory = type(self.memory)()
        self.memory.add_bank(RAM_BASE, self.ram)
        self.controller.connect(self.memory, self.irq)
        self.init()

    def number(self):
        """A number that is often a border of something."""
        chance = self.chance
        return chance.choice(
            (0, 1, 2, 15, 16, 255, 256, 512, 0xFFFF, 0x10000, 0xFFFFFFFF, chance.randrange(1 << 32), self.address())
        )

    def address(self):
        chance = self.chance
        near = chance.choice((self.desc, self.avail, self.used_ring, self._arena, RAM_BASE, RAM_BASE + RAM_SIZE))
        return max(0, near + chance.choice((0, 0, 0, -1, 1, 16, -16, chance.randrange(-600, 4000))))

    def access(self):
        """One register access of any width anywhere."""
        chance = self.chance
        registers = [register.offset for register in self.mmio.registers]
        offset = chance.choice((*registers, chance.randrange(0x200), 0x100 + chance.randrange(64)))
        size = chance.choice((4, 4, 4, 4, 1, 2, 8))
        if chance.random() < 0.5:
            value = self.mmio.read(offset, size)
            assert 0 <= value < 1 << 8 * size
            assert isinstance(self.mmio.register_name(offset), str)
        elif offset != 0x070 or chance.random() < 0.1:  # a reset now and then
            self.mmio.write(offset, size, self.number() & (1 << 8 * size) - 1)

    def request(self):
        """A chain that may be right, cut anywhere."""
        chance = self.chance
        address = self._arena + chance.randrange(2000)
        header = HEADER.pack(chance.choice(KINDS), 0, chance.choice((0, 1, 5, 1 << 60, chance.randrange(64))))
        self.safe_poke(address, header)
        if chance.random() < 0.7:  # header, data, status
            data = [chance.choice((512, 512, 1024, 16, 20)) for _ in range(chance.randrange(4))]
            lengths, writable_from = [16, *data, 1], chance.choice((1, 1 + len(data)))
        else:
            lengths = [chance.choice((1, 16, 512, chance.randrange(2000))) for _ in range(chance.randrange(1, 6))]
            writable_from = chance.randrange(len(lengths) + 1)
        indirect = chance.random() < 0.3
        table = self._arena + 24000 if indirect else self.desc
        entries, base = (len(lengths), 0) if indirect else (16, chance.randrange(16))
        for index, length in enumerate(lengths):
            flags = (WRITE if index >= writable_from else 0) | (NEXT if index < len(lengths) - 1 else 0)
            if chance.random() < 0.01:
                flags ^= chance.choice((WRITE, NEXT, INDIRECT))
            where = address if index == 0 else self._arena + chance.randrange(20000)
            if chance.random() < 0.01:
                where = self.address()
            following = (base + index + 1) % entries if chance.random() < 0.99 else self.number() & 0xFFFF
            place = table + 16 * ((base + index) % entries)
            self.safe_poke(place, DESCRIPTOR.pack(where, length, flags, following))
        if indirect:
            base = chance.randrange(16)
            size = 16 * entries if chance.random() < 0.97 else self.number() & 0xFFFFFFFF
            self.descriptor(base, table, size, INDIRECT)
        self.offer(base)

    def safe_poke(self, address, data):
        start = address - RAM_BASE
        if start >= 0 and start + len(data) <= RAM_SIZE:
            self.poke(address, data)

    def step(self):
        chance = self.chance
        what = chance.random()
        usable = self.device.queues[0].ready and self.status & 0xCF == (7 if self.legacy else 15)
        if not usable and chance.random() < 0.3:
            self.link.power_on()
            self.init()
        elif what < 0.20:
            self.access()
        elif what < 0.85:
            self.request()
            self.notify()
        elif what < 0.90:
            self.safe_poke(self.address(), chance.randbytes(chance.choice((1, 2, 4, 16))))
        else:
            self.notify(chance.choice((0, 0, 0, self.number() & 0xFFFF)))

    def check(self):
        assert self.buffer.count(b"\xa5", 0, GUARD) == GUARD
        assert self.buffer.count(b"\xa5", GUARD + RAM_SIZE) == GUARD
        assert len(self.device.queues[0].in_flight) <= self.device.queues[0].size_max


class HostilePciDriver(HostileDriver):
    """The same over PCI: it also turns the function off, moves its regions, and masks its messages."""

    transport = "pci"
    PLACES: ClassVar = {
        0: range(0x40),
        1: (*range(0x40), 0x800, 0x801),
        4: (*range(0x40), 0x1000, *range(0x2000, 0x2040), 0x3000),
    }
    """Where there is something in each region."""

    def access(self):
        """One access of any width to configuration space or a region."""
        chance, function = self.chance, self.link.function
        size = chance.choice((1, 2, 4, 8))
        value = self.number() & (1 << 8 * size) - 1
        if chance.random() < 0.3:
            at = chance.choice([at for _, at in function.capabilities()]) if chance.random() < 0.5 else 0
            offset = (at + chance.randrange(24)) & 0xFF
            if chance.random() < 0.6:
                assert 0 <= function.get(offset, size) < 1 << 8 * size
                assert isinstance(self.controller.register_name(offset), str)
            else:
                function.set(offset, value, size)
            return
        bar = chance.choice(self.controller.bars)
        region = bar.registers
        places = {
            0: range(0x40),
            1: (*range(0x40), 0x800, 0x801),
            4: (*range(0x40), 0x1000, *range(0x2000, 0x2040), 0x3000),
        }
        offset = chance.choice(places[bar.index]) if chance.random() < 0.9 else chance.randrange(bar.size)
        assert isinstance(region.register_name(offset), str)
        if chance.random() < 0.5:
            assert 0 <= region.read(offset, size) < 1 << 8 * size
        elif (bar.index, offset) not in ((0, 0x12), (4, 0x14)) or chance.random() < 0.1:
            region.write(offset, size, value)


HOSTILE = {"mmio": HostileDriver, "pci": HostilePciDriver}
over_every_transport = pytest.mark.parametrize("transport", HOSTILE)


def run(driver, steps):
    for _ in range(steps):
        driver.step()
    driver.check()
    driver.link.power_on()
    driver.init()
    assert len(driver.read(0, 1)) == 512


@pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
@pytest.mark.parametrize("seed", range(2))
@over_every_transport
def test_a_guest_can_do_what_it_likes(transport, seed, legacy):
    disk = make_disk(64 * 512)
    driver = HOSTILE[transport](disk, seed, legacy)
    run(driver, 12_000)
    assert disk.size == 64 * 512
    # The search is worth its name: every command succeeds and fails, and most mistakes of the ring are met.
    assert {(fields["type"], fields["status"]) for fields in driver.trace.requests} >= REACHED
    assert len({what.split(" (")[0].split(":")[0] for what in driver.trace.guest_errors}) > 15


@pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])
@pytest.mark.parametrize("seed", range(2))
@over_every_transport
def test_a_guest_can_do_what_it_likes_while_requests_are_in_flight(tmp_path, transport, seed, legacy):
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(64 * 512))
    chance = random.Random(seed)
    engine = SimulatedEngine(Scheduler(), lambda pending: chance.randrange(len(pending)))
    with open_disk(path, format="raw", engine=engine) as disk:
        driver = HOSTILE[transport](disk, seed, legacy)
        for _ in range(2500):
            driver.step()
            if chance.random() < 0.5:
                engine.advance()
                disk.scheduler.poll()
        run(driver, 100)
        driver.set_status(0)
    assert path.stat().st_size == 64 * 512


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
@pytest.mark.parametrize(("transport", "steps"), [("mmio", 100_000), ("pci", 40_000)])
def test_a_guest_can_do_what_it_likes_for_long(transport, steps, seed):
    run(HOSTILE[transport](make_disk(64 * 512), seed, legacy=bool(seed & 1)), steps)


@over_every_transport
def test_the_same_guest_does_the_same_again(transport):
    traces = []
    for _ in range(2):
        driver = HOSTILE[transport](make_disk(64 * 512), 7, legacy=False)
        run(driver, 3000)
        traces.append((driver.trace, bytes(driver.ram)))
    assert traces[0] == traces[1]
