"""Four requests at once on every controller, driven by the test: the same requests, whatever the registers.

No guest code: the CPU of the machine turns in a loop so that time passes. The first decision of a run says which of
the mixes it makes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from e2kdisk.block.disk import Disk
from e2kdisk.block.open import open_disk
from e2kdisk.devices.ata import AtaPlatform
from e2kdisk.devices.virtio import VirtioBlk, VirtioMmio, VirtioPci
from e2kdisk.lab.rig import Rig
from e2kdisk.lab.rules import ORDER
from e2kdisk.lab.scenario import Scenario
from e2kdisk.machine.boards.board import Placed
from e2kdisk.qcow2.create import create
from tests import ata_driver
from tests.ata_driver import BSY, DRQ, DSC, Ide, prds
from tests.virtio_driver import DISCARD, FLUSH, IN, OUT, WRITE_ZEROES, Driver, Events, Pending, ranges
from tests.virtio_links import MmioLink, OurHost, PciLegacyLink, PciModernLink

SIZE = 1 << 20
OLD = bytes(range(256)) * 512
"""What the first 128 KiB of each disk hold; the clusters behind are not allocated."""
ARM64_LOOP = struct.pack("<I", 0x1400_0000)  # b .
RAM = {"virt-arm64": 0x4000_0000, "elbrus": 0}
PASSES = 400
"""Turns of the machine after which a request will never end."""


@dataclass(frozen=True)
class Asked:
    """One request, whatever the controller: what it does to which sectors, with which byte."""

    kind: int
    sector: int = 0
    count: int = 0
    fill: bytes = b""

    @property
    def data(self) -> bytes:
        return self.fill * 512 * self.count

    def touches(self, sector: int) -> bool:
        return self.kind not in (IN, FLUSH) and self.sector <= sector < self.sector + self.count


MIXES: dict[str, tuple[Asked, ...]] = {
    "one place": (Asked(OUT, 100, 2, b"A"), Asked(OUT, 101, 2, b"B"), Asked(IN, 100, 3), Asked(FLUSH)),
    "apart": (Asked(OUT, 8, 2, b"A"), Asked(OUT, 64, 2, b"B"), Asked(IN, 128, 3), Asked(FLUSH)),
    "new clusters": (Asked(OUT, 1000, 2, b"A"), Asked(OUT, 1004, 2, b"B"), Asked(IN, 1000, 8), Asked(FLUSH)),
    "discard": (Asked(OUT, 100, 2, b"A"), Asked(DISCARD, 96, 8), Asked(WRITE_ZEROES, 101, 2), Asked(IN, 96, 8)),
    "reads": (Asked(IN, 0, 4), Asked(IN, 2, 4), Asked(IN, 1000, 4), Asked(FLUSH)),
}


def check_read(asked: Asked, found: bytes, mix: Sequence[Asked]) -> None:
    """Each sector of a read is the old one, or what a request that was in flight with it puts there."""
    assert len(found) == 512 * asked.count
    for number in range(asked.count):
        sector = asked.sector + number
        old = OLD[512 * sector : 512 * (sector + 1)].ljust(512, b"\0")
        allowed = [old, *((other.fill or b"\0") * 512 for other in mix if other.touches(sector))]
        assert found[512 * number : 512 * (number + 1)] in allowed, f"sector {sector} is torn"


class Mixed(Scenario):
    """What the scenarios of all controllers share."""

    RULES = ORDER
    BOARD: ClassVar[str] = "virt-arm64"
    MIXES: ClassVar[Sequence[str]] = tuple(MIXES)
    DISKS: ClassVar[int] = 1

    def build(self) -> Rig:
        images = [self.directory / f"disk{number}.qcow2" for number in range(self.DISKS)]
        for image in images:
            create(image, SIZE, cluster_size=4096)
            with open_disk(image) as disk:
                disk.pwrite(0, OLD)
        rig = self.make(images)
        self.controller: Any = rig.machine.board.controllers[0]
        self.connect(rig)
        return rig

    def make(self, images: Sequence[Any]) -> Rig:
        return Rig(self.BOARD, ARM64_LOOP, images, ram=16 << 20, format="qcow2", plug=self.plug)

    def plug(self, disks: Sequence[Disk]) -> list[Placed]:
        raise NotImplementedError

    def connect(self, rig: Rig) -> None:
        """Find the way to the controller."""
        raise NotImplementedError

    def act(self, rig: Rig) -> None:
        self.working = None
        self.mix = MIXES[self.MIXES[rig.decisions.choose("mix", len(self.MIXES))]]
        self.requests(rig)

    def requests(self, rig: Rig) -> None:
        raise NotImplementedError

    working: Any = None
    """The drivers of the run that goes on."""

    def state(self) -> Sequence[object]:
        return (self.mix, self.working) if self.working is not None else ()

    def turn(self, rig: Rig) -> None:
        rig.machine.run(max_instructions=100)


# -- virtio ------------------------------------------------------------------------------------------


class RigDriver(Driver):
    """The driver of the tests of virtio, in the memory of a rig's machine."""

    ROOM = 4 << 20

    def __init__(self, rig: Rig, link: Any, number: int = 0) -> None:
        """Drives the controller of that number."""
        board, room = rig.machine.board, self.ROOM * number
        self.disk, self.controller, self.link = rig.drives[number].disk, board.controllers[number], link
        self.legacy = link.legacy
        self.ram, self.ram_base = board.ram.view[room : room + self.ROOM], RAM[board.NAME] + room
        self.ram_size = self.ROOM
        self._page_size = self._align = self.link.page_size or 4096
        self._size = None if self.link.fixed_size else 16
        self._refused, self._accept, self.trace = 0, None, Events()

    def ask(self, asked: Asked) -> Pending:
        """Make a request available."""
        if asked.kind == IN:
            return self.start(IN, asked.sector, length=512 * asked.count)
        if asked.kind in (DISCARD, WRITE_ZEROES):
            return self.start(asked.kind, data=ranges((asked.sector, asked.count, 0)))
        return self.start(asked.kind, asked.sector, asked.data)

    def check(self, asked: Asked, request: Pending, mix: Sequence[Asked]) -> None:
        """Its answer, with the others of `mix` in flight."""
        result = self.result(request)
        assert result.status == 0
        if asked.kind == IN:
            check_read(asked, result.data, mix)


class VirtioOrders(Mixed):
    """Four virtio requests in one notification."""

    LEGACY: ClassVar[bool] = False

    def requests(self, rig: Rig) -> None:
        driver = RigDriver(rig, self.link)
        driver.init()
        self.listen(driver)
        self.working = driver
        pending = [driver.ask(asked) for asked in self.mix]
        driver.kick()
        for _ in range(PASSES):
            self.turn(rig)
            if self.interrupted(driver):
                driver.collect()
            if not driver.in_flight or rig.traffic.is_cut:
                break
        if rig.traffic.is_cut:
            return
        assert not driver.in_flight, "a request was never given back"
        for asked, request in zip(self.mix, pending, strict=True):
            driver.check(asked, request, self.mix)

    def listen(self, driver: RigDriver) -> None:
        """Say how interrupts are to come."""

    def interrupted(self, driver: RigDriver) -> bool:
        """Whether the guest hears of something, as its driver would."""
        return bool(driver.link.take_reasons())


class MmioModern(VirtioOrders):
    """virtio-mmio, version 2."""

    def plug(self, disks: Sequence[Disk]) -> list[Placed]:
        return [Placed(VirtioMmio(VirtioBlk(disk), legacy=self.LEGACY)) for disk in disks]

    def connect(self, rig: Rig) -> None:
        self.link = MmioLink(self.controller)


class TwoControllers(MmioModern):
    """Two virtio-mmio controllers, a disk and two requests each."""

    DISKS = 2

    def plug(self, disks: Sequence[Disk]) -> list[Placed]:
        placed = super().plug(disks)
        for number, (controller, _) in enumerate(placed):
            controller.device.name = controller.name = f"virtio-blk{number}"
        return placed

    def requests(self, rig: Rig) -> None:
        controllers: Sequence[Any] = rig.machine.board.controllers
        drivers = [RigDriver(rig, MmioLink(controller), number) for number, controller in enumerate(controllers)]
        shares = self.mix[:2], self.mix[2:]
        for driver in drivers:
            driver.init()
        pending = [[driver.ask(asked) for asked in share] for driver, share in zip(drivers, shares, strict=True)]
        for driver in drivers:
            driver.kick()
        for _ in range(PASSES):
            self.turn(rig)
            for driver in drivers:
                if self.interrupted(driver):
                    driver.collect()
            if rig.traffic.is_cut or not any(driver.in_flight for driver in drivers):
                break
        if rig.traffic.is_cut:
            return
        assert not any(driver.in_flight for driver in drivers), "a request was never given back"
        for driver, share, requests in zip(drivers, shares, pending, strict=True):
            for asked, request in zip(share, requests, strict=True):
                driver.check(asked, request, share)


class MmioLegacy(MmioModern):
    """virtio-mmio, version 1."""

    LEGACY = True

    def requests(self, rig: Rig) -> None:
        self.link.set(0x028, 4096)
        super().requests(rig)


class PciModern(VirtioOrders):
    """virtio over PCI, with the interrupt pin."""

    VECTORS: ClassVar[int] = 0

    def plug(self, disks: Sequence[Disk]) -> list[Placed]:
        return [Placed(VirtioPci(VirtioBlk(disk), vectors=self.VECTORS)) for disk in disks]

    def connect(self, rig: Rig) -> None:
        bus = rig.machine.board.pci.pci  # type: ignore[attr-defined]
        devfn = next(devfn for devfn, function in bus.functions.items() if function is self.controller)
        self.link = (PciLegacyLink if self.LEGACY else PciModernLink)(OurHost(bus, memory=0x1100_0000), devfn)


class PciLegacy(PciModern):
    """Legacy virtio over PCI."""

    LEGACY = True


class PciMessages(PciModern):
    """virtio over PCI, with a message for each queue, which is a store to memory."""

    VECTORS = 2
    MESSAGE_AT: ClassVar[int] = RAM["virt-arm64"] + 0x800

    def listen(self, driver: RigDriver) -> None:
        self.link.msix.set_vector(1, self.MESSAGE_AT, 0x5A)
        self.link.msix.control(enable=True)
        driver.poke(self.MESSAGE_AT, bytes(4))
        self.link.set(1, 0x16, 2, 0)
        self.link.set(1, 0x1A, 2, 1)

    def interrupted(self, driver: RigDriver) -> bool:
        came = driver.peek(self.MESSAGE_AT, 1) == b"\x5a"
        driver.poke(self.MESSAGE_AT, bytes(4))
        return came


# -- ATA ---------------------------------------------------------------------------------------------

READ_DMA, WRITE_DMA, READ, WRITE, FLUSH_CACHE = 0xC8, 0xCA, 0x20, 0x30, 0xE7


class Ports:
    """Bench of the tests of ATA on a rig's machine."""

    def __init__(self, rig: Rig, space: Any) -> None:
        self.space, self.ram = space, rig.machine.board.ram.view

    def inb(self, port: int) -> int:
        return int(self.space.read(port, 1))

    def inw(self, port: int) -> int:
        return int(self.space.read(port, 2))

    def outb(self, port: int, value: int) -> None:
        self.space.write(port, 1, value)

    def outw(self, port: int, value: int) -> None:
        self.space.write(port, 2, value)

    def outl(self, port: int, value: int) -> None:
        self.space.write(port, 4, value)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.ram[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        self.ram[address : address + len(data)] = data


class Channel:
    """One channel with the requests that it is still to make, one after the other: ATA knows no queue here."""

    def __init__(self, ide: Ide, asked: Sequence[tuple[int, Asked]], *, dma: bool, room: int) -> None:
        self.ide, self.dma = ide, dma
        self.table, self.buffer = room, room + 0x1000
        self.left = list(asked)
        self.now: tuple[int, Asked] | None = None
        self.data = b""
        self.found: list[tuple[Asked, bytes]] = []

    def step(self) -> None:
        """Do what the drive is ready for."""
        ide = self.ide
        if self.now is None:
            if self.left:
                self.begin(*self.left.pop(0))
            return
        if ide.alternate & BSY:
            return
        asked = self.now[1]
        if self.dma and asked.kind != FLUSH:
            if not ide.master_status & ata_driver.INTERRUPT:
                return
            ide.stop()
            ide.bench.outb(ide.master + 2, ata_driver.INTERRUPT)
            self.data = ide.bench.read(self.buffer, 512 * asked.count)
        status = ide.status
        if status & DRQ and asked.kind == IN:
            self.data += ide.read_block()
        elif status & DRQ:
            ide.write_block(self.data[:512])
            self.data = self.data[512:]
        else:
            assert status & (DSC | 1) == DSC, f"the drive says {status:#x}"
            self.now = None
            if asked.kind == IN:
                self.found.append((asked, self.data))
            return
        if asked.kind == IN and len(self.data) == 512 * asked.count:
            self.now = None
            self.found.append((asked, self.data))

    def begin(self, unit: int, asked: Asked) -> None:
        ide, self.now, self.data = self.ide, (unit, asked), asked.data
        ide.unit = unit
        if asked.kind == FLUSH:
            ide.command(FLUSH_CACHE)
            return
        if asked.kind == IN:
            self.data = b""
        if not self.dma:
            ide.command(READ if asked.kind == IN else WRITE, asked.sector, asked.count)
            return
        ide.bench.write(self.buffer, asked.data or b"\xee" * 512 * asked.count)
        ide.set_table(prds((self.buffer, 512 * asked.count)), self.table)
        ide.command(READ_DMA if asked.kind == IN else WRITE_DMA, asked.sector, asked.count)
        ide.start(to_memory=asked.kind == IN)


class IdeOrders(Mixed):
    """Four drives on two channels of the PCI function of the Elbrus board, one request for each, by DMA."""

    BOARD = "elbrus"
    DISKS = 4
    MIXES = ("one place", "apart", "new clusters", "reads")
    DMA: ClassVar[bool] = True

    def make(self, images: Sequence[Any]) -> Rig:
        return Rig(self.BOARD, ARM64_LOOP, images, cpu="arm64", ram=16 << 20, format="qcow2", interface="ide")

    def connect(self, rig: Rig) -> None:
        bus = rig.machine.board.pci  # type: ignore[attr-defined]
        devfn = next(devfn for devfn, function in bus.functions.items() if function is self.controller)
        bus.config_write(0, devfn, 0x20, 4, ata_driver.BUS_MASTER_PORT | 1)
        bus.config_write(0, devfn, 4, 2, 5)
        self.ports = Ports(rig, bus.io)

    def requests(self, rig: Rig) -> None:
        half = len(self.mix) // 2
        first, second = self.mix[:half], self.mix[half:]
        places = ((0x1F0, 0x3F6, ata_driver.BUS_MASTER_PORT), (0x170, 0x376, ata_driver.BUS_MASTER_PORT + 8))
        channels = [
            Channel(
                Ide(self.ports, base=base, control=control, master=master, setup=False),
                [(number % 2, request) for number, request in enumerate(asked)],
                dma=self.DMA,
                room=0x8000 + 0x8000 * number,
            )
            for number, ((base, control, master), asked) in enumerate(zip(places, (first, second), strict=True))
        ]
        self.drive(rig, channels)

    def drive(self, rig: Rig, channels: Sequence[Channel]) -> None:
        """Let the channels work until all has been done."""
        self.working = channels
        for channel in channels:
            channel.ide.set_control(ata_driver.SRST)
            channel.ide.set_control(0)
        for _ in range(PASSES):
            for channel in channels:
                channel.step()
            if rig.traffic.is_cut or not any(channel.now or channel.left for channel in channels):
                break
            self.turn(rig)
        if rig.traffic.is_cut:
            return
        assert not any(channel.now or channel.left for channel in channels), "a command never ended"
        for channel in channels:
            for asked, found in channel.found:
                check_read(asked, found, self.mix if self.DISKS == 2 else ())


class IdeLonger(IdeOrders):
    """Twice as many commands on each channel: most orders meet in few states."""

    MIXES = ("new clusters", "reads")

    def requests(self, rig: Rig) -> None:
        mix = self.mix
        self.mix = (*mix[:2], *mix[:2], *mix[2:], *mix[2:])
        super().requests(rig)


class IdePio(IdeOrders):
    """The same through the data port."""

    DMA = False


class PlatformOrders(IdeOrders):
    """The plain ATA controller: one channel with two drives, so one request at a time."""

    BOARD = "virt-arm64"
    DISKS = 2
    DMA = False

    def make(self, images: Sequence[Any]) -> Rig:
        return Mixed.make(self, images)

    def plug(self, disks: Sequence[Disk]) -> list[Placed]:
        return [Placed(AtaPlatform(*disks))]

    def connect(self, rig: Rig) -> None:
        self.ports = Ports(rig, self.controller)

    def requests(self, rig: Rig) -> None:
        asked = [(number % 2, asked) for number, asked in enumerate(self.mix)]
        ide = Ide(self.ports, base=0, control=14, setup=False)
        self.drive(rig, [Channel(ide, asked, dma=False, room=0x8000)])


EVERY_CONTROLLER = (
    MmioModern,
    MmioLegacy,
    TwoControllers,
    PciModern,
    PciLegacy,
    PciMessages,
    IdeOrders,
    IdePio,
    PlatformOrders,
)
