"""The same registers on QEMU's PIIX3: each script runs on both, and what it sees must be the same, interrupts included.

Where ours differs on purpose, the last part of this file shows both answers and says why.
"""

from __future__ import annotations

import random

import pytest

from tests.ata_driver import (
    ACTIVE,
    BUFFER,
    BUS_MASTER_PORT,
    DRQ,
    HOB,
    INTERRUPT,
    NIEN,
    SRST,
    Ide,
    Pc,
    contents,
    make_disk,
    pattern,
    prd,
    prds,
)
from tests.qtest_client import Qtest

pytestmark = [pytest.mark.needs("qemu-system-x86"), pytest.mark.slow]

SECTORS = 4096


class Script:
    """One machine, the driver of its primary channel, and what was seen."""

    def __init__(self, bench, interrupt_level):
        self.bench = bench
        self.ide = Ide(bench)
        self.interrupt_level = interrupt_level
        self.log = []
        # Both start with a known signature and no interrupt.
        self.ide.set_control(SRST | NIEN)
        self.ide.set_control(0)
        self.ide.wait()
        self.ide.reg(7)
        bench.outb(BUS_MASTER_PORT + 2, 6)

    def note(self, what, *values):
        self.log.append((what, *values))

    def look(self, what):
        """All that can be seen without acknowledging anything."""
        self.ide.wait()
        self.log.append(
            (what, [hex(value) for value in self.ide.registers()], hex(self.ide.master_status), self.interrupt_level())
        )

    def call(self, opcode, *args, **options):
        self.ide.command(opcode, *args, **options)
        self.look(f"command {opcode:#x}")
        self.note("status", hex(self.ide.status), self.interrupt_level())

    def blocks(self, length=512):
        """Read DRQ blocks while there are any."""
        while self.ide.wait() & DRQ:
            self.look("block")
            self.note("data", self.ide.status, self.ide.read_block(length))
        self.look("end")

    def dma(self, *args, **options):
        found = self.ide.dma(*args, stop=False, **options)
        self.note("dma", *map(hex, found))
        self.look("dma")
        self.ide.stop()
        self.look("stopped")
        self.note("memory", self.bench.read(BUFFER, 0x4000))


def on_qemu(script, tmp_path, slave=False, master=True):
    images = []
    options = []
    for unit, there in enumerate((master, slave)):
        if there:
            image = tmp_path / f"disk{unit}.raw"
            image.write_bytes(pattern(SECTORS))
            images.append(image)
            options += ["-drive", f"file={image},format=raw,if=none,discard=unmap,id=d{unit}"]
            options += ["-device", f"ide-hd,bus=ide.0,unit={unit},drive=d{unit}"]
    with Qtest("pc", "-m", "64", *options) as qemu:
        qemu.intercept("ioapic")
        run = Script(qemu, lambda: qemu.irq.get(14, False))
        script(run)
    return run.log, [image.read_bytes() for image in images]


def on_ours(script, slave=False, master=True):
    disks = [make_disk(SECTORS) if master else None]
    scheduler = disks[0].scheduler if master else None
    disks.append(make_disk(SECTORS, scheduler=scheduler) if slave else None)
    pc = Pc(*disks, ram_size=64 << 20)
    run = Script(pc, lambda: pc.wires[0].level)
    script(run)
    return run.log, [bytes(contents(disk)) for disk in disks if disk is not None]


def compare(script, tmp_path, **machine):
    ours, our_disks = on_ours(script, **machine)
    qemus, qemu_disks = on_qemu(script, tmp_path, **machine)
    assert len(ours) > 1
    for ours_seen, qemu_seen in zip(ours, qemus, strict=True):
        assert ours_seen == qemu_seen
    assert our_disks == qemu_disks


# -- scripts ----------------------------------------------------------------------------------------


def signature(run):
    run.look("after reset")
    run.ide.set_reg(2, 0x55)
    run.ide.set_reg(3, 0xAA)
    run.look("written")


def pio_read(run):
    for opcode, lba, count in ((0x20, 5, 3), (0x21, SECTORS - 1, 1)):
        run.ide.command(opcode, lba, count)
        run.blocks()


def counts_of_zero(run):
    for opcode, wide in ((0x20, False), (0x24, True)):
        run.ide.command(opcode, 5, 0, wide=wide)
        run.look("first block")
        run.note(run.ide.read_block())
        run.look("second block")
        run.ide.status  # noqa: B018  (acknowledges)
        run.ide.set_control(SRST)
        run.ide.set_control(0)
        run.ide.wait()
        run.ide.status  # noqa: B018


def pio_read_wide(run):
    run.ide.command(0x24, 0x123, 3, wide=True)
    run.blocks()
    run.ide.set_control(HOB)
    run.look("previous")


def pio_read_chs(run):
    for chs in ((0, 0, 1), (2, 3, 63), (3, 15, 62)):
        run.ide.command(0x20, 0, 3, chs=chs)
        run.blocks()


def pio_read_multiple(run):
    for block, count in ((1, 2), (4, 10), (16, 33)):
        run.call(0xC6, 0, block)
        for opcode, wide in ((0xC4, False), (0x29, True)):
            run.ide.command(opcode, 100, count, wide=wide)
            left = count
            while run.ide.wait() & DRQ:
                run.look("block")
                run.note("data", run.ide.read_block(512 * min(block, left)))
                left -= block
            run.look("end")


def pio_read_32_bits(run):
    run.ide.command(0x20, 5, 2)
    run.ide.wait()
    run.note(run.ide.read_block(512, width=4))
    run.look("one block")
    run.note(run.ide.read_block(510, width=2), run.bench.inl(0x1F0), run.ide.alternate, run.bench.inw(0x1F0))
    run.look("two blocks")


def pio_write(run):
    for opcode, lba, wide, count in (
        (0x30, 7, False, 3),
        (0x31, 20, False, 1),
        (0x34, 30, True, 2),
        (0x3C, 40, False, 2),
    ):
        run.ide.command(opcode, lba, count, wide=wide)
        for number in range(count):
            run.look("asked")
            run.note(run.ide.status)
            run.ide.write_block(bytes([opcode + number]) * 512, width=2 + 2 * (number & 1))
        run.look("end")
        run.note(run.ide.status)


def pio_write_multiple(run):
    run.call(0xC6, 0, 4)
    for opcode, lba, wide in ((0xC5, 7, False), (0x39, 50, True)):
        run.ide.command(opcode, lba, 10, wide=wide)
        for length in (4, 4, 2):
            run.look("asked")
            run.note(run.ide.status)
            run.ide.write_block(pattern(length, lba * 10))
        run.look("end")


def dma_read(run):
    run.dma(0xC8, 5, 4, prds((BUFFER, 2048)))
    run.dma(0xC9, 9, 4, prds((BUFFER + 0x1000, 1000), (BUFFER, 48), (BUFFER + 0x200, 1000)))
    run.dma(0x25, 0x200, 3, prds((BUFFER, 1536)), wide=True)
    run.dma(0xC8, 0, 3, prds((BUFFER, 1536)), chs=(1, 2, 3))


def dma_write(run):
    run.bench.write(BUFFER, pattern(8, 1000))
    run.dma(0xCA, 5, 4, prds((BUFFER, 2048)), to_memory=False)
    run.dma(0xCB, 20, 2, prds((BUFFER + 512, 1000), (BUFFER, 24)), to_memory=False)
    run.dma(0x35, 0x200, 3, prds((BUFFER, 1536)), to_memory=False, wide=True)


def prd_short(run):
    for table in (prds((BUFFER, 512)), prds((BUFFER, 2046)), prds((BUFFER, 1024), (BUFFER, 512))):
        run.dma(0xC8, 5, 4, table)
        run.dma(0xCA, 5, 4, table, to_memory=False)


def prd_long(run):
    for table in (prds((BUFFER, 2050)), prds((BUFFER, 2048), (BUFFER + 0x2000, 512)), prd(BUFFER, 0, last=True)):
        run.dma(0xC8, 5, 4, table)


def prd_size_zero(run):
    run.dma(0xC8, 0, 128, prd(BUFFER, 0, last=True))


def prd_without_end(run):
    table = b"".join(prd(BUFFER + 64 * index, 64) for index in range(512))
    run.dma(0xC8, 0, 64, table)
    run.dma(0xC8, 0, 65, table)
    run.dma(0xC8, 0, 63, table)


def prd_odd_size(run):
    run.dma(0xC8, 5, 1, prds((BUFFER, 513)))
    run.dma(0xC8, 5, 1, prds((BUFFER, 511)))


def bus_master_registers(run):
    bench, port = run.bench, BUS_MASTER_PORT
    for value in (0x00, 0x08, 0x01, 0x09, 0xFF, 0x00, 0xF6):
        bench.outb(port, value)
        run.note("command", value, bench.inb(port), bench.inb(port + 2))
    bench.outb(port, 0)
    for value in (0x60, 0x00, 0xFF, 0x20, 0x06):
        bench.outb(port + 2, value)
        run.note("status", value, bench.inb(port + 2))
    for offset in (4, 12):
        bench.outl(port + offset, 0x1234_5677)
        run.note(bench.inl(port + offset), bench.inw(port + offset + 2), bench.inb(port + offset + 1))
        bench.outb(port + offset + 3, 0xAB)
        bench.outw(port + offset, 0xCDEF)
        run.note(bench.inl(port + offset))


def start_before_the_command(run):
    run.ide.set_table(prds((BUFFER, 512)))
    run.ide.start()
    run.look("started")
    run.ide.command(0xC8, 5, 1)
    run.ide.settle()
    run.look("done")
    run.ide.start()  # keeps START: nothing happens
    run.look("again")
    run.ide.stop()
    run.look("stopped")


def a_command_that_waits_for_start(run):
    run.ide.set_table(prds((BUFFER, 512)))
    run.ide.command(0xC8, 5, 1)
    run.look("waits")
    for index in range(1, 7):
        run.ide.set_reg(index, 0x77)
    run.ide.set_reg(7, 0xEC)
    run.look("registers are locked")
    run.note(run.bench.inw(0x1F0))
    run.bench.outw(0x1F0, 0x1234)
    run.ide.start()
    run.ide.settle()
    run.look("done")


def interrupts(run):
    run.call(0xE5)
    run.ide.command(0xE5)
    run.look("pending")
    run.ide.command(0xE5)  # the command register acknowledges, and the command interrupts anew
    run.look("pending again")
    run.note(run.ide.status)
    run.look("acknowledged")
    run.bench.outb(BUS_MASTER_PORT + 2, INTERRUPT)
    run.ide.set_control(NIEN)
    run.call(0xE5)
    run.ide.command(0x20, 3, 2)
    run.blocks()
    run.ide.set_control(0)
    run.call(0xE5)


def registers_while_data_is_asked_for(run):
    run.ide.command(0x20, 5, 2)
    run.look("before")
    for index in range(1, 7):
        run.ide.set_reg(index, 0x99)
    run.look("after")
    run.ide.set_reg(7, 0xEC)
    run.look("command")
    run.bench.outw(0x1F0, 0x1234)
    run.blocks()


def reset_while_data_is_asked_for(run):
    for opcode in (0x20, 0x30, 0xEC, 0xC8):
        run.ide.command(opcode, 5, 2)
        run.look("before")
        run.note(run.ide.status)
        run.ide.set_control(SRST | NIEN)
        run.ide.set_control(NIEN)
        run.look("after")
        run.note(run.bench.inw(0x1F0))
        run.ide.command(0x20, 6, 1)
        run.blocks()
        run.ide.set_control(0)


def data_without_a_command(run):
    run.note(run.bench.inw(0x1F0), run.bench.inl(0x1F0), run.bench.inb(0x1F0))
    run.bench.outw(0x1F0, 0x1234)
    run.bench.outb(0x1F0, 0x12)
    run.look("nothing")


def features(run):
    for feature, count in ((0x02, 0), (0x82, 0), (0x03, 0x0C), (0x03, 0x22), (0x03, 0x45), (0x03, 0x80), (0x03, 0x18)):
        run.call(0xEF, 0, count, feature=feature)
    for feature in (0x55, 0xAA, 0x66, 0xCC, 0x05, 0x85, 0x42, 0xC2, 0x00, 0x99, 0x7F):
        run.call(0xEF, feature=feature)


def multiple_mode(run):
    for count in (1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 64, 128, 255):
        run.call(0xC6, 0, count)


def smart(run):
    run.call(0xB0, 0xC24F00, feature=0xDA)
    run.call(0xB0, 0x0, feature=0xDA)
    run.call(0xB0, 0xC24F00, feature=0xD9)
    run.call(0xB0, 0xC24F00, feature=0xDA)
    run.call(0xB0, 0xC24F00, feature=0xD8)
    run.call(0xB0, 0xC24F01, feature=0xD4)
    run.call(0xB0, 0xC24F77, feature=0xD4)
    run.call(0xB0, 0xC24F77, 1, feature=0xD5)
    run.call(0xB0, 0xC24F00, feature=0x77)
    for feature, low in ((0xD0, 0), (0xD1, 0), (0xD5, 1), (0xD5, 6)):
        run.ide.command(0xB0, 0xC24F00 | low, 1, feature=feature)
        run.look("data")
        data = run.ide.read_block()
        run.note(len(data), sum(data) & 0xFF, data[:2])
        run.look("end")


def native_max(run):
    run.call(0xF8)
    run.call(0x27, wide=True)
    run.ide.select(0, 0)
    run.ide.set_reg(7, 0xF8)
    run.look("in cylinders")


def trim(run):
    entries = b"".join((lba | count << 48).to_bytes(8, "little") for lba, count in ((16, 8), (104, 24), (7, 0)))
    run.bench.write(BUFFER, entries.ljust(512, b"\0"))
    for length in (512, 500):
        found = run.ide.dma(0x06, 0, 1, prds((BUFFER, length)), to_memory=False, feature=1, wide=True)
        run.note(*map(hex, found))
    run.call(0x06, 0, 1, feature=2, wide=True)


def geometry(run):
    run.call(0x91, 0, 17, chs=(0, 7, 1))
    run.ide.command(0x20, 0, 2, chs=(1, 2, 17))
    run.blocks()
    run.ide.select(0, 0)
    run.ide.set_reg(7, 0xF8)
    run.look("last")


def no_data(run):
    for opcode in (0x00, 0x10, 0x70, 0x40, 0x41, 0x95, 0x97, 0xE1, 0xE3, 0xE5, 0x98, 0xE7, 0xEA, 0xF5):
        run.ide.command(opcode, 5, 0 if opcode == 0xF5 else 1)
        run.look(f"command {opcode:#x}")
    run.ide.command(0x42, 5, 1, wide=True)
    run.look("verify")


def diagnostic(run):
    run.ide.command(0x90, 0x123456, 7)
    run.look("done")
    run.note(run.ide.status)


def sixteen_bit_registers(run):
    """Two registers in one access."""
    run.bench.outw(0x1F2, 0x1122)
    run.bench.outw(0x1F4, 0x3344)
    run.look("written")
    run.note(run.bench.inw(0x1F2), run.bench.inw(0x1F4))


SCRIPTS = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__code__", None) and value.__code__.co_varnames[:1] == ("run",)
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_qemu_shows_the_same(script, tmp_path):
    compare(script, tmp_path)


def other_device(run):
    """Both devices take writes; the selected one answers and executes."""
    run.ide.select(1)
    run.look("selected")
    for index in range(2, 6):
        run.ide.set_reg(index, 0x30 + index)
    run.look("written")
    run.ide.select(0)
    run.look("device 0")
    run.ide.command(0x20, 9, 1)
    run.blocks()
    run.ide.select(1)
    run.note(run.ide.status, run.ide.error)


def both_devices(run):
    other_device(run)
    run.ide.select(1)
    run.call(0xEF, 0, 0x22, feature=3)
    run.ide.command(0x20, 7, 2)
    run.blocks()
    run.dma(0xC8, 8, 2, prds((BUFFER, 1024)))
    run.ide.command(0x30, 3, 1)
    run.ide.write_block(b"1" * 512)
    run.look("written")
    run.note(run.ide.status)
    run.ide.select(0)
    run.look("device 0")


def test_qemu_shows_the_same_of_two_devices(tmp_path):
    compare(both_devices, tmp_path, slave=True)


def empty_channel(run):
    for unit in (0, 1):
        run.ide.select(unit)
        run.ide.set_reg(2, 0x55)
        run.look("written")
        run.note(run.bench.inw(0x1F0))


def test_qemu_shows_the_same_of_an_empty_channel(tmp_path):
    compare(empty_channel, tmp_path, master=False)


# -- scripts by chance ------------------------------------------------------------------------------

WIDE = (0x24, 0x29, 0x34, 0x39, 0x25, 0x35, 0x42, 0x27)
DMA = (0xC8, 0xCA, 0x25, 0x35)
PIO = (0x20, 0x21, 0xC4, 0x30, 0x31, 0xC5)
OTHERS = (0x10, 0x40, 0x70, 0xE7, 0xEA, 0xC6, 0xEC, 0xEF, 0xB0, 0xF8, 0xE5, 0xE1, 0xE3, 0xFF, 0xA0, 0x01)
"""Commands that both know in the same way, and some that neither does."""

STEPS = ["command"] * 3 + ["data"] * 3 + ["register", "status", "start", "stop", "table", "nothing"]
REGIONS = [(BUFFER, 512), (BUFFER, 1024), (BUFFER + 0x800, 0x1000), (BUFFER, 100), (BUFFER, 0x10000)]


class Chance:
    """Steps of a driver that does not know what it does; all is decided by the seed, nothing by an answer."""

    def __init__(self, run, seed):
        self.run, self.ide = run, run.ide
        self.dice = random.Random(seed)
        self.last = 0
        run.call(0xC6, 0, 4)
        self.ide.set_table(prds((BUFFER, 1024)))

    def step(self):
        what = self.dice.choice(STEPS)
        getattr(self, what)()
        if self.last in DMA and self.ide.master_status & ACTIVE:
            self.ide.settle()
        self.run.look(what)

    def nothing(self):
        pass

    def command(self):
        dice, ide = self.dice, self.ide
        opcode = dice.choice(WIDE + DMA + PIO + OTHERS)
        count, feature, lba = (
            dice.choice((0, 1, 1, 2, 3, 5, 16, 20)),
            dice.choice((1, 2, 0x82, 0xDA)),
            dice.randrange(3000),
        )
        wide = opcode in WIDE
        if opcode in DMA:
            self.stop()  # a table that an earlier command has left half used is the controller's own affair
        if not ide.alternate & DRQ:
            self.last = opcode
        ide.command(opcode, lba, 4 if opcode == 0xC6 else count or wide, feature=feature, wide=wide)

    def data(self):
        for word in range(self.dice.choice((1, 2, 100, 255, 256, 257, 512))):
            self.ide.wait()
            found = self.run.bench.inw(0x1F0)
            if self.last not in (0xEC, 0xB0):  # what IDENTIFY and SMART tell differs
                self.run.note("data", found)
            self.run.bench.outw(0x1F0, word)

    def register(self):
        self.run.note("register", self.ide.reg(self.dice.randrange(1, 6)))

    def status(self):
        self.run.note("status", self.ide.status)

    def start(self):
        self.ide.start(to_memory=self.dice.random() < 0.5)

    def stop(self):
        self.ide.stop()
        self.status()
        self.run.bench.outb(BUS_MASTER_PORT + 2, 6)

    def table(self):
        self.ide.set_table(prds(*self.dice.choices(REGIONS, k=self.dice.randrange(1, 4))))


@pytest.mark.parametrize("seed", range(12))
def test_qemu_shows_the_same_by_chance(seed, tmp_path):
    def script(run):
        chance = Chance(run, seed)
        for _ in range(120):
            chance.step()
        run.note("memory", run.bench.read(BUFFER, 0x14000))

    compare(script, tmp_path)


# -- differences on purpose -------------------------------------------------------------------------


def after(*steps):
    """A script of commands; what it shows is status and error after each."""

    def script(run):
        for step in steps:
            step(run.ide)
            run.ide.wait()
            run.note(run.ide.alternate, run.ide.error, run.bench.inb(0x1F2))

    return script


def issue(opcode, lba=0, count=1, **options):
    return lambda ide: ide.command(opcode, lba, count, **options)


OK, FAILED = 0x50, 0x41

DIFFERENCES = {
    "a disk obeys DEVICE RESET: it can be unstuck": (issue(0x08), (OK, 1, 1), (FAILED, 4, 1)),
    "the buffer commands are there": (issue(0xE4), (0x58, 0, 1), (FAILED, 4, 1)),
    "FUA writes are there": (issue(0x3D, wide=True), (0x58, 0, 1), (FAILED, 4, 1)),
    "a sector that is not there is not found, not aborted": (issue(0x20, SECTORS), (FAILED, 0x10, 1), (FAILED, 4, 1)),
    "a write beyond the end is refused before its data": (issue(0x30, SECTORS), (FAILED, 0x10, 1), (0x58, 0, 1)),
    "SEEK needs a sector that exists": (issue(0x70, SECTORS), (FAILED, 0x10, 1), (OK, 0, 1)),
    "READ VERIFY reads": (issue(0x40, SECTORS), (FAILED, 0x10, 1), (OK, 0, 1)),
    "a PIO mode that is none is refused": (issue(0xEF, 0, 5, feature=3), (FAILED, 4, 5), (OK, 0, 5)),
    "there is no track without sectors": (issue(0x91, 0, 0), (FAILED, 4, 0), (OK, 0, 0)),
    "RECALIBRATE has sixteen opcodes, as in ATA-3": (issue(0x1F), (OK, 0, 1), (FAILED, 4, 1)),
    "SMART autosave is in Count, not in LBA Low (ATA8-ACS 7.53.4)": (
        issue(0xB0, 0xC24F55, 0xF1, feature=0xD2),
        (OK, 0, 0xF1),
        (FAILED, 4, 0xF1),
    ),
}


@pytest.mark.parametrize(("step", "ours", "qemus"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_ours_differs_on_purpose(step, ours, qemus, tmp_path):
    assert ours != qemus
    assert on_ours(after(step))[0] == [ours]
    assert on_qemu(after(step), tmp_path)[0] == [qemus]


def test_our_reset_lasts_as_long_as_srst_is_set(tmp_path):
    def script(run):
        run.ide.set_control(SRST)
        run.ide.settle()
        run.note(run.ide.alternate)

    assert on_ours(script)[0] == [(0x80,)]
    assert on_qemu(script, tmp_path)[0] == [(OK,)]


def test_our_reset_ends_a_pending_interrupt(tmp_path):
    def script(run):
        run.ide.command(0xE5)
        run.ide.set_control(SRST)
        run.ide.set_control(0)
        run.ide.wait()
        run.note(run.interrupt_level())

    assert on_ours(script)[0] == [(False,)]
    assert on_qemu(script, tmp_path)[0] == [(True,)]
