"""A host's IDE driver in Python, on registers only: the same scripts drive our controllers and QEMU's.

`Pc` is the bench: a PCI bus with one PciIde and RAM, spoken to through ports and memory as tests.qtest_client.Qtest is.
`Ide` is the driver of one channel on such a bench.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from struct import pack
from typing import Any, Protocol

from e2kdisk.aio import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.memory import MemoryNode
from e2kdisk.devices.ata import AtaDevice, PciIde
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.pci.bus import PciBus
from e2kdisk.devices.pci.host import ConfigPorts
from tests.virtio_driver import Events

BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
LBA, DEV1 = 0x40, 0x10
NIEN, SRST, HOB = 2, 4, 0x80
ACTIVE, ERROR, INTERRUPT = 1, 2, 4
START, TO_MEMORY = 1, 8
EOT = 1 << 31

IDE_DEVFN = 1 << 3 | 1
BUS_MASTER_PORT = 0xC000
RAM_SIZE = 1 << 20
PRDT, BUFFER = 0x8000, 0x1_0000


def sector_bytes(sector: int) -> bytes:
    """What make_disk puts into a sector."""
    return b"%015x," % sector * 32


def pattern(sectors: int, first: int = 0) -> bytes:
    return b"".join(sector_bytes(first + sector) for sector in range(sectors))


def make_disk(sectors: int = 4096, *, scheduler: Scheduler | None = None, **options: Any) -> Disk:
    """A disk in memory whose sectors all differ."""
    node = MemoryNode(scheduler or Scheduler(), sectors * 512)
    node.data[:] = pattern(sectors)
    return Disk(node, **options)


def contents(disk: Disk) -> bytearray:
    assert isinstance(disk.node, MemoryNode)
    return disk.node.data


class Bench(Protocol):
    """Ports and memory of a machine whose CPU is the test."""

    def inb(self, port: int) -> int: ...
    def inw(self, port: int) -> int: ...
    def inl(self, port: int) -> int: ...
    def outb(self, port: int, value: int) -> None: ...
    def outw(self, port: int, value: int) -> None: ...
    def outl(self, port: int, value: int) -> None: ...
    def read(self, address: int, length: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...


class Pc:
    """A PCI bus with our IDE function in 01.1, as on a PC."""

    def __init__(self, *disks: Disk | AtaDevice | None, chip: str = "piix3", ram_size: int = RAM_SIZE) -> None:
        self.ide = PciIde(disks, chip=chip)
        self.bus = PciBus(memory=(0x8000_0000, 0x4000_0000))
        self.bus.io.add_fixed(0xCF8, ConfigPorts(self.bus))
        self.bus.add(IDE_DEVFN, self.ide)
        self.published: list[tuple[int, int]] = []
        self.memory = RamMemory(lambda start, end: self.published.append((start, end)))
        self.ram = bytearray(ram_size)
        self.memory.add_bank(0, memoryview(self.ram))
        self.irqs = [0, 0]
        """Rising edges of the legacy wires."""
        self.intx = IrqLine()
        self.wires = [IrqLine(self._counter(0)), IrqLine(self._counter(1))]
        self.ide.connect(self.memory, self.intx)
        self.ide.connect_legacy(*self.wires)
        self.ide.trace = self.trace = Events()

    def _counter(self, number: int) -> Any:
        def edge(level: bool) -> None:
            self.irqs[number] += level

        return edge

    @property
    def scheduler(self) -> Scheduler:
        return self.ide.scheduler

    def inb(self, port: int) -> int:
        return self.bus.io.read(port, 1)

    def inw(self, port: int) -> int:
        return self.bus.io.read(port, 2)

    def inl(self, port: int) -> int:
        return self.bus.io.read(port, 4)

    def outb(self, port: int, value: int) -> None:
        self.bus.io.write(port, 1, value)

    def outw(self, port: int, value: int) -> None:
        self.bus.io.write(port, 2, value)

    def outl(self, port: int, value: int) -> None:
        self.bus.io.write(port, 4, value)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.ram[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        self.ram[address : address + len(data)] = data


def prd(address: int, size: int, last: bool = False) -> bytes:
    """One entry of a PRD table; size in bytes, 0x10000 is written as 0."""
    return pack("<II", address, size & 0xFFFF | EOT * last)


def prds(*regions: tuple[int, int]) -> bytes:
    """A table with an end mark."""
    return b"".join(prd(*region, region is regions[-1]) for region in regions)


class Ide:
    """The driver of one channel. Commands go to device `unit`, by LBA unless said otherwise."""

    def __init__(
        self, bench: Any, *, base: int = 0x1F0, control: int = 0x3F6, master: int = BUS_MASTER_PORT, setup: bool = True
    ) -> None:
        self.bench: Any = bench
        self.base, self.control, self.master = base, control, master
        self.unit = 0
        if setup:
            self.config_write(0x20, BUS_MASTER_PORT | 1)
            self.config_write(0x04, 0x0005)

    # -- PCI --------------------------------------------------------------------------------------

    def config_write(self, offset: int, value: int) -> None:
        self.bench.outl(0xCF8, 0x8000_0000 | IDE_DEVFN << 8 | offset)
        self.bench.outl(0xCFC, value)

    def config_read(self, offset: int) -> int:
        self.bench.outl(0xCF8, 0x8000_0000 | IDE_DEVFN << 8 | offset)
        value: int = self.bench.inl(0xCFC)
        return value

    # -- registers --------------------------------------------------------------------------------

    def reg(self, index: int) -> int:
        value: int = self.bench.inb(self.base + index)
        return value

    def set_reg(self, index: int, value: int) -> None:
        self.bench.outb(self.base + index, value)

    @property
    def alternate(self) -> int:
        value: int = self.bench.inb(self.control)
        return value

    @property
    def status(self) -> int:
        return self.reg(7)

    @property
    def error(self) -> int:
        return self.reg(1)

    def set_control(self, value: int) -> None:
        self.bench.outb(self.control, value)

    def registers(self) -> tuple[int, ...]:
        """Alternate status, error, count, LBA low, mid, high, device: nothing is acknowledged."""
        return (self.alternate, *(self.reg(index) for index in range(1, 7)))

    @property
    def master_status(self) -> int:
        value: int = self.bench.inb(self.master + 2)
        return value

    @property
    def lba(self) -> int:
        """The 28-bit address in the registers."""
        return (self.reg(6) & 15) << 24 | self.reg(5) << 16 | self.reg(4) << 8 | self.reg(3)

    @property
    def lba48(self) -> int:
        low = self.reg(3) | self.reg(4) << 8 | self.reg(5) << 16
        self.set_control(HOB | NIEN)
        high = self.reg(3) | self.reg(4) << 8 | self.reg(5) << 16
        self.set_control(NIEN)
        return high << 24 | low

    # -- commands ---------------------------------------------------------------------------------

    def select(self, unit: int = 0, bits: int = LBA) -> None:
        self.unit = unit
        self.set_reg(6, 0xA0 | bits | DEV1 * unit)

    def command(
        self,
        opcode: int,
        lba: int = 0,
        count: int = 0,
        *,
        feature: int = 0,
        wide: bool = False,
        chs: tuple[int, int, int] | None = None,
    ) -> None:
        """Write the task file and the command; returns at once."""
        if wide:
            self.select(self.unit)
            for index, value in ((1, feature >> 8), (2, count >> 8), (3, lba >> 24), (4, lba >> 32), (5, lba >> 40)):
                self.set_reg(index, value & 0xFF)
        elif chs is not None:
            cylinder, head, sector = chs
            self.select(self.unit, head)
            lba = cylinder << 8 | sector
        else:
            self.select(self.unit, LBA | lba >> 24 & 0x0F)
        self.set_reg(1, feature & 0xFF)
        self.set_reg(2, count & 0xFF)
        for index, shift in ((3, 0), (4, 8), (5, 16)):
            self.set_reg(index, lba >> shift & 0xFF)
        self.set_reg(7, opcode)

    def wait(self) -> int:
        """Until BSY is clear; the alternate status."""
        end = time.monotonic() + 20
        while self.alternate & BSY:
            scheduler = getattr(self.bench, "scheduler", None)
            if scheduler is not None:
                assert scheduler.wait(10), "busy for ever"
            else:
                assert time.monotonic() < end, "busy for ever"
                time.sleep(0.0005)
        return self.alternate

    def call(self, opcode: int, *args: Any, **options: Any) -> int:
        """A command to its end or its first DRQ; the status, acknowledged."""
        self.command(opcode, *args, **options)
        self.wait()
        return self.status

    def read_block(self, length: int = 512, width: int = 2) -> bytes:
        read = self.bench.inw if width == 2 else self.bench.inl
        return b"".join(read(self.base).to_bytes(width, "little") for _ in range(0, length, width))

    def write_block(self, data: bytes, width: int = 2) -> None:
        write = self.bench.outw if width == 2 else self.bench.outl
        for at in range(0, len(data), width):
            write(self.base, int.from_bytes(data[at : at + width], "little"))

    def pio_in(self, opcode: int, lba: int = 0, count: int = 1, *, block: int = 1, **options: Any) -> bytes:
        """Read as long as there is data; the caller looks at the status."""
        self.command(opcode, lba, count, **options)
        data = b""
        while self.wait() & DRQ:
            assert self.status & DRQ
            left = count * 512 - len(data)
            data += self.read_block(min(512 * block, left) if left > 0 else 512)
        return data

    def pio_out(self, opcode: int, data: bytes, lba: int = 0, *, block: int = 1, **options: Any) -> int:
        """Write as long as data is asked for; the last status."""
        options.setdefault("count", len(data) // 512)
        self.command(opcode, lba, **options)
        while self.wait() & DRQ:
            assert self.status & DRQ
            self.write_block(data[: 512 * block])
            data = data[512 * block :]
        return self.status

    # -- DMA --------------------------------------------------------------------------------------

    def set_table(self, table: bytes, address: int = PRDT) -> None:
        self.bench.write(address, table)
        self.bench.outl(self.master + 4, address)

    def start(self, to_memory: bool = True) -> None:
        self.bench.outb(self.master, (TO_MEMORY if to_memory else 0) | START)

    def stop(self) -> None:
        self.bench.outb(self.master, 0)

    def settle(self) -> None:
        """Until a DMA command, which the bus master carries, has ended: QEMU shows DRQ meanwhile."""
        scheduler = getattr(self.bench, "scheduler", None)
        if scheduler is not None:
            scheduler.drain()
            return
        end = time.monotonic() + 20
        while self.alternate & (BSY | DRQ):
            assert time.monotonic() < end, "DMA for ever"
            time.sleep(0.0005)

    def dma(
        self,
        opcode: int,
        lba: int,
        count: int,
        table: bytes,
        *,
        to_memory: bool = True,
        stop: bool = True,
        **options: Any,
    ) -> tuple[int, int]:
        """One DMA command with this PRD table: the bus master's status before START is cleared, and the drive's."""
        self.bench.outb(self.master + 2, ERROR | INTERRUPT)
        self.set_table(table)
        self.command(opcode, lba, count, **options)
        self.start(to_memory)
        self.settle()
        found = self.master_status, self.status
        if stop:
            self.stop()
        return found

    def read_dma(self, lba: int, count: int, regions: Sequence[tuple[int, int]] | None = None) -> bytes:
        regions = regions or [(BUFFER, 512 * count)]
        assert self.dma(0xC8, lba, count, prds(*regions)) == (INTERRUPT, DRDY | DSC)
        return b"".join(self.bench.read(*region) for region in regions)
