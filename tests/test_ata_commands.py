"""Each ATA command: what it moves, what the registers say afterwards, and how it refuses."""

import struct

import pytest

from e2kdisk.devices.ata import AtaDevice, Identity, Kind
from e2kdisk.devices.ata.commands import COMMANDS, Protocol
from tests.ata_driver import (
    ABRT,
    BUFFER,
    DRDY,
    DRQ,
    DSC,
    ERR,
    HOB,
    IDNF,
    INTERRUPT,
    NIEN,
    Ide,
    Pc,
    contents,
    make_disk,
    pattern,
    prds,
)

SECTORS = 4096
OK = DRDY | DSC
READS, READS_WIDE, READS_DMA = (0x20, 0x21), (0x24,), (0xC8, 0xC9)


@pytest.fixture
def disk():
    return make_disk(SECTORS, serial="E2K-0001")


@pytest.fixture
def ide(disk):
    return Ide(Pc(disk))


def aborted(ide, status, error=ABRT):
    assert (status, ide.error) == (DRDY | ERR, error)
    return True


# -- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4], ids=["16 bits", "32 bits"])
@pytest.mark.parametrize("opcode", [0x20, 0x21, 0x24])
def test_read_sectors_gives_each_sector_once(ide, opcode, width):
    ide.command(opcode, 7, 3, wide=opcode == 0x24)
    for sector in (7, 8, 9):
        assert ide.status == OK | DRQ
        assert ide.read_block(width=width) == pattern(1, sector)
    assert ide.status == OK


def test_a_count_of_zero_stands_for_256_sectors(ide):
    assert ide.pio_in(0x20, 100, 0) == pattern(256, 100)


def test_a_wide_count_of_zero_stands_for_65536_sectors():
    ide = Ide(Pc(make_disk(0x10000), ram_size=33 << 20))
    table = prds(*((BUFFER + at, 0x10000) for at in range(0, 32 << 20, 0x10000)))
    assert ide.dma(0x25, 0, 0, table, wide=True) == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 32 << 20) == pattern(0x10000)


def test_the_registers_name_the_next_sector_while_data_flows(ide):
    ide.command(0x20, 0x7FE, 3)
    assert (ide.reg(2), ide.lba) == (2, 0x7FF)
    ide.read_block()
    assert (ide.reg(2), ide.lba) == (1, 0x800)


def test_one_disk_request_fills_many_blocks(ide, disk, monkeypatch):
    asked = []
    read = disk.node.read
    monkeypatch.setattr(
        disk, "_node_read", lambda offset, iov: asked.append((offset, iov[0].nbytes)) or read(offset, iov)
    )
    assert ide.pio_in(0x20, 10, 200) == pattern(200, 10)
    assert asked == [(10 * 512, 200 * 512)]
    asked.clear()
    assert ide.pio_in(0x24, 0, 600, wide=True) == pattern(600)
    assert asked == [(0, 256 * 512), (256 * 512, 256 * 512), (512 * 512, 88 * 512)]


@pytest.mark.parametrize(("opcode", "wide"), [(0xC4, False), (0x29, True)])
def test_read_multiple_interrupts_once_a_block(ide, opcode, wide):
    assert ide.call(0xC6, 0, 8) == OK
    ide.bench.irqs[0] = 0
    assert ide.pio_in(opcode, 3, 20, block=8, wide=wide) == pattern(20, 3)
    assert ide.bench.irqs[0] == 3


@pytest.mark.parametrize(("opcode", "wide"), [(0xC8, False), (0xC9, False), (0x25, True)])
def test_read_dma_goes_straight_to_memory_and_its_translations_are_dropped(ide, opcode, wide):
    status = ide.dma(opcode, 5, 8, prds((BUFFER, 1024), (BUFFER + 0x2000, 3072)), wide=wide)
    assert status == (INTERRUPT, OK)
    assert ide.bench.read(BUFFER, 1024) + ide.bench.read(BUFFER + 0x2000, 3072) == pattern(8, 5)
    assert ide.bench.published == [(BUFFER, BUFFER + 1024), (BUFFER + 0x2000, BUFFER + 0x2000 + 3072)]
    assert (ide.reg(2), ide.lba & 0xFFFFFF) == (0, 13)


@pytest.mark.parametrize(("opcode", "wide"), [(0x40, False), (0x41, False), (0x42, True)])
def test_verify_reads_all_and_gives_none(ide, opcode, wide, disk, monkeypatch):
    asked = []
    read = disk.node.read
    monkeypatch.setattr(disk, "_node_read", lambda offset, iov: asked.append(iov[0].nbytes) or read(offset, iov))
    assert ide.call(opcode, 9, 200, wide=wide) == OK
    assert sum(asked) == 200 * 512
    assert aborted(ide, ide.call(opcode, SECTORS - 1, 2, wide=wide), IDNF)


# -- writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4], ids=["16 bits", "32 bits"])
@pytest.mark.parametrize(("opcode", "wide"), [(0x30, False), (0x31, False), (0x3C, False), (0x34, True)])
def test_write_sectors_writes_and_interrupts_after_each(ide, disk, opcode, wide, width):
    ide.command(opcode, 4, 2, wide=wide)
    assert ide.bench.irqs[0] == 0, "the first block is asked for without an interrupt"
    for value in (b"a", b"b"):
        assert ide.status == OK | DRQ
        ide.write_block(value * 512, width)
    assert ide.bench.irqs[0] == 2
    assert ide.status == OK
    assert contents(disk)[3 * 512 : 7 * 512] == pattern(1, 3) + b"a" * 512 + b"b" * 512 + pattern(1, 6)


@pytest.mark.parametrize(("opcode", "wide"), [(0xC5, False), (0x39, True), (0xCE, True)])
def test_write_multiple_takes_whole_blocks(ide, disk, opcode, wide):
    ide.call(0xC6, 0, 4)
    ide.bench.irqs[0] = 0
    assert ide.pio_out(opcode, pattern(10, 1000), 50, block=4, wide=wide) == OK
    assert ide.bench.irqs[0] == 3
    assert contents(disk)[50 * 512 : 60 * 512] == pattern(10, 1000)


@pytest.mark.parametrize(("opcode", "wide"), [(0xCA, False), (0xCB, False), (0x35, True), (0x3D, True)])
def test_write_dma_goes_straight_from_memory(ide, disk, opcode, wide):
    ide.bench.write(BUFFER, pattern(4, 500))
    assert ide.dma(opcode, 2, 4, prds((BUFFER, 2048)), to_memory=False, wide=wide) == (INTERRUPT, OK)
    assert contents(disk)[: 8 * 512] == pattern(2) + pattern(4, 500) + pattern(2, 6)


@pytest.mark.parametrize("opcode", [0x3C, 0x3D, 0xCE])
def test_fua_and_verified_writes_are_durable(ide, disk, opcode, monkeypatch):
    flushes = []
    flush = disk.node.flush
    monkeypatch.setattr(disk.node, "flush", lambda: flushes.append(True) or flush())
    ide.call(0xC6, 0, 1)
    if opcode == 0x3D:
        ide.dma(opcode, 2, 1, prds((BUFFER, 512)), to_memory=False, wide=True)
    else:
        ide.pio_out(opcode, bytes(512), 2, wide=opcode == 0xCE)
    assert flushes == [True]


@pytest.mark.parametrize("opcode", [command.opcode for command in COMMANDS.values() if command.modifies])
def test_a_read_only_disk_refuses_every_change(opcode):
    disk = make_disk(64, read_only=True)
    kind = Kind.CFA if not COMMANDS[opcode].kinds & Kind.DISK else Kind.DISK
    ide = Ide(Pc(AtaDevice(disk, kind=kind)))
    ide.call(0xC6, 0, 1)
    assert aborted(ide, ide.call(opcode, 0, 1, feature=1))
    assert contents(disk) == pattern(64)


# -- addresses --------------------------------------------------------------------------------------


def test_cylinder_head_and_sector_name_the_same_sectors(ide):
    # 16 heads of 63 sectors: (cylinder * 16 + head) * 63 + sector - 1
    assert ide.pio_in(0x20, 0, 2, chs=(2, 3, 63)) == pattern(2, (2 * 16 + 3) * 63 + 62)
    assert (ide.reg(5) << 8 | ide.reg(4), ide.reg(6) & 15, ide.reg(3)) == (2, 4, 2)


@pytest.mark.parametrize("chs", [(0, 0, 0), (0, 0, 64), (5, 0, 1), (0xFFFF, 15, 63)])
def test_a_sector_that_the_translation_does_not_have_is_not_found(ide, chs):
    assert aborted(ide, ide.call(0x20, 0, 1, chs=chs), IDNF)


def test_initialize_device_parameters_changes_the_translation(ide):
    assert ide.call(0x91, 0, 17, chs=(0, 7, 1)) == OK
    assert ide.pio_in(0x20, 0, 1, chs=(1, 2, 3)) == pattern(1, (8 + 2) * 17 + 2)
    words = struct.unpack("<256H", ide.pio_in(0xEC))
    assert words[54:57] == (SECTORS // 136, 8, 17)
    assert aborted(ide, ide.call(0x20, 0, 1, chs=(0, 8, 1)), IDNF)
    assert aborted(ide, ide.call(0x91, 0, 0, chs=(0, 7, 1))), "no sectors in a track"


@pytest.mark.parametrize("opcode", [0x20, 0xC8, 0x30, 0xCA, 0x40, 0x70])
def test_a_sector_beyond_the_end_is_not_found(ide, opcode):
    assert aborted(ide, ide.call(opcode, SECTORS, 1), IDNF)
    assert aborted(ide, ide.call(opcode, (1 << 28) - 1, 1), IDNF)


@pytest.mark.parametrize("opcode", [0x24, 0x25, 0x34, 0x35, 0x42])
def test_a_wide_sector_beyond_the_end_is_not_found(ide, opcode):
    assert aborted(ide, ide.call(opcode, 1 << 47, 1, wide=True), IDNF)


def test_a_read_over_the_end_gives_what_there_is_and_names_the_first_missing_sector(ide):
    assert ide.pio_in(0x20, SECTORS - 2, 4) == pattern(2, SECTORS - 2)
    assert aborted(ide, ide.status, IDNF)
    assert (ide.lba, ide.reg(2)) == (SECTORS, 2)


def test_a_write_over_the_end_writes_what_there_is(ide, disk):
    assert ide.pio_out(0x30, b"z" * 2048, SECTORS - 1) == DRDY | ERR
    assert ide.error == IDNF
    assert contents(disk) == pattern(SECTORS - 1) + b"z" * 512


def test_a_dma_over_the_end_moves_nothing(ide, disk):
    ide.bench.write(BUFFER, b"z" * 2048)
    assert aborted(ide, ide.call(0xCA, SECTORS - 1, 4), IDNF)
    assert aborted(ide, ide.call(0xC8, SECTORS - 1, 4), IDNF)
    assert contents(disk) == pattern(SECTORS)


def test_the_previous_bytes_are_read_with_hob(ide):
    ide.select()
    for index in range(1, 6):
        ide.set_reg(index, 0x10 + index)
        ide.set_reg(index, 0x20 + index)
    assert [ide.reg(index) for index in range(2, 6)] == [0x22, 0x23, 0x24, 0x25]
    ide.set_control(HOB | NIEN)
    assert [ide.reg(index) for index in range(1, 6)] == [0x11, 0x12, 0x13, 0x14, 0x15]
    ide.set_reg(2, 0)  # any write to the command block ends it
    assert ide.reg(3) == 0x23


def test_read_native_max_names_the_last_sector(ide):
    assert ide.call(0xF8) == OK
    assert ide.lba == SECTORS - 1
    assert ide.call(0x27, wide=True) == OK
    assert ide.lba48 == SECTORS - 1
    ide.select(0, 0)
    ide.set_reg(7, 0xF8)
    assert (ide.reg(5) << 8 | ide.reg(4), ide.reg(6) & 15, ide.reg(3)) == (4, 1, 1)


def test_the_trace_tells_when_a_command_begins_and_what_it_moves(ide):
    ide.pio_in(0x20, 7, 3)
    ide.dma(0xC8, 9, 4, prds((BUFFER, 2048)))
    ide.call(0xE7)
    ide.pio_in(0x20, SECTORS - 2, 4)
    events = [
        (kind, fields["type"], fields["sector"], fields["bytes"], fields.get("status"))
        for _, kind, fields in ide.bench.trace
        if kind in ("submit", "request")
    ]
    assert events == [
        ("submit", "READ SECTOR(S)", 7, 1536, None),
        ("request", "READ SECTOR(S)", 7, 1536, 0),
        ("submit", "READ DMA", 9, 2048, None),
        ("request", "READ DMA", 9, 2048, 0),
        ("submit", "FLUSH CACHE", 0, 0, None),
        ("request", "FLUSH CACHE", 0, 0, 0),
        ("submit", "READ SECTOR(S)", SECTORS - 2, 2048, None),
        ("request", "READ SECTOR(S)", SECTORS - 2, 1024, IDNF),
    ]


# -- IDENTIFY ---------------------------------------------------------------------------------------


def identify(ide):
    return struct.unpack("<256H", ide.pio_in(0xEC))


def text(words):
    return struct.pack(f">{len(words)}H", *words).decode().rstrip()


def test_identify_tells_names_capacity_and_modes(ide):
    words = identify(ide)
    assert text(words[10:20]) == "E2K-0001"
    assert text(words[23:27]) == "1.0"
    assert text(words[27:47]) == "E2KDISK HARDDISK"
    assert words[1] * words[3] * words[6] <= SECTORS
    assert (words[3], words[6]) == (16, 63)
    assert words[60] | words[61] << 16 == SECTORS
    assert words[100] | words[101] << 16 == SECTORS
    assert words[47] & 0xFF == 16
    assert words[49] & 0x300 == 0x300  # LBA and DMA
    assert words[63] & 0x07 == 0x07
    assert words[88] == 0x203F  # Ultra DMA 5 is chosen
    assert words[82] & 0x20 and words[85] & 0x20  # write cache
    assert words[83] & 0x3400 == 0x3400  # FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses
    assert words[169] & 1  # TRIM
    assert words[87] & 0x100 and words[108] >> 12 == 5  # World Wide Name
    assert sum(struct.pack("<256H", *words)) & 0xFF == 0  # integrity word


def test_the_28_bit_capacity_ends_where_its_registers_do():
    class Huge:
        size = 1 << 40

    disk = make_disk(16)
    drive = AtaDevice(disk)
    ide = Ide(Pc(drive))
    disk.node.size = Huge.size
    words = identify(ide)
    assert words[60] | words[61] << 16 == (1 << 28) - 1
    assert sum(words[100 + i] << 16 * i for i in range(4)) == 1 << 31
    assert words[1] == 16383
    ide.call(0xF8)
    assert ide.lba == (1 << 28) - 1


def test_names_and_capacities_of_four_drives_differ():
    disks = [make_disk(64)]
    disks += [make_disk(64 * n, scheduler=disks[0].scheduler) for n in (2, 3, 4)]
    pc = Pc(*disks)
    found = set()
    for base, control in ((0x1F0, 0x3F6), (0x170, 0x376)):
        ide = Ide(pc, base=base, control=control)
        for unit in (0, 1):
            ide.select(unit)
            words = identify(ide)
            found.add((text(words[10:20]), words[60], words[108:112]))
    assert len(found) == 4
    assert {capacity for _, capacity, _ in found} == {64, 128, 192, 256}


def test_an_identity_is_cut_to_what_the_words_hold():
    drive = AtaDevice(make_disk(16), identity=Identity("s" * 30, "m" * 50, "f" * 10, wwn=0x5000_1111_2222_3333))
    words = identify(Ide(Pc(drive)))
    assert (text(words[10:20]), text(words[23:27]), text(words[27:47])) == ("s" * 20, "f" * 8, "m" * 40)
    assert words[108:112] == (0x5000, 0x1111, 0x2222, 0x3333)


@pytest.mark.parametrize("sectors", [1, 2, 62, 63, 64, 1007, 1008])
def test_a_tiny_disk_has_a_geometry(sectors):
    ide = Ide(Pc(make_disk(sectors)))
    words = identify(ide)
    assert 1 <= words[1] * words[3] * words[6] <= sectors
    assert ide.pio_in(0x20, 0, 1, chs=(0, 0, 1)) == pattern(1)


# -- features and modes -------------------------------------------------------------------------------


def test_the_write_cache_is_switched_and_shown(ide, disk, monkeypatch):
    flushes = []
    flush = disk.node.flush
    monkeypatch.setattr(disk.node, "flush", lambda: flushes.append(True) or flush())
    assert ide.call(0xEF, feature=0x82) == OK
    assert not disk.write_cache
    assert flushes == [True]
    assert not identify(ide)[85] & 0x20
    assert ide.call(0xEF, feature=0x02) == OK
    assert disk.write_cache
    assert identify(ide)[85] & 0x20


@pytest.mark.parametrize(
    ("mode", "words"), [(0x22, (0x407, 0x3F)), (0x20, (0x107, 0x3F)), (0x42, (0x07, 0x43F)), (0x0C, (0x07, 0x203F))]
)
def test_a_transfer_mode_is_chosen_and_shown(ide, mode, words):
    assert ide.call(0xEF, count=mode, feature=0x03) == OK
    found = identify(ide)
    assert (found[63], found[88]) == words


@pytest.mark.parametrize("mode", [0x0D, 0x10, 0x23, 0x46, 0x80, 0xFF])
def test_a_transfer_mode_that_the_drive_does_not_have_is_refused(ide, mode):
    assert aborted(ide, ide.call(0xEF, count=mode, feature=0x03))


@pytest.mark.parametrize("feature", [0x00, 0x01, 0x99, 0xFF])
def test_an_unknown_feature_is_refused(ide, feature):
    assert aborted(ide, ide.call(0xEF, feature=feature))


def test_multiple_mode_is_a_power_of_two_up_to_sixteen(ide):
    for opcode in (0xC4, 0xC5, 0x29, 0x39, 0xCE):
        assert aborted(ide, ide.call(opcode, 0, 1, wide=opcode not in (0xC4, 0xC5)))
    for count in (1, 2, 4, 8, 16):
        assert ide.call(0xC6, 0, count) == OK
        assert identify(ide)[59] == 0x100 | count
    for count in (3, 32, 255):
        assert aborted(ide, ide.call(0xC6, 0, count))
    assert identify(ide)[59] == 0x110
    assert ide.call(0xC6, 0, 0) == OK
    assert identify(ide)[59] == 0


def test_power_modes(ide):
    def mode():
        assert ide.call(0xE5) == OK
        return ide.reg(2)

    assert mode() == 0xFF
    for down in (0xE0, 0x94, 0xE2, 0x96, 0xE6, 0x99):
        assert ide.call(down) == DRDY
        assert mode() == 0x00
        assert ide.call(0xE1) == DRDY
        assert mode() == 0xFF
    ide.call(0xE0)
    ide.pio_in(0x20)
    assert mode() == 0xFF, "a command that needs the medium wakes it"


# -- the rest of the table ----------------------------------------------------------------------------


def test_flush_reaches_the_disk(ide, disk, monkeypatch):
    flushes = []
    flush = disk.node.flush
    monkeypatch.setattr(disk.node, "flush", lambda: flushes.append(True) or flush())
    assert [ide.call(0xE7), ide.call(0xEA)] == [OK, OK]
    assert len(flushes) == 2


def test_trim_discards_ranges(ide, disk):
    entries = struct.pack("<3Q", 10 | 2 << 48, 100 | 1 << 48, 7).ljust(512, b"\0")
    ide.bench.write(BUFFER, entries)
    assert ide.dma(0x06, 0, 1, prds((BUFFER, 512)), to_memory=False, feature=1, wide=True) == (INTERRUPT, OK)
    zeros = [at for at in range(SECTORS) if not any(contents(disk)[512 * at : 512 * at + 512])]
    assert zeros == [10, 11, 100]


def test_a_trim_with_one_wrong_range_changes_nothing(ide, disk):
    ide.bench.write(BUFFER, struct.pack("<2Q", 10 | 2 << 48, SECTORS - 1 | 2 << 48).ljust(512, b"\0"))
    assert ide.dma(0x06, 0, 1, prds((BUFFER, 512)), to_memory=False, feature=1, wide=True) == (INTERRUPT, DRDY | ERR)
    assert contents(disk) == pattern(SECTORS)


def test_trim_of_too_many_blocks_or_another_function_is_refused(ide):
    for count, feature in ((9, 1), (0, 1), (1, 0), (1, 2)):
        assert aborted(ide, ide.call(0x06, 0, count, feature=feature, wide=True))


def test_buffer_commands_keep_a_sector_apart_from_the_medium(ide, disk):
    assert ide.pio_out(0xE8, b"kept" * 128, count=0) == OK
    ide.pio_in(0x20, 3)
    assert ide.pio_in(0xE4) == b"kept" * 128
    assert contents(disk) == pattern(SECTORS)


@pytest.mark.parametrize("opcode", [0x10, 0x1F, 0x70, 0x7F, 0xF5])
def test_commands_with_nothing_to_do_succeed(ide, opcode):
    assert ide.call(opcode) == OK


@pytest.mark.parametrize("opcode", [0x00, 0xA0, 0xA1, 0x03, 0x38, 0x87, 0xC0, 0xCD, 0xFF, 0xEE])
def test_unknown_commands_are_refused(ide, opcode):
    assert aborted(ide, ide.call(opcode))


def test_every_opcode_ends_with_a_status(ide):
    """Nothing hangs: each of the 256 ends, asks for data, or waits for the bus master."""
    known = 0
    for opcode in range(256):
        ide.call(opcode, 1, 1)
        status = ide.alternate
        assert status in (DRDY, OK, DRDY | ERR, OK | DRQ), hex(opcode)
        known += status != DRDY | ERR
        ide.set_control(4)
        ide.set_control(0)
    assert known > 60


def test_diagnostic_shows_the_signature_of_both(disk):
    pc = Pc(disk, make_disk(16, scheduler=disk.scheduler))
    ide = Ide(pc)
    ide.select(1)
    ide.set_reg(2, 99)
    ide.set_reg(7, 0x90)
    assert pc.irqs[0] == 1
    for unit in (0, 1):
        assert ide.registers() == (OK, 1, 1, 1, 0, 0, 0xA0 | unit << 4)
        ide.set_reg(6, 0xB0)


def test_smart_reads_data_thresholds_and_logs_with_checksums(ide):
    def smart(feature, low=0, count=1):
        return {"lba": 0xC24F00 | low, "count": count, "feature": feature}

    for options in (smart(0xD0), smart(0xD1), smart(0xD5, 0x01), smart(0xD5, 0x06)):
        block = ide.pio_in(0xB0, **options)
        assert len(block) == 512
        assert sum(block) & 0xFF == 0
    assert ide.pio_in(0xB0, **smart(0xD5, 0x00))[2:4] == b"\1\0"  # the directory: one page of log 1
    assert ide.call(0xB0, **smart(0xDA)) == OK
    assert ide.lba & 0xFFFF00 == 0xC24F00  # no threshold exceeded
    assert ide.call(0xB0, **smart(0xD4, 0x01)) == OK
    assert ide.pio_in(0xB0, **smart(0xD5, 0x06))[508] == 1
    assert aborted(ide, ide.call(0xB0, **smart(0xD4, 0x55)))
    assert aborted(ide, ide.call(0xB0, **smart(0xD5, 0x77)))
    assert ide.call(0xB0, **smart(0xD2, count=0xF1)) == OK
    assert aborted(ide, ide.call(0xB0, **smart(0xD2, count=7)))
    assert aborted(ide, ide.call(0xB0, 0, 1, feature=0xDA)), "without the key"


def test_smart_can_be_switched_off_and_on(ide):
    assert ide.call(0xB0, 0xC24F00, feature=0xD9) == OK
    assert not identify(ide)[85] & 1
    assert aborted(ide, ide.call(0xB0, 0xC24F00, feature=0xDA))
    assert ide.call(0xB0, 0xC24F00, feature=0xD8) == OK
    assert ide.call(0xB0, 0xC24F00, feature=0xDA) == OK


def test_a_compact_flash_card_knows_its_own_commands(disk):
    ide = Ide(Pc(AtaDevice(disk, kind=Kind.CFA)))
    assert identify(ide)[0] == 0x848A
    assert ide.pio_out(0x38, b"c" * 512, 5) == OK
    block = ide.pio_in(0x87, 0x123)
    assert (block[3], int.from_bytes(block[4:7], "big")) == (0x23, 0x123)
    assert ide.call(0xC0, 100, 2) == OK
    assert ide.pio_in(0x20, 100, 2) == bytes(1024)
    assert ide.call(0x03) == OK
    assert ide.error == 0
    assert aborted(ide, ide.call(0xEF, feature=0xFF))
    assert ide.call(0x03) == OK
    assert ide.error == 0x20
    ide.call(0xC6, 0, 2)
    assert ide.pio_out(0xCD, b"d" * 1024, 8, block=2) == OK
    assert contents(disk)[5 * 512 : 6 * 512] == b"c" * 512
    assert contents(disk)[8 * 512 : 10 * 512] == b"d" * 1024


def test_the_table_says_what_a_command_does_with_data():
    """The documentation is the table: each protocol has its commands, each opcode one entry."""
    by_protocol = {protocol: {c.opcode for c in COMMANDS.values() if c.protocol is protocol} for protocol in Protocol}
    assert by_protocol[Protocol.DMA] == {0x06, 0x25, 0x35, 0x3D, 0xC8, 0xC9, 0xCA, 0xCB}
    assert {0xEC, 0x20, 0xC4, 0xE4} < by_protocol[Protocol.PIO_IN]
    assert {0x30, 0xC5, 0xE8} < by_protocol[Protocol.PIO_OUT]
    assert all(command.section.startswith("ATA") for command in COMMANDS.values())
