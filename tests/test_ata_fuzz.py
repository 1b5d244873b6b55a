"""A host that does anything at all: no exception, no byte outside its RAM, a drive that a reset heals."""

import random
from struct import pack

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from e2kdisk.devices.ata import AtaDevice, Kind
from e2kdisk.devices.ata.commands import COMMANDS
from e2kdisk.devices.memory import RamMemory
from tests.ata_driver import BUS_MASTER_PORT, IDE_DEVFN, SRST, Ide, Pc, make_disk, pattern, prd

GUARD = 1 << 17
"""More than a PRD can describe."""
RAM_SIZE = 1 << 15
SECTORS = 64
OPCODES = tuple({command.name: opcode for opcode, command in COMMANDS.items()}.values())
"""One for each command, however many it has."""

PORTS = (*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), 0x376, *range(BUS_MASTER_PORT, BUS_MASTER_PORT + 16))


class HostileHost:
    """Chooses what to do next by chance; most of it is nearly right, which reaches deepest."""

    def __init__(self, seed, disks, chip="piix3"):
        self.chance = random.Random(seed)
        self.pc = pc = Pc(*disks, chip=chip, ram_size=0)
        self.buffer = bytearray(b"\xa5" * GUARD + bytes(RAM_SIZE) + b"\xa5" * GUARD)
        self.ram = memoryview(self.buffer)[GUARD : GUARD + RAM_SIZE]
        pc.ram = self.ram
        # The RAM begins above zero: wild addresses are below it, too.
        self.base = 0x2_0000
        pc.memory = RamMemory()
        pc.memory.add_bank(self.base, self.ram)
        pc.ide.connect(pc.memory, pc.intx)
        self.ide = Ide(pc)
        self.accesses = 0
        self.values = (0, 1, 2, 4, 8, 0x10, 0x40, 0xE0, 0xF0, 0xFF, 0xA0, 0xB0, 0xC2, 0x4F)

    def out(self, port, size, value):
        self.accesses += 1
        self.pc.bus.io.write(port, size, value)

    def take(self, port, size):
        self.accesses += 1
        value = self.pc.bus.io.read(port, size)
        assert 0 <= value < 1 << 8 * size
        return value

    def poke_table(self):
        chance = self.chance
        near = (self.base, self.base + 0x1000, self.base + RAM_SIZE - 512, self.base + RAM_SIZE - 4, 0, 0xFFFF_FE00)
        table = b"".join(
            prd(chance.choice(near[:2] if chance.random() < 0.9 else near), chance.choice((512, 512, 1024, 2, 0, 100)))
            for _ in range(chance.randrange(4))
        )
        table += prd(self.base + 0x2000, chance.choice((512, 4096, 0x6000)), last=chance.random() < 0.95)
        at = chance.choice((0x4000, 0x4000, RAM_SIZE - 8))
        self.ram[at : at + len(table)] = table[: RAM_SIZE - at]
        self.out(self.master + 4, 4, self.base + at if chance.random() < 0.98 else chance.choice(near))

    def command(self):
        """A task file that may be right."""
        chance, base = self.chance, self.block
        self.out(base + 6, 1, chance.choice((0xE0, 0xE0, 0xF0, 0xF0, 0xA0)))
        opcode = chance.choice(OPCODES) if chance.random() < 0.95 else chance.randrange(256)
        if chance.random() < 0.9:
            for register in range(1, 6):  # what a wide command takes from the bytes before
                self.out(base + register, 1, 0)
        smart = opcode == 0xB0 and chance.random() < 0.9
        counts = (0, 0x0C, 0x22, 0x45) if opcode == 0xEF or chance.random() < 0.01 else (1, 1, 1, 2, 3, 4)
        self.out(base + 1, 1, chance.choice((1, 2, 3, 0x82, 0xD0, 0xD5, 0xDA, chance.randrange(256))))
        self.out(base + 2, 1, chance.choice(counts))
        self.out(base + 3, 1, chance.randrange(SECTORS + 4))
        self.out(base + 4, 1, 0x4F if smart else 0)
        self.out(base + 5, 1, 0xC2 if smart else 0)
        self.out(base + 7, 1, opcode)

    def data(self):
        chance = self.chance
        size = chance.choice((2, 2, 2, 4, 4, 1))
        access = self.take if chance.random() < 0.5 else lambda port, size: self.out(port, size, 0x1234_5678)
        for _ in range(chance.choice((1, 3, 256 // size * 2, 512 // size, 512))):
            access(self.block, size)

    def go_on(self):
        """What a driver would do next: move the data that is asked for, by PIO or by DMA."""
        chance, block = self.chance, self.block
        access = chance.choice((self.take, lambda port, size: self.out(port, size, 0x5678)))
        for _ in range(chance.choice((1, 2, 8))):
            if self.take(block + 0x206, 1) & 0x88 != 0x08:
                return
            for _ in range(256):
                access(block, 2)
        self.poke_table()
        self.bus_master()

    def wild(self):
        chance = self.chance
        port, size = chance.choice(PORTS), chance.choice((1, 1, 1, 2, 4))
        if chance.random() < 0.5:
            self.take(port, size)
        else:
            value = chance.choice(self.values) if chance.random() < 0.7 else chance.randrange(1 << 32)
            if port not in (0x3F6, 0x376) or chance.random() < 0.2:
                self.out(port, size, value & (1 << 8 * size) - 1)
        self.pc.ide.register_name(chance.randrange(256))

    def config(self):
        chance = self.chance
        offset = chance.choice((0x04, 0x04, 0x08, 0x10, 0x20, 0x40, 0x44, 0x4C, chance.randrange(256)))
        self.out(0xCF8, 4, 0x8000_0000 | IDE_DEVFN << 8 | offset & 0xFC)
        self.out(0xCFC + (offset & 3), chance.choice((1, 2, 4)), chance.choice((0, 1, 5, 7, 0x8F00, 0x40, 0xFFFF)))
        self.take(0xCFC, 4)
        if chance.random() < 0.9:
            self.setup()

    def setup(self):
        for offset, value in ((0x20, BUS_MASTER_PORT | 1), (0x08, 0x8A00), (0x04, 5), (0x40, 0)):
            self.ide.config_write(offset, value)

    def bus_master(self):
        chance = self.chance
        self.out(self.master + 2, 1, chance.choice((6, 0x66, 0)))
        self.out(self.master, 1, chance.choice((0, 1, 8, 9, 9, 9)))
        self.take(self.master + 2, 1)

    def control(self):
        self.out(self.block + 0x206, 1, self.chance.choice((0, 0, 2, 4, 0x80, 0x84)))
        if self.chance.random() < 0.9:
            self.out(self.block + 0x206, 1, 0)

    STEPS = (
        (30, command),
        (40, go_on),
        (5, data),
        (10, poke_table),
        (15, bus_master),
        (15, wild),
        (4, control),
        (1, config),
    )

    def run(self, accesses):
        steps = [step for weight, step in self.STEPS for _ in range(weight)]
        choice = self.chance.choice
        while self.accesses < accesses:
            second = self.chance.random() < 0.3
            self.block, self.master = (0x170, BUS_MASTER_PORT + 8) if second else (0x1F0, BUS_MASTER_PORT)
            choice(steps)(self)
        self.check()

    def check(self):
        assert self.buffer.count(b"\xa5", 0, GUARD) == GUARD
        assert self.buffer.count(b"\xa5", GUARD + RAM_SIZE) == GUARD

    def heal(self):
        """After the worst host, a good one: reset, and the disk answers."""
        self.setup()
        self.ide.stop()
        self.ide.set_control(SRST)
        self.ide.set_control(0)
        self.ide.select(0)
        assert len(self.ide.pio_in(0x20, 0, 2)) == 1024
        self.ide.set_table(pack("<II", self.base, 1 << 31 | 512), 0)
        self.pc.outl(BUS_MASTER_PORT + 4, self.base + 0x4000)
        self.ram[0x4000:0x4008] = prd(self.base, 512, last=True)
        self.ide.command(0xC8, 3, 1)
        self.ide.start()
        self.ide.settle()
        assert self.ide.status == 0x50
        self.check()


def drives():
    """A disk and a card on one channel, a disk that cannot be written on the other."""
    first = make_disk(SECTORS)
    card = AtaDevice(make_disk(SECTORS, scheduler=first.scheduler), kind=Kind.CFA)
    return first, card, None, make_disk(SECTORS, scheduler=first.scheduler, read_only=True)


def reached(trace):
    """Commands that succeeded and commands that failed."""
    requests = [(fields["type"], fields["status"] == 0) for fields in trace.requests]
    return {name for name, good in requests if good}, {name for name, good in requests if not good}


@pytest.mark.parametrize("chip", ["piix3", "mcst"])
@pytest.mark.parametrize("seed", range(2))
def test_a_host_can_do_what_it_likes(seed, chip):
    host = HostileHost(seed, drives(), chip)
    host.run(100_000)
    # The search is worth its name: it reaches most commands in both ways, and most mistakes.
    good, bad = reached(host.pc.trace)
    assert len(good) > 33, sorted(good)
    assert len(bad) > 15, sorted(bad)
    assert len({what.split(":")[0].split(" (")[0] for what in host.pc.trace.guest_errors}) >= 7
    host.heal()


@pytest.mark.parametrize("seed", range(3))
def test_a_host_can_do_what_it_likes_while_requests_are_in_flight(tmp_path, seed):
    chance = random.Random(seed)
    engine = SimulatedEngine(Scheduler(), lambda pending: chance.randrange(len(pending)))
    disks = []
    for number in (0, 1):
        path = tmp_path / f"{number}.raw"
        path.write_bytes(pattern(SECTORS))
        disks.append(open_disk(path, format="raw", engine=engine))
    host = HostileHost(seed, disks)
    for accesses in range(0, 30_000, 30):
        host.run(accesses)
        if chance.random() < 0.5:
            engine.advance()
            engine.scheduler.poll()
    host.heal()
    engine.scheduler.drain()
    for disk in disks:
        disk.close()
        assert disk.size == SECTORS * 512


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 104))
def test_a_host_can_do_what_it_likes_a_million_times(seed):
    host = HostileHost(seed, drives(), ("piix3", "mcst")[seed & 1])
    host.pc.ide.trace = None
    host.run(1_000_000)
    host.heal()


def test_the_same_host_does_the_same_again():
    found = []
    for _ in range(2):
        host = HostileHost(7, drives())
        host.run(20_000)
        found.append((host.pc.trace, bytes(host.ram)))
    assert found[0] == found[1]
