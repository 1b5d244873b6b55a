"""Interrupts, the two drives of a cable, resets in every state, and completions that come late and in any order."""

import hashlib
import json
import random
import time

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.block.open import open_disk
from e2kdisk.devices.ata import PciIde
from e2kdisk.errors import UsageError
from tests.ata_driver import (
    ACTIVE,
    BSY,
    BUFFER,
    BUS_MASTER_PORT,
    DRDY,
    DRQ,
    DSC,
    ERR,
    HOB,
    IDNF,
    INTERRUPT,
    NIEN,
    SRST,
    Ide,
    Pc,
    contents,
    make_disk,
    pattern,
    prds,
)
from tests.test_virtio_in_flight import SlowThreadEngine

OK = DRDY | DSC
SIGNATURE = (OK, 1, 1, 1, 0, 0, 0xA0)


@pytest.fixture
def disk():
    return make_disk()


@pytest.fixture
def ide(disk):
    return Ide(Pc(disk))


# -- INTRQ ------------------------------------------------------------------------------------------


def test_reading_status_acknowledges_but_alternate_status_does_not(ide):
    wire = ide.bench.wires[0]
    ide.command(0xE5)
    assert (wire.level, ide.alternate, wire.level) == (True, OK, True)
    assert (ide.status, wire.level) == (OK, False)


def test_the_bus_master_shows_the_rise_of_an_interrupt_not_its_fall(ide):
    ide.command(0xE5)
    ide.bench.outb(BUS_MASTER_PORT + 2, INTERRUPT)
    assert (ide.status, ide.master_status) == (OK, 0)


def test_a_new_command_acknowledges(ide):
    ide.command(0xE5)
    ide.command(0x30, 3, 1)
    assert not ide.bench.wires[0].level


def test_nien_hides_an_interrupt_that_shows_when_it_is_cleared(ide):
    wire = ide.bench.wires[0]
    ide.set_control(NIEN)
    ide.command(0xE5)
    assert (wire.level, ide.master_status) == (False, 0)
    ide.set_control(0)
    assert (wire.level, ide.master_status) == (True, INTERRUPT)
    ide.set_control(NIEN)
    assert not wire.level
    assert ide.status == OK
    ide.set_control(0)
    assert not wire.level


def test_the_wire_is_the_selected_drives(disk):
    ide = Ide(Pc(disk, make_disk(16, scheduler=disk.scheduler)))
    ide.command(0xE5)
    ide.select(1)
    assert not ide.bench.wires[0].level
    ide.select(0)
    assert ide.bench.wires[0].level


def test_a_polled_driver_without_interrupts_reads_and_writes(ide, disk):
    ide.set_control(NIEN)
    assert ide.pio_in(0x20, 5, 3) == pattern(3, 5)
    assert ide.pio_out(0x30, b"p" * 1024, 9) == OK
    assert contents(disk)[9 * 512 : 11 * 512] == b"p" * 1024
    assert ide.bench.irqs == [0, 0]


# -- who is there -----------------------------------------------------------------------------------


def test_an_absent_device_1_has_status_0_and_ignores_commands(ide):
    ide.select(1)
    for index in range(2, 6):
        ide.set_reg(index, 0x50 + index)
    assert ide.registers() == (0, 0, 0x52, 0x53, 0x54, 0x55, 0xF0)
    ide.set_reg(7, 0xEC)
    assert (ide.status, ide.bench.inw(0x1F0)) == (0, 0)
    assert not ide.bench.wires[0].level
    assert "not there" in ide.bench.trace.guest_errors[0]
    ide.select(0)
    assert ide.registers() == (OK, 1, 0x52, 0x53, 0x54, 0x55, 0xE0)


def test_an_absent_device_0_has_status_0_beside_a_device_1(disk):
    ide = Ide(Pc(None, disk))
    assert ide.status == 0
    ide.set_reg(7, 0xEC)
    assert (ide.status, ide.bench.inw(0x1F0)) == (0, 0)
    ide.select(1)
    assert ide.pio_in(0x20, 4, 2) == pattern(2, 4)


def test_an_empty_channel_reads_as_zeros(disk):
    ide = Ide(Pc(disk), base=0x170, control=0x376, master=BUS_MASTER_PORT + 8)
    for index in range(1, 8):
        ide.set_reg(index, 0xFF)
    assert [ide.reg(index) for index in range(1, 8)] == [0] * 7
    ide.set_table(prds((BUFFER, 512)))
    ide.start()
    ide.set_reg(7, 0xC8)
    ide.set_control(SRST)
    ide.set_control(0)
    assert (ide.alternate, ide.master_status) == (0, ACTIVE)


def test_two_drives_keep_their_own_registers_and_data(disk):
    other = make_disk(64, scheduler=disk.scheduler)
    contents(other)[:512] = b"o" * 512
    ide = Ide(Pc(disk, other))
    assert ide.pio_in(0x20, 0, 1) == pattern(1)
    ide.select(1)
    assert ide.pio_in(0x20, 0, 1) == b"o" * 512
    assert ide.call(0x20, 64, 1) == DRDY | ERR
    assert ide.error == IDNF
    ide.select(0)
    assert (ide.alternate, ide.error) == (OK, 0)


def test_disks_of_several_schedulers_are_refused(disk):
    with pytest.raises(UsageError, match="several schedulers"):
        PciIde([disk, make_disk(16)])


# -- modes of the PCI function ------------------------------------------------------------------------


def test_the_mcst_function_moves_its_channels_to_bars_and_intx(disk):
    pc = Pc(disk, None, make_disk(32, scheduler=disk.scheduler), chip="mcst")
    legacy = Ide(pc)
    assert legacy.config_read(0x00) == 0x800B_1FFF
    assert legacy.config_read(0x08) == 0x0101_8A00
    assert legacy.pio_in(0x20, 3, 1) == pattern(1, 3)
    for offset, port in ((0x10, 0x2000), (0x14, 0x2010), (0x18, 0x2020), (0x1C, 0x2030)):
        legacy.config_write(offset, port | 1)
    assert pc.inb(0x2007) == 0xFF, "BARs are hidden in legacy mode"
    legacy.config_write(0x08, 0x8F00)
    assert legacy.config_read(0x08) == 0x0101_8F00
    assert pc.inb(0x1F7) == 0xFF, "legacy ports are hidden in native mode"
    for number in (0, 1):
        native = Ide(pc, base=0x2000 + 0x20 * number, control=0x2012 + 0x20 * number, master=0xC000 + 8 * number)
        assert native.pio_in(0x20, 5, 1) == pattern(1, 5)
        assert native.read_dma(6, 2) == pattern(2, 6)
        native.command(0xE5)
        assert pc.intx.level
        assert native.status == OK
        assert not pc.intx.level
    assert pc.irqs == [1, 0]


def test_register_0x40_masks_interrupts_and_resets(disk):
    pc = Pc(disk, chip="mcst")
    ide = Ide(pc)
    ide.config_write(0x40, 1 << 8)
    ide.command(0xE5)
    assert not pc.wires[0].level
    ide.config_write(0x40, 0)
    assert pc.wires[0].level
    ide.config_write(0x08, 0x8F00)
    assert (pc.wires[0].level, pc.intx.level) == (False, True)
    ide.config_write(0x40, 1 << 7)
    assert not pc.intx.level
    ide.config_write(0x08, 0x8A00)
    ide.set_reg(2, 0x77)
    ide.config_write(0x40, 1 << 6)
    assert ide.registers() == SIGNATURE
    ide.config_write(0x4C, 0x4544_4342)
    assert ide.config_read(0x4C) == 0x4544_4342


def test_without_io_space_nothing_answers(ide):
    ide.config_write(0x04, 0x0004)
    assert (ide.bench.inb(0x1F7), ide.bench.inb(0x3F6), ide.bench.inb(BUS_MASTER_PORT)) == (0xFF, 0xFF, 0xFF)


# -- resets -----------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(pattern(2048))
    return path


@pytest.fixture
def opened():
    disks = []
    yield lambda path, engine: disks.append(open_disk(path, format="raw", engine=engine)) or disks[-1]
    for disk in disks:
        disk.scheduler.drain()
        disk.close()


def simulated(seed=0, scheduler=None):
    chance = random.Random(seed)
    return SimulatedEngine(scheduler or Scheduler(), lambda pending: chance.randrange(len(pending)))


def fill_block(ide, opcode):
    ide.command(opcode, 9, 2)
    ide.write_block(b"w" * 512)


def begin_dma(ide, opcode):
    ide.set_table(prds((BUFFER, 2048)))
    ide.start(opcode == 0xC8)
    ide.command(opcode, 9, 4)


IN_FLIGHT = {
    "PIO read": lambda ide: ide.command(0x20, 9, 4),
    "PIO write": lambda ide: fill_block(ide, 0x30),
    "read DMA": lambda ide: begin_dma(ide, 0xC8),
    "write DMA": lambda ide: begin_dma(ide, 0xCA),
    "verify": lambda ide: ide.command(0x40, 9, 100),
    "flush": lambda ide: ide.command(0xE7),
}


def software_reset(ide):
    ide.set_control(SRST)
    assert ide.alternate == BSY
    ide.set_reg(7, 0xEC)
    ide.set_reg(7, 0x08)
    ide.set_reg(2, 0x99)
    assert ide.alternate == BSY
    ide.set_control(0)


RESETS = {
    "SRST": software_reset,
    "DEVICE RESET": lambda ide: ide.set_reg(7, 0x08),
    "the board's line": lambda ide: ide.bench.bus.reset(),
}


def ram_hash(ide):
    return hashlib.sha256(ide.bench.ram).hexdigest()


@pytest.mark.parametrize("begin", IN_FLIGHT.values(), ids=IN_FLIGHT)
@pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize(
    "make_engine", [lambda: SlowThreadEngine(Scheduler()), simulated], ids=["threads", "simulated"]
)
def test_nothing_moves_and_nobody_is_told_after_a_reset(image, opened, make_engine, reset, begin):
    disk = opened(image, make_engine())
    ide = Ide(Pc(disk))
    begin(ide)
    assert ide.alternate & BSY and disk.scheduler.tasks
    reset(ide)
    assert not disk.scheduler.tasks
    after, edges = ram_hash(ide), list(ide.bench.irqs)
    time.sleep(0.03 if isinstance(disk._engine, SlowThreadEngine) else 0)
    while disk.scheduler.wait(0.01):
        pass
    assert (ram_hash(ide), ide.bench.irqs) == (after, edges)
    assert not ide.bench.wires[0].level
    ide = Ide(ide.bench)
    assert ide.registers() == SIGNATURE
    assert ide.pio_in(0x20, 5, 3) == pattern(3, 5)
    ide.stop()
    assert ide.read_dma(30, 2) == pattern(2, 30)


@pytest.mark.parametrize("opcode", [0xC8, 0xCA])
def test_clearing_start_ends_the_dma_that_is_in_flight_and_the_next_start_begins_it_anew(image, opened, opcode):
    disk = opened(image, simulated())
    ide = Ide(Pc(disk))
    begin_dma(ide, opcode)
    assert ide.alternate & BSY
    assert ide.master_status == ACTIVE
    ide.stop()
    assert (ide.alternate, ide.master_status, ide.bench.irqs) == (OK | DRQ, 0, [0, 0])
    assert not disk.scheduler.tasks
    after = ram_hash(ide)
    disk.scheduler.drain()
    assert ram_hash(ide) == after
    ide.start(opcode == 0xC8)
    ide.settle()
    assert (ide.master_status, ide.status, ide.bench.irqs) == (INTERRUPT, OK, [1, 0])


def test_what_has_landed_before_a_reset_is_told_to_the_cpu(image, opened):
    """Translated code under the data of a DMA that was cut short is stale all the same."""
    ide = Ide(Pc(opened(image, simulated())))
    begin_dma(ide, 0xC8)
    software_reset(ide)
    assert ide.bench.read(BUFFER, 2048) == pattern(4, 9)
    assert ide.bench.published == [(BUFFER, BUFFER + 2048)]


def test_a_write_in_flight_at_a_reset_is_whole(image, opened):
    ide = Ide(Pc(opened(image, simulated())))
    ide.bench.write(BUFFER, b"w" * 2048)
    begin_dma(ide, 0xCA)
    software_reset(ide)
    assert ide.pio_in(0x20, 8, 6) == pattern(1, 8) + b"w" * 2048 + pattern(1, 13)


@pytest.mark.parametrize("opcode", [0x20, 0x30, 0xEC, 0xE8, 0xC8])
@pytest.mark.parametrize("reset", RESETS.values(), ids=RESETS)
def test_a_reset_while_data_is_asked_for_ends_the_command(ide, reset, opcode):
    ide.command(opcode, 5, 2)
    ide.read_block(100)
    assert ide.alternate & DRQ
    reset(ide)
    ide = Ide(ide.bench)
    assert ide.registers() == SIGNATURE
    assert ide.bench.inw(0x1F0) == 0
    assert ide.pio_in(0x20, 5, 1) == pattern(1, 5)


def test_settings_survive_a_software_reset_unless_they_are_to_revert(ide):
    for reverts in (False, True):
        ide.call(0xC6, 0, 8)
        ide.call(0xEF, 0, 0x22, feature=3)
        ide.call(0xEF, feature=0x82)
        if reverts:
            ide.call(0xEF, feature=0xCC)
        software_reset(ide)
        words = ide.pio_in(0xEC)
        assert words[118] == (0 if reverts else 8)
        assert words[177] == (0x20 if reverts else 0)  # the Ultra DMA mode
        assert words[170] & 0x20 == (0x20 if reverts else 0)  # the write cache


# -- in flight --------------------------------------------------------------------------------------


def test_a_busy_drive_locks_its_registers(image, opened):
    ide = Ide(Pc(opened(image, simulated())))
    ide.command(0x20, 9, 1)
    assert ide.alternate == BSY | DRDY
    before = ide.registers()
    for index in range(1, 7):
        ide.set_reg(index, 0x77)
    ide.set_reg(7, 0xEC)
    assert ide.registers() == before
    assert ide.bench.inw(0x1F0) == 0
    ide.wait()
    assert ide.read_block() == pattern(1, 9)


def test_an_interrupt_comes_when_the_disk_answers_not_before(image, opened):
    ide = Ide(Pc(opened(image, simulated())))
    begin_dma(ide, 0xC8)
    assert ide.bench.irqs == [0, 0]
    ide.wait()
    assert ide.bench.irqs == [1, 0]
    assert ide.bench.read(BUFFER, 2048) == pattern(4, 9)


@pytest.mark.parametrize("seed", range(6))
def test_two_channels_finish_in_any_order(tmp_path, opened, seed):
    engine = simulated(seed)
    disks = []
    for number in (0, 1):
        path = tmp_path / f"{number}.raw"
        path.write_bytes(pattern(2048, 5000 * number))
        disks.append(opened(path, engine))
    pc = Pc(disks[0], None, disks[1])
    channels = [Ide(pc), Ide(pc, base=0x170, control=0x376, master=BUS_MASTER_PORT + 8)]
    chance, order = random.Random(seed), []
    for _ in range(20):
        sectors = [chance.randrange(2000) for _ in channels]
        for number, (ide, sector) in enumerate(zip(channels, sectors, strict=True)):
            ide.bench.outb(ide.master + 2, INTERRUPT)
            ide.set_table(prds((BUFFER + 0x4000 * number, 4096)), 0x8000 + 0x1000 * number)
            ide.command(0xC8, sector, 8)
            ide.start()
        while any(ide.alternate & BSY for ide in channels):
            busy = [bool(ide.alternate & BSY) for ide in channels]
            assert pc.scheduler.wait(1)
            order += [
                n for n, (ide, was) in enumerate(zip(channels, busy, strict=True)) if was and not ide.alternate & BSY
            ]
        for number, (ide, sector) in enumerate(zip(channels, sectors, strict=True)):
            assert (ide.master_status, ide.status) == (INTERRUPT, OK)
            assert pc.read(BUFFER + 0x4000 * number, 4096) == pattern(8, 5000 * number + sector)
            ide.stop()
    assert pc.irqs == [20, 20]
    assert order != [0, 1] * 20


# -- save and load ----------------------------------------------------------------------------------


def twin_of(pc, disk):
    """Another machine with the same RAM and disk, in the state of the first, by way of JSON."""
    state = json.loads(json.dumps(pc.ide.save()))
    twin = Pc(disk)
    twin.ram[:] = pc.ram
    twin.ide.load(state)
    assert json.loads(json.dumps(twin.ide.save())) == state
    twin.trace.clear()
    return twin


def everything(ide):
    """A host that stops in the middle of things: each yield is a place to be saved at."""
    ide().command(0x20, 9, 3)
    yield
    data = ide().read_block(300)
    yield
    data += ide().read_block(212) + ide().read_block()
    yield
    data += ide().read_block()
    assert data == pattern(3, 9)
    ide().command(0x34, 20, 2, wide=True)
    ide().write_block(b"q" * 700)
    yield
    ide().write_block(b"r" * 324)
    assert ide().status == OK
    ide().set_table(prds((BUFFER, 1000), (BUFFER + 0x1000, 1048)))
    ide().command(0xC8, 19, 3)
    yield
    ide().start()
    assert ide().master_status == ACTIVE | INTERRUPT
    yield
    assert ide().status == OK
    ide().stop()
    ide().set_control(NIEN | HOB)
    ide().command(0xC6, 0, 4)
    yield
    ide().set_control(SRST)
    yield
    assert ide().alternate == BSY
    ide().set_control(0)
    assert ide().pio_in(0xC4, 19, 4, block=4) == pattern(1, 19) + b"q" * 700 + b"r" * 324 + pattern(1, 22)


@pytest.mark.parametrize("wanted", range(8))
def test_a_controller_goes_on_after_save_and_load_as_if_nothing_had_happened(wanted):
    disk = make_disk()
    drivers = [Ide(Pc(disk))]
    for number, _ in enumerate(everything(lambda: drivers[-1])):
        if number == wanted:
            old = drivers[-1].bench
            drivers.append(Ide(twin_of(old, disk), setup=False))
            assert [wire.level for wire in drivers[-1].bench.wires] == [wire.level for wire in old.wires]
    assert drivers[-1].bench.read(BUFFER, 512) == pattern(1, 19)


def test_a_save_with_a_request_in_flight_is_refused(image, opened):
    ide = Ide(Pc(opened(image, simulated())))
    ide.command(0x20, 1, 1)
    with pytest.raises(RuntimeError, match="ide0: save"):
        ide.bench.ide.save()
    ide.wait()
    ide.bench.ide.save()


def test_state_of_another_kind_is_refused(disk):
    state = Pc(disk).ide.save()
    with pytest.raises(ValueError, match="other drives"):
        Pc(disk, disk).ide.load(state)
    state["channels"][0]["drives"][0]["version"] = 9
    with pytest.raises(ValueError, match="version 9"):
        Pc(disk).ide.load(state)
