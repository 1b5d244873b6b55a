"""The bus master: how a PRD table ends a transfer, who may start and stop it, and what is no RAM (SFF-8038i)."""

import pytest

from tests.ata_driver import (
    ABRT,
    ACTIVE,
    BUFFER,
    BUS_MASTER_PORT,
    DRDY,
    DRQ,
    DSC,
    ERR,
    ERROR,
    INTERRUPT,
    PRDT,
    RAM_SIZE,
    START,
    TO_MEMORY,
    Ide,
    Pc,
    contents,
    make_disk,
    pattern,
    prd,
    prds,
)

OK = DRDY | DSC
READ, WRITE = 0xC8, 0xCA


@pytest.fixture
def disk():
    return make_disk()


@pytest.fixture
def ide(disk):
    return Ide(Pc(disk))


def ram_is_untouched(ide, table):
    ram = ide.bench.ram
    return not any(ram[:PRDT]) and not any(ram[PRDT + len(table) :])


# -- how a table ends -------------------------------------------------------------------------------


def test_an_equal_table_ends_inactive_with_an_interrupt(ide):
    assert ide.dma(READ, 3, 4, prds((BUFFER, 2048))) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 2048) == pattern(4, 3)
    assert ide.bench.irqs[0] == 1


@pytest.mark.parametrize("table", [prds((BUFFER, 512)), prds((BUFFER, 2046)), prds((BUFFER, 1024), (BUFFER, 512))])
def test_a_short_table_ends_inactive_without_interrupt_or_error(ide, table):
    assert ide.dma(READ, 3, 4, table) == (0, OK)
    assert ide.bench.irqs[0] == 0
    assert ram_is_untouched(ide, table), "nothing moves when not all can"
    assert "shorter than the transfer" in ide.bench.trace.guest_errors[0]


def test_a_short_table_writes_nothing(ide, disk):
    assert ide.dma(WRITE, 3, 4, prds((BUFFER, 512)), to_memory=False) == (0, OK)
    assert contents(disk) == pattern(4096)


@pytest.mark.parametrize("table", [prds((BUFFER, 2050)), prds((BUFFER, 2048), (BUFFER + 0x4000, 512))])
def test_a_long_table_interrupts_and_stays_active_until_it_is_stopped(ide, table):
    assert ide.dma(READ, 3, 4, table, stop=False) == (ACTIVE | INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 2048 + 2) == pattern(4, 3) + bytes(2)
    ide.stop()
    assert ide.master_status == INTERRUPT


def test_what_is_left_of_a_long_table_serves_the_next_command(ide):
    ide.dma(READ, 3, 2, prds((BUFFER, 1536), (BUFFER + 0x4000, 512)), stop=False)
    ide.command(READ, 9, 2)
    assert (ide.master_status, ide.status) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 1536) == pattern(2, 3) + pattern(1, 9)
    assert ide.bench.read(BUFFER + 0x4000, 512) == pattern(1, 10)


def test_a_size_of_zero_is_64_kib(ide):
    assert ide.dma(READ, 0, 128, prd(BUFFER, 0, last=True)) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 0x10000) == pattern(128)


def test_without_an_end_mark_the_table_ends_after_a_page(ide):
    # 512 entries of 64 bytes: 64 sectors. A 513th entry would be read if the page were no end.
    table = b"".join(prd(BUFFER + 64 * index, 64) for index in range(512)) + prd(BUFFER, 0x8000)
    assert ide.dma(READ, 0, 64, table) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 64 * 512) == pattern(64)
    assert ide.dma(READ, 0, 65, table) == (0, OK)


def test_bit_0_of_address_and_size_and_bits_1_0_of_the_table_pointer_are_not_there(ide):
    ide.set_table(prds((BUFFER | 1, 513)))
    ide.bench.outl(BUS_MASTER_PORT + 4, PRDT | 3)
    assert ide.bench.inl(BUS_MASTER_PORT + 4) == PRDT
    ide.command(READ, 5, 1)
    ide.start()
    assert (ide.master_status, ide.status) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 512) == pattern(1, 5)


def test_regions_need_not_be_whole_sectors_nor_stay_in_64_kib(ide):
    regions = [(BUFFER + 0xFFFE, 4), (BUFFER + 2, 510), (BUFFER + 0x5000, 1022)]
    assert ide.read_dma(7, 3, regions) == pattern(3, 7)


# -- who starts and stops ---------------------------------------------------------------------------


def test_start_may_come_before_or_after_the_command(ide):
    ide.set_table(prds((BUFFER, 512)))
    ide.command(READ, 5, 1)
    assert (ide.master_status, ide.alternate) == (0, OK | DRQ)
    ide.start()
    assert (ide.master_status, ide.status) == (INTERRUPT, OK)
    ide.stop()
    ide.start()
    assert ide.master_status & ACTIVE
    ide.command(READ, 6, 1)
    assert ide.bench.read(BUFFER, 512) == pattern(1, 6)
    assert ide.master_status == INTERRUPT


def test_a_write_that_keeps_start_changes_nothing(ide):
    ide.start()
    ide.set_table(prds((BUFFER, 512)))
    ide.start()
    ide.command(READ, 5, 1)
    # The table pointer was taken at the first START: address 0 has zeros, a region of 64 KiB at 0.
    assert ide.bench.read(0, 512) == pattern(1, 5)
    assert ide.bench.read(BUFFER, 512) == bytes(512)


def test_a_stopped_command_waits_for_the_next_start(ide):
    ide.set_table(prds((BUFFER, 512)))
    ide.command(READ, 5, 1)
    ide.stop()
    assert ide.alternate == OK | DRQ
    ide.start()
    assert ide.status == OK
    assert ide.bench.read(BUFFER, 512) == pattern(1, 5)


def test_error_and_interrupt_are_cleared_by_ones_and_the_drive_bits_are_memory(ide):
    ide.dma(READ, 5, 1, prds((RAM_SIZE, 512)))
    assert ide.master_status == ERROR | INTERRUPT
    ide.bench.outb(BUS_MASTER_PORT + 2, 0x60)
    assert ide.master_status == 0x60 | ERROR | INTERRUPT
    ide.bench.outb(BUS_MASTER_PORT + 2, 0x20 | ERROR)
    assert ide.master_status == 0x20 | INTERRUPT
    ide.bench.outb(BUS_MASTER_PORT + 2, INTERRUPT | ACTIVE)
    assert ide.master_status == 0


def test_a_function_that_may_not_use_the_bus_waits_until_it_may(ide):
    ide.config_write(0x04, 0x0001)
    ide.bench.write(PRDT, prds((BUFFER, 512)))
    ide.bench.outl(BUS_MASTER_PORT + 4, PRDT)
    ide.command(READ, 5, 1)
    ide.start()
    assert (ide.master_status, ide.alternate) == (ACTIVE, OK | DRQ)
    assert ide.bench.read(BUFFER, 512) == bytes(512)
    ide.config_write(0x04, 0x0005)
    assert (ide.master_status, ide.status) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 512) == pattern(1, 5)


def test_the_registers_of_the_channels_are_apart_and_reserved_bytes_are_zero(disk):
    pc = Pc(disk, None, make_disk(16, scheduler=disk.scheduler))
    ide = Ide(pc)
    pc.outl(BUS_MASTER_PORT + 4, 0x1234_5678)
    pc.outl(BUS_MASTER_PORT + 12, 0x9ABC_DEF0)
    assert pc.inl(BUS_MASTER_PORT + 4) == 0x1234_5678
    assert [pc.inb(BUS_MASTER_PORT + 12 + n) for n in range(4)] == [0xF0, 0xDE, 0xBC, 0x9A]
    pc.outw(BUS_MASTER_PORT + 6, 0xFFFF)
    assert pc.inl(BUS_MASTER_PORT + 4) == 0xFFFF_5678
    pc.outb(BUS_MASTER_PORT, 0xFE)
    assert pc.inl(BUS_MASTER_PORT) == TO_MEMORY
    assert ide.master_status == 0
    second = Ide(pc, base=0x170, control=0x376, master=BUS_MASTER_PORT + 8)
    assert second.read_dma(3, 2) == pattern(2, 3)
    assert pc.irqs == [0, 1]
    assert ide.master_status == 0


# -- what is no RAM ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regions",
    [
        [(RAM_SIZE, 512)],
        [(RAM_SIZE - 256, 512)],
        [(0xFFFF_FE00, 512)],
        [(BUFFER, 256), (0x8000_0000, 256)],
    ],
)
@pytest.mark.parametrize("opcode", [READ, WRITE])
def test_a_region_outside_ram_ends_the_command_with_errors_on_both_sides(ide, disk, opcode, regions):
    table = prds(*regions)
    assert ide.dma(opcode, 5, 1, table, to_memory=opcode == READ) == (ERROR | INTERRUPT, DRDY | ERR)
    assert ide.error == ABRT
    assert ram_is_untouched(ide, table)
    assert contents(disk) == pattern(4096)
    assert "not RAM" in ide.bench.trace.guest_errors[0]
    assert ide.read_dma(5, 1) == pattern(1, 5)


@pytest.mark.parametrize("address", [RAM_SIZE, RAM_SIZE - 4, 0xFFFF_FFFC])
def test_a_table_outside_ram_ends_the_command_with_errors_on_both_sides(ide, address):
    ide.bench.outl(BUS_MASTER_PORT + 4, address)
    ide.command(READ, 5, 1)
    ide.start()
    assert (ide.master_status, ide.status, ide.error) == (ERROR | INTERRUPT, DRDY | ERR, ABRT)


def test_a_table_that_runs_out_of_ram_is_used_as_far_as_it_is_needed(ide):
    # One entry without an end mark in the last 8 bytes of RAM.
    ide.bench.write(RAM_SIZE - 8, prd(BUFFER, 512))
    ide.bench.outl(BUS_MASTER_PORT + 4, RAM_SIZE - 8)
    ide.command(READ, 5, 1)
    ide.start()
    assert (ide.master_status, ide.status) == (ACTIVE | INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 512) == pattern(1, 5)


def test_dma_over_its_own_table_has_read_the_table_before(ide):
    table = prds((PRDT, 1024))
    assert ide.dma(READ, 5, 2, table) == (INTERRUPT, OK)
    assert ide.bench.read(PRDT, 1024) == pattern(2, 5)


def test_the_wrong_direction_is_in_the_trace_and_the_commands_counts(ide, disk):
    assert ide.dma(READ, 5, 1, prds((BUFFER, 512)), to_memory=False) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 512) == pattern(1, 5)
    assert contents(disk) == pattern(4096)
    assert "direction" in ide.bench.trace.guest_errors[0]


def test_a_command_without_data_phase_leaves_the_bus_master_alone(ide):
    ide.bench.outb(BUS_MASTER_PORT, START | TO_MEMORY)
    ide.call(0xE5)
    assert ide.master_status == ACTIVE | INTERRUPT, "any interrupt of the drive is shown"
    ide.stop()
    assert ide.master_status == INTERRUPT
