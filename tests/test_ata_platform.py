"""The plain MMIO task file: any stride, and on somebody else's Unicorn with a guest that reads a sector by PIO."""

import struct

import pytest
from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, Uc, arm64_const

from e2kdisk import AtaPlatform, UsageError, attach, open_disk
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from tests.ata_driver import ABRT, DRDY, DSC, ERR, LBA, contents, make_disk, pattern

OK = DRDY | DSC
BASE, CODE, DATA = 0x0A00_0000, 0x1000, 0x2000


class Mmio:
    """A driver with loads and stores of one width for the registers."""

    def __init__(self, *disks, stride=1, width=1, **options):
        self.ata = AtaPlatform(*disks, stride=stride, **options)
        self.levels = []
        self.ata.connect(RamMemory(), IrqLine(self.levels.append))
        self.stride, self.width = stride, width

    def reg(self, index):
        return self.ata.read(index * self.stride, self.width)

    def set_reg(self, index, value):
        self.ata.write(index * self.stride, self.width, value)

    def command(self, opcode, lba, count):
        for index, value in ((6, 0xA0 | LBA), (2, count), (3, lba & 0xFF), (4, lba >> 8), (5, 0), (7, opcode)):
            self.set_reg(index, value)

    def block(self, size=2):
        return b"".join(self.ata.read(0, size).to_bytes(size, "little") for _ in range(512 // size))


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize(("stride", "width"), [(1, 1), (2, 2), (4, 4), (4, 1), (8, 8), (16, 4)])
def test_every_stride_reads_and_writes(stride, width, size):
    disk = make_disk(512)
    host = Mmio(disk, stride=stride, width=width)
    host.command(0x20, 300, 2)
    assert host.block(size) + host.block(size) == pattern(2, 300)
    assert host.reg(7) == OK
    host.command(0x30, 5, 1)
    for _ in range(0, 512, size):
        host.ata.write(0, size, int.from_bytes(b"w" * size, "little"))
    assert contents(disk)[5 * 512 : 6 * 512] == b"w" * 512
    assert host.levels == [True, False, True]


@pytest.mark.parametrize(("options", "control"), [({}, 14 * 4), ({"control": 0x100}, 0x100)])
def test_the_control_block_is_where_it_was_said(options, control):
    host = Mmio(make_disk(16), stride=4, **options)
    assert host.ata.size == control + 4
    assert host.ata.register_name(control) == "Alternate Status/Device Control"
    host.command(0xE5, 0, 0)
    assert host.ata.read(control, 1) == OK
    assert host.levels == [True]
    host.ata.write(control, 1, 4)
    assert host.ata.read(control, 1) == 0x80
    host.ata.write(control, 1, 0)
    assert [host.reg(index) for index in (1, 2, 3, 4, 5)] == [1, 1, 1, 0, 0]


def test_without_a_dma_transport_there_is_no_dma():
    host = Mmio(make_disk(16))
    for opcode in (0xC8, 0xCA, 0x25, 0x35, 0x06):
        host.command(opcode, 0, 1)
        assert (host.reg(7), host.reg(1)) == (DRDY | ERR, ABRT)
    host.command(0xEC, 0, 0)
    words = struct.unpack("<256H", host.block())
    assert (words[49] & 0x100, words[63], words[88], words[169]) == (0, 0, 0, 0)


def test_between_the_registers_there_is_nothing():
    host = Mmio(make_disk(16), stride=4)
    for offset in (1, 3, 5, 33, 0x30):
        host.ata.write(offset, 1, 0xFF)
        assert host.ata.read(offset, 1) == 0
        assert host.ata.register_name(offset) == ""
    assert host.ata.register_name(28) == "Status/Command"


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 4, "control": 16}])
def test_a_layout_that_cannot_be_is_refused(options):
    with pytest.raises(UsageError):
        AtaPlatform(make_disk(16), **options)


def test_save_and_load_in_the_middle_of_a_sector():
    disk = make_disk(64)
    host, twin = Mmio(disk), Mmio(disk)
    host.command(0x20, 9, 2)
    first = b"".join(host.ata.read(0, 2).to_bytes(2, "little") for _ in range(100))
    twin.ata.load(host.ata.save())
    rest = b"".join(twin.ata.read(0, 2).to_bytes(2, "little") for _ in range(412))
    assert first + rest == pattern(2, 9)
    with pytest.raises(ValueError, match="another controller"):
        twin.ata.load({"version": 1, "controller": "virtio"})


# -- on a Unicorn -----------------------------------------------------------------------------------

# x3 = controller with stride 4, x1 = buffer, w2 = sector. Polls, reads one sector, 16 bits at a time.
READ_SECTOR = struct.pack(
    "<20I",
    0x52801C04,  # mov w4, #0xe0
    0x39006064,  # strb w4, [x3, #24]      Device: LBA
    0x52800024,  # mov w4, #1
    0x39002064,  # strb w4, [x3, #8]       Sector Count
    0x39003062,  # strb w2, [x3, #12]      LBA Low
    0x3900407F,  # strb wzr, [x3, #16]     LBA Mid
    0x3900507F,  # strb wzr, [x3, #20]     LBA High
    0x52800404,  # mov w4, #0x20
    0x39007064,  # strb w4, [x3, #28]      Command: READ SECTOR(S)
    0x39407064,  # poll: ldrb w4, [x3, #28]
    0x373FFFE4,  # tbnz w4, #7, poll       BSY
    0x361FFFC4,  # tbz w4, #3, poll        DRQ
    0x52802005,  # mov w5, #256
    0x79400064,  # next: ldrh w4, [x3]
    0x78002424,  # strh w4, [x1], #2
    0x510004A5,  # sub w5, w5, #1
    0x35FFFFA5,  # cbnz w5, next
    0x39407064,  # ldrb w4, [x3, #28]
    0xD503201F,  # nop
    0xD503201F,  # nop
)


@pytest.mark.guest
@pytest.mark.parametrize("engine", ["auto", "threads"])
def test_a_guest_reads_a_sector_through_an_attached_task_file(tmp_path, engine):
    image = tmp_path / "disk.raw"
    image.write_bytes(pattern(16))
    uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
    uc.mem_map(0, 0x10000)
    uc.mem_write(CODE, READ_SECTOR)
    levels = []
    with (
        open_disk(image, format="raw", engine=engine) as disk,
        attach(uc, AtaPlatform(disk, stride=4), base=BASE, irq=levels.append),
    ):
        for sector in (3, 11):
            for name, value in (("X1", DATA), ("X2", sector), ("X3", BASE)):
                uc.reg_write(getattr(arm64_const, f"UC_ARM64_REG_{name}"), value)
            uc.emu_start(CODE, CODE + len(READ_SECTOR), count=10_000)
            assert uc.mem_read(DATA, 512) == pattern(1, sector)
            assert uc.reg_read(arm64_const.UC_ARM64_REG_X4) == OK
    assert levels == [True, False] * 2
