"""The same driver on QEMU's virtio-blk-pci and on ours, over the same image: same layout, answers and interrupts."""

import random
import shutil

import pytest

from e2kdisk.block.open import open_disk
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.virtio import VirtioBlk, VirtioPci
from e2kdisk.devices.virtio.features import mask
from tests.oracles import assert_clean, qemu_img
from tests.qtest_client import Qtest
from tests.virtio_driver import DISCARD, FLUSH, GET_ID, IN, OK, OUT, RAM_BASE, WRITE_ZEROES, Driver, Events, ranges
from tests.virtio_links import MsixLink, OurHost, PciFunctionLink, PciLegacyLink, PciModernLink, QtestHost

pytestmark = [pytest.mark.needs("qemu-system-x86"), pytest.mark.needs("qemu-utils")]

SLOT = 3 << 3
SERIAL = "E2K-0001"
COMMON = mask("SEG_MAX", "BLK_SIZE", "FLUSH", "DISCARD", "WRITE_ZEROES", "INDIRECT_DESC", "EVENT_IDX")
COMMON |= mask("ANY_LAYOUT", "VERSION_1", "RING_RESET")
"""Features that both offer, each to the drivers that it is for."""
MESSAGES_AT = RAM_BASE + (768 << 10)
"""Where MSI-X messages are written: they are stores, and RAM takes them as well as an interrupt controller."""

generations = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])


@pytest.fixture
def images(make_image, qemu_io):
    first = make_image("8M", name="qemu.qcow2")
    qemu_io(first, "write -P 0x11 0 64k", "write -P 0x22 64k 1M", "write -P 0x33 4M 3000k")
    return first, shutil.copy(first, first.with_name("ours.qcow2"))


class QemuDriver(Driver):
    """The driver of the other tests with QEMU in the place of our device."""

    def __init__(self, image, *, legacy, kind="disable-legacy=off,disable-modern=off"):
        blk = f"virtio-blk-pci,drive=d,addr=3.0,num-queues=1,queue-size=256,vectors=2,serial={SERIAL},{kind}"
        drive = f"id=d,if=none,file={image},format=qcow2,discard=unmap"
        self.qemu = Qtest("pc", "-m", "1040M", "-drive", drive, "-device", blk)
        self.host = QtestHost(self.qemu)
        self.host.config_write(1 << 3, 0x60, 4, 0x0B0A_0B0A)  # PIRQ routing of the south bridge: INTA to INTD
        self.qemu.intercept("ioapic")
        self._start(legacy)

    def _start(self, legacy):
        self.controller, self.legacy, self.trace = None, legacy, Events()
        self.link = (PciLegacyLink if legacy else PciModernLink)(self.host, SLOT)
        self._page_size = self._align = 4096
        self.ram_size = 1 << 20
        self._size, self._refused, self._accept = None, 0, COMMON

    def poke(self, address, data):
        self.qemu.write(address, data)

    def peek(self, address, length):
        return self.qemu.read(address, length)

    def wait_used(self):
        self.qemu.wait(lambda: self.peek16(self.used_ring + 2) != self.seen_used)

    def line(self):
        """Whether the function's wire is high."""
        self.qemu.inb(0x80)  # changes come before the answer to the next command
        return any(self.qemu.irq.get(wire, False) for wire in (10, 11))

    def close(self):
        self.qemu.close()


class OurDriver(QemuDriver):
    def __init__(self, image, *, legacy, kind=""):
        self.disk = open_disk(image)
        self.disk.serial = SERIAL
        self.ram = bytearray(1 << 20)
        self.memory = RamMemory()
        self.memory.add_bank(RAM_BASE, memoryview(self.ram))
        self.host = OurHost()
        self.irq = IrqLine()
        controller = VirtioPci(VirtioBlk(self.disk), transitional="disable-legacy=on" not in kind)
        controller.connect(self.memory, self.irq)
        self.host.bus.add(SLOT, controller)
        self.host.bus.on_message = lambda address, data: self.poke(address, data.to_bytes(4, "little"))
        self._start(legacy)
        self.controller = controller

    poke = Driver.poke
    peek = Driver.peek

    def wait_used(self):
        while self.peek16(self.used_ring + 2) == self.seen_used:
            assert self.disk.scheduler.wait(10)

    def line(self):
        return self.irq.level

    def close(self):
        self.controller.reset()
        self.disk.close()


def both(images, script, **options):
    """What a script returns on each; they must be the same."""
    answers = []
    for kind, image in zip((QemuDriver, OurDriver), images, strict=True):
        driver = kind(image, **options)
        try:
            answers.append(script(driver))
        finally:
            driver.close()
    assert answers[1] == answers[0]
    return answers[1]


def request(driver, log, kind, sector=0, data=b"", length=0, **layout):
    """One request; what the driver sees of it in every place where it can look."""
    pending = driver.start(kind, sector, data, length, **layout)
    driver.kick()
    driver.wait_used()
    status = driver.link.function.get(6, 2) & 8
    seen = [driver.line(), bool(status), driver.link.take_reasons(), driver.line(), driver.link.take_reasons()]
    driver.collect()
    result = driver.result(pending)
    data = result.data if kind != GET_ID else result.data.partition(b"\0")[0]  # QEMU leaves the rest as it was
    # Of a request that failed QEMU says that it wrote all of the buffers; ours says what it wrote.
    log.append((kind, sector, result.status, data, result.used_length if result.status == OK else None, seen))


REQUESTS = [
    (IN, 0, b"", 4096),
    (IN, 127, b"", 1024),
    (IN, 8192, b"", 64 << 10),
    (OUT, 100, b"\x5a" * 70_000 + bytes(168), 0),
    (IN, 99, b"", 70_656),
    (OUT, 16383, b"last sector." * 42 + b"12345678", 0),
    (OUT, 16384, bytes(512), 0),
    (IN, 16383, b"", 1024),
    (IN, 0, b"", 100),
    (FLUSH, 0, b"", 0),
    (GET_ID, 0, b"", 20),
    (DISCARD, 0, ranges((8192, 256, 0)), 0),
    (WRITE_ZEROES, 0, ranges((2, 100, 0)), 0),
    (IN, 0, b"", 64 << 10),
    (99, 0, b"", 0),
]


@generations
def test_requests_and_the_pin_answer_the_same(images, legacy):
    def script(driver):
        driver.init()
        log = [driver.features]
        for number, what in enumerate(REQUESTS):
            request(driver, log, *what, indirect=bool(number & 1))
        assert log[1][5] == [True, True, 1, False, 0]
        driver.link.function.set(4, 0x407, 2)  # the pin disabled: the status bit alone
        request(driver, log, IN, 5, b"", 512)
        assert log[-1][5] == [False, True, 1, False, 0]
        return log

    both(images, script, legacy=legacy)
    qemu_img("compare", *map(str, images))
    for image in images:
        assert_clean(image)


@generations
def test_messages_masks_and_pending_bits_answer_the_same(images, legacy):
    def script(driver):
        link, log = driver.link, []
        msix = MsixLink(link.function)

        def messages():
            found = [int.from_bytes(driver.peek(MESSAGES_AT + 4 * vector, 4), "little") for vector in (0, 1)]
            driver.poke(MESSAGES_AT, bytes(8))
            return found

        def step(*more):
            request(driver, log, IN, 1, b"", 512)
            log.append((messages(), msix.pending(), *more))

        driver.poke(MESSAGES_AT, bytes(8))
        for vector in (0, 1):
            msix.set_vector(vector, MESSAGES_AT + 4 * vector, 0xC0DE00 + vector)
        msix.control(enable=True)
        link.vectors = (0, 1)
        driver.init()
        step()
        assert log[-1] == ([0, 0xC0DE01], 0) and log[0][5][0] is False
        msix.mask(1, True)
        step()
        step()
        assert log[-1] == ([0, 0], 2)
        msix.mask(1, False)
        log.append((messages(), msix.pending()))
        assert log[-1] == ([0, 0xC0DE01], 0)
        msix.control(enable=True, mask=True)
        step()
        msix.control(enable=True)
        log.append((messages(), msix.pending()))
        if not legacy:  # QEMU does not tell legacy drivers of their mistakes
            driver.offer(999)
            driver.notify()
            log.append((messages(), driver.broken, link.take_reasons()))
            assert log[-1] == ([0xC0DE00, 0], True, 3)
        # Vectors that are not there, or not used.
        link.vectors = (7, 0xFFFF)
        driver.init()
        if not legacy:
            log.append([link.get(1, offset, 2) for offset in (0x10, 0x1A)])
            assert log[-1] == [0xFFFF, 0xFFFF]
        else:
            log.append([link.get(offset, 2) for offset in (0x14, 0x16)])
        step()
        assert log[-1] == ([0, 0], 0)
        # Switched off, the pin is there again.
        msix.control(enable=False)
        link.take_reasons()
        driver.init()
        step()
        return log

    both(images, script, legacy=legacy)


def test_registers_read_back_the_same_in_every_state(images):
    def script(driver):
        link, log = driver.link, []

        def look(*skip):
            registers = [(at, size) for at, size in REGISTERS if at not in skip]
            log.append({hex(at): link.get(1, at, size) for at, size in registers})

        look(0x04)  # what is offered differs
        driver.init()
        look(0x04, 0x15)
        link.set(1, 0x16, 2, 5)  # no such queue
        look(0x04, 0x15)
        link.set(1, 0x18, 2, 16)
        look(0x04, 0x15)
        link.set(1, 0x16, 2, 0)
        request(driver, log, IN, 9, b"", 512)
        link.stop_queue()
        look(0x04, 0x15, *range(0x20, 0x38, 4))  # QEMU still shows the old addresses
        driver.init()
        request(driver, log, IN, 9, b"", 512)
        driver.set_status(0)
        look(0x00, 0x04, 0x08, 0x0C, 0x15)  # QEMU keeps the selectors
        return log

    both(images, script, legacy=False)


REGISTERS = [
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0C, 4),
    (0x10, 2),
    (0x12, 2),
    (0x14, 1),
    (0x15, 1),
    (0x16, 2),
    (0x18, 2),
]
REGISTERS += [(0x1A, 2), (0x1C, 2), (0x1E, 2), *((at, 4) for at in range(0x20, 0x38, 4)), (0x3A, 2)]


def test_the_access_window_reaches_the_same_registers(images):
    def script(driver):
        function = driver.link.function
        window = next(at for kind, at in function.capabilities() if kind == 9 and function.get(at + 3, 1) == 5)
        bar, start, _ = driver.link.structures[1]

        def reach(offset, length, value=None):
            function.set(window + 4, bar, 1)
            function.set(window + 8, start + offset)
            function.set(window + 12, length)
            if value is None:
                return function.get(window + 16) & (1 << 8 * length) - 1
            function.set(window + 16, value)
            return None

        log = [reach(0x12, 2), reach(0x18, 2), reach(0x14, 1)]
        reach(0x14, 1, 1)
        log += [reach(0x14, 1), driver.status]
        reach(0x00, 4, 1)
        log += [reach(0x00, 4), reach(0x04, 4) & 1, driver.link.get(1, 0x00, 4)]
        driver.init()
        request(driver, log, IN, 3, b"", 512)
        pending = driver.start(IN, 3, b"", 512)
        bar, start, _ = driver.link.structures[2]
        reach(0, 2, 0)  # the notification
        driver.wait_used()
        bar, start, _ = driver.link.structures[3]
        log += [driver.line(), reach(0, 1), driver.line(), reach(0, 1)]  # the ISR, cleared by reading
        driver.collect()
        log.append(driver.result(pending).data)
        return log

    both(images, script, legacy=False)


KINDS = {"transitional": "disable-legacy=off,disable-modern=off", "modern": "disable-legacy=on,disable-modern=off"}


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_space_is_laid_out_the_same(images, kind):
    def script(driver):
        function = PciFunctionLink(driver.host, SLOT)
        found = {
            "ids": function.get(0x00),
            "class": function.get(0x0A, 2),
            "subsystem": function.get(0x2C),
            "pin": function.get(0x3D, 1),
            "header": function.get(0x0E, 1),
            "bars": {index: (space, type_bits, size) for index, (space, size, type_bits) in function.bars.items()},
            "capabilities": sorted(
                (kind, function.get(at + 3, 1) if kind == 9 else 0, at) for kind, at in function.capabilities()
            ),
            "structures": sorted(
                (function.get(at + 3, 1), function.get(at + 2, 1), function.get(at + 4, 1), function.get(at + 8))
                for kind, at in function.capabilities()
                if kind == 9
            ),
        }
        for offset in (0x04, 0x0C, 0x3C):
            function.set(offset, 0xFFFFFFFF)
            found[f"stored at {offset:#x}"] = function.get(offset)
            function.set(offset, 0)
        msix = MsixLink(function)
        found["msix"] = msix.vectors, msix.table_bar, msix.table_at, msix.pending_bar, msix.pending_at
        function.set(msix.at + 2, 0xFFFF, 2)
        found["msix control"] = function.get(msix.at + 2, 2)
        function.set(msix.at + 2, 0, 2)
        return found

    found = both(images, script, legacy=kind == "transitional", kind=KINDS[kind])
    assert found["ids"] == {"transitional": 0x1001_1AF4, "modern": 0x1042_1AF4}[kind]


# -- any stores -------------------------------------------------------------------------------------

SAFE = {0: ("io", range(0xC000, 0xE000, 0x80)), 1: ("memory", range(0xE010_0000, 0xE011_0000, 0x1000))}
SAFE[4] = ("memory", range(0xE000_0000, 0xE004_0000, 0x4000))
"""Where regions may go without covering each other or something of the `pc` machine."""
MARKS = {0: (0x0C, 2, 256), 1: (0x0C, 4, 1), 4: (0x12, 2, 1)}
"""A register of each region that reads the same all the time: offset, size, value."""


@pytest.mark.parametrize("seed", range(3))
def test_after_any_stores_to_configuration_space_the_header_reads_the_same(images, seed):
    def script(driver):
        chance, function, log = random.Random(seed), driver.link.function, []
        for _ in range(300):
            size = chance.choice((1, 2, 4))
            offset = chance.randrange(0, 0x40, size)
            value = chance.choice((0, (1 << 32) - 1, chance.randrange(1 << 32)))
            if offset <= 4 < offset + size:
                value &= ~3 << 8 * (4 - offset)  # nothing answers: regions may lie anywhere
            function.set(offset, value & (1 << 8 * size) - 1, size)
            log.append([function.get(at) for at in range(0, 0x40, 4) if at != 0x34])  # the list's order is free
        return log

    both(images, script, legacy=False)


@pytest.mark.parametrize("seed", range(3))
def test_regions_that_move_answer_at_the_same_addresses(images, seed):
    def script(driver):
        chance, function, log = random.Random(seed), driver.link.function, []
        for _ in range(60):
            index = chance.choice((0, 1, 4))
            address = chance.choice((0, 0xFFFFFFFF, *SAFE[index][1]))
            function.set(4, chance.choice((0, 1, 2, 3, 7)), 2)
            function.set(0x10 + 4 * index, address)
            if chance.random() < 0.2:  # the same by one byte
                function.set(0x11 + 4 * index, chance.choice(SAFE[index][1]) >> 8 & 0xFF, 1)
            found = []
            for space, places in SAFE.values():
                for place in places:
                    for mark in (0, 1, 4):
                        at, size, value = MARKS[mark]
                        if SAFE[mark][0] == space and driver.host.load(space, place + at, size) == value:
                            found.append((mark, place))
            log.append(found)
        assert sum(map(len, log)) > 30
        return log

    both(images, script, legacy=False)
