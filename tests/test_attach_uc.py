"""A controller on somebody else's Unicorn: in place or by copies, at once or later, beside other mappings."""

import ctypes
import mmap
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from unicorn import UC_ARCH_ARM64, UC_MODE_ARM, UC_PROT_ALL, UC_PROT_READ, Uc, arm64_const

from e2kdisk import UsageError, VirtioBlk, VirtioMmio, attach, open_disk
from tests.guest_code import CALL_STORE_CALL, IN, OUT, STORE, Layout, returning

pytestmark = pytest.mark.guest

ROOT = Path(__file__).resolve().parent.parent
RAM, RAM_SIZE, BASE = 0x10_0000, 0x10_0000, 0x0A00_0000
DATA = RAM + 0x4_0000
SECTOR = b"sector one of the disk".ljust(512, b".")


class Host:
    """An emulator of somebody who has never heard of us."""

    def __init__(self, in_place):
        self.uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
        self.layout = Layout(RAM + 0x1000)
        self.levels = []
        self.ram = None
        if in_place:
            memory = mmap.mmap(-1, RAM_SIZE)
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            self.uc.mem_map_ptr(RAM, RAM_SIZE, UC_PROT_ALL, address)
            self.ram = {RAM: memory}
        else:
            self.uc.mem_map(RAM, RAM_SIZE)

    def attach(self, disk, base=BASE, **options):
        controller = VirtioMmio(VirtioBlk(disk))
        return attach(self.uc, controller, base=base, irq=self.levels.append, ram=self.ram, **options)

    def run(self, code=STORE, base=BASE, x4=0):
        self.uc.mem_write(RAM, code)
        for register, value in (("X0", self.layout.table), ("X3", base), ("X4", x4)):
            self.uc.reg_write(getattr(arm64_const, f"UC_ARM64_REG_{register}"), value)
        self.uc.emu_start(RAM, RAM + len(code))

    def request(self, kind, sector, data=DATA, length=512, **options):
        for address, content in self.layout.memory(kind, sector, data, length).items():
            self.uc.mem_write(address, content)
        self.run(**options)

    @property
    def status(self):
        """Status byte, entries in the used ring, used length."""
        used = struct.unpack("<HHII", self.uc.mem_read(self.layout.used, 12))
        return self.uc.mem_read(self.layout.status, 1)[0], used[1], used[3]


@pytest.fixture(params=[True, False], ids=["in-place", "copies"])
def host(request):
    return Host(request.param)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(512) + SECTOR + bytes(1 << 20))
    return path


def test_a_read_is_done_when_the_store_that_started_it_is(host, image):
    with open_disk(image, format="raw") as disk, host.attach(disk):
        host.request(IN, 1)
        assert host.status == (0, 1, 513)
        assert host.uc.mem_read(DATA, 512) == SECTOR
        assert host.levels == [True]


@pytest.mark.parametrize("engine", ["auto", "threads"])
def test_a_write_arrives_on_the_disk(host, image, engine):
    with open_disk(image, format="raw", engine=engine) as disk, host.attach(disk):
        host.uc.mem_write(DATA, b"\x5a" * 1024)
        host.request(OUT, 3, length=1024)
        assert host.status == (0, 1, 1)
    assert image.read_bytes()[3 * 512 : 5 * 512] == b"\x5a" * 1024


def test_with_threads_poll_or_wait_delivers(host, image):
    with (
        open_disk(image, format="raw", engine="threads") as disk,
        host.attach(disk, asynchronous=True) as attachment,
    ):
        host.request(IN, 1)
        assert host.levels == []
        while not host.status[1]:
            attachment.wait(5)
        assert host.status == (0, 1, 513)
        assert host.uc.mem_read(DATA, 512) == SECTOR
        assert host.levels == [True]
        assert not attachment.poll()
        assert not attachment.wait()


def test_detach_finishes_what_is_in_flight_and_frees_the_page(host, image):
    with open_disk(image, format="raw", engine="threads") as disk:
        attachment = host.attach(disk, asynchronous=True)
        host.uc.mem_write(DATA, b"\x77" * 512)
        host.request(OUT, 9)
        attachment.detach()
        attachment.detach()
        assert [region[0] for region in host.uc.mem_regions()] == [RAM]
        host.attach(disk)
    assert image.read_bytes()[9 * 512 : 10 * 512] == b"\x77" * 512


def test_dma_over_code_that_has_run_executes_the_new_code(host, image):
    with image.open("r+b") as file:
        file.write(returning(2))
    code = RAM + 0x8_0000
    with open_disk(image, format="raw") as disk, host.attach(disk):
        host.uc.mem_write(code, returning(1))
        host.request(IN, 0, data=code, code=CALL_STORE_CALL[:32], x4=code)
    results = [host.uc.reg_read(register) for register in (arm64_const.UC_ARM64_REG_X20, arm64_const.UC_ARM64_REG_X21)]
    assert results == [1, 2]


def test_controllers_share_a_page_and_need_not_begin_one(host, image, tmp_path):
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(512) + SECTOR[::-1] + bytes(1 << 20))
    with open_disk(image, format="raw") as first, open_disk(other, format="raw") as second:
        attachments = [host.attach(first, BASE + 0x600), host.attach(second, BASE + 0x800)]
        host.request(IN, 1, base=BASE + 0x800)
        assert host.uc.mem_read(DATA, 512) == SECTOR[::-1]
        attachments[1].detach()
        host.request(IN, 1, base=BASE + 0x600)
        assert host.uc.mem_read(DATA, 512) == SECTOR
        with pytest.raises(UsageError, match=r"virtio-blk at 0xa000700 overlaps virtio-blk at 0xa000600"):
            host.attach(second, BASE + 0x700)
        attachments[0].detach()


def test_a_base_on_somebodys_memory_is_refused_in_one_line(host, image):
    with open_disk(image, format="raw") as disk:
        with pytest.raises(UsageError, match=r"the page at 0x110000 is mapped already \(from 0x100000 to 0x1fffff\)"):
            host.attach(disk, RAM + 0x10000)
        host.attach(disk).detach()


def test_wild_addresses_break_the_device_not_the_emulator(host, image):
    with open_disk(image, format="raw") as disk, host.attach(disk):
        for address in (BASE, RAM + RAM_SIZE - 256, 0x7777_0000, (1 << 64) - 512):
            host.request(IN, 1, data=address)
            assert host.status[1] == 0 or host.status[0] != 0


def test_read_only_memory_is_no_place_for_dma(image):
    host = Host(in_place=False)
    host.uc.mem_map(0x40_0000, 0x1000, UC_PROT_READ)
    with open_disk(image, format="raw") as disk, host.attach(disk):
        host.request(IN, 1, data=0x40_0000)
        assert host.uc.mem_read(0x40_0000, 512) == bytes(512)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_configuration_reads_at_every_width(host, image, size):
    # ldrb/ldrh/ldr w/ldr x: [x3, #0x100] is the capacity in sectors.
    load = {1: 0x39440061, 2: 0x79420061, 4: 0xB9410061, 8: 0xF9408061}[size]
    with open_disk(image, format="raw") as disk, host.attach(disk):
        host.run(struct.pack("<I", load))
        assert host.uc.reg_read(arm64_const.UC_ARM64_REG_X1) == disk.size // 512 & (1 << 8 * size) - 1


def test_an_error_of_ours_comes_out_of_the_owners_emu_start(host, image):
    def fail(level):
        raise ZeroDivisionError("in the owner's irq")

    host.levels = type("", (), {"append": staticmethod(fail)})
    with open_disk(image, format="raw") as disk:
        host.attach(disk)
        with pytest.raises(ZeroDivisionError, match="in the owner's irq"):
            host.request(IN, 1)


def test_a_read_only_buffer_for_ram_is_refused(image):
    host = Host(in_place=False)
    host.ram = {RAM: bytes(RAM_SIZE)}
    with (
        open_disk(image, format="raw") as disk,
        pytest.raises(UsageError, match="buffer for RAM at 0x100000 is read-only"),
    ):
        host.attach(disk)


def test_the_example_runs_and_is_short(capsys):
    path = ROOT / "examples/attach_to_your_unicorn.py"
    assert len(path.read_text().splitlines()) < 40
    runpy.run_path(str(path))
    assert "Hello from sector 0 of a qcow2 disk." in capsys.readouterr().out


def test_attach_alone_loads_neither_boards_nor_capstone():
    code = "import sys; from e2kdisk import attach; print([m for m in sys.modules if 'boards' in m or m == 'capstone'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
