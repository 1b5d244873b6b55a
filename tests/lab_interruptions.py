"""Scenarios in which a driver interrupts its controller: SRST and a cleared START on IDE, masked messages on PCI."""

from __future__ import annotations

from e2kdisk.lab.rig import Rig
from e2kdisk.lab.rules import US, Rules
from tests import ata_driver
from tests.ata_driver import BSY, DRDY, DRQ, DSC, Ide, prds
from tests.lab_orders import OLD, PASSES, READ, READ_DMA, IdeOrders, PciMessages, RigDriver
from tests.virtio_driver import IN

TABLE, BUFFER = 0x8000, 0x9000
SECTOR, COUNT = 8, 4
LENGTH = 512 * COUNT
EMPTY = b"\x55" * LENGTH
CONTENT = OLD[512 * SECTOR : 512 * (SECTOR + COUNT)]


class IdeInterrupted(IdeOrders):
    """A read by DMA on the Elbrus board is left alone, or ended by SRST or by clearing START; then there is another."""

    DISKS = 1
    RULES = Rules(latencies_ns=(0, 40 * US, 700 * US))
    AFTER = (1, 2_000, 50_000)
    """Instructions until then."""

    def act(self, rig: Rig) -> None:
        self.ide = Ide(self.ports, setup=False)
        self.reset()
        self.begin_read()
        match rig.decisions.choose("left alone, SRST or START cleared", 3):
            case 0:
                self.end_read(rig)
            case 1:
                self.wait(rig)
                self.reset()
                self.must_be_silent(rig)
                assert self.ide.alternate == DRDY | DSC, f"after SRST the drive says {self.ide.alternate:#x}"
            case 2:
                self.wait(rig)
                self.ide.stop()
                self.must_be_silent(rig)
                self.reset()
        self.begin_read()
        self.end_read(rig)

    def wait(self, rig: Rig) -> None:
        rig.machine.run(max_instructions=self.AFTER[rig.decisions.choose("after", len(self.AFTER))])

    def reset(self) -> None:
        self.ide.set_control(ata_driver.SRST)
        self.ide.set_control(0)

    def begin_read(self) -> None:
        self.ports.write(BUFFER, EMPTY)
        self.ide.stop()
        self.ide.bench.outb(self.ide.master + 2, ata_driver.INTERRUPT)
        self.ide.set_table(prds((BUFFER, LENGTH)), TABLE)
        self.ide.command(READ_DMA, SECTOR, COUNT)
        self.ide.start()

    def end_read(self, rig: Rig) -> None:
        """As a driver does that believes in interrupts."""
        for _ in range(PASSES):
            if self.ide.master_status & ata_driver.INTERRUPT:
                break
            self.turn(rig)
        assert self.ide.master_status & ata_driver.INTERRUPT, "no interrupt came"
        assert not self.ide.alternate & (BSY | DRQ), "interrupted before the command had ended"
        assert self.ports.read(BUFFER, LENGTH) == CONTENT, "interrupted before the data was in memory"
        assert self.ide.status == DRDY | DSC
        self.ide.stop()

    def must_be_silent(self, rig: Rig) -> None:
        self.ports.write(BUFFER, EMPTY)
        rig.machine.run(max_instructions=200_000)
        assert self.ports.read(BUFFER, LENGTH) == EMPTY, "memory was written after the command had been ended"

    def turn(self, rig: Rig) -> None:
        rig.machine.run(max_instructions=5_000)


class IdePioInterrupted(IdeInterrupted):
    """The same through the data port, where nothing but SRST ends a command."""

    def begin_read(self) -> None:
        self.ide.command(READ, SECTOR, COUNT)

    def act(self, rig: Rig) -> None:
        self.ide = Ide(self.ports, setup=False)
        self.reset()
        self.begin_read()
        if rig.decisions.choose("SRST", 2):
            self.wait(rig)
            self.reset()
            rig.machine.run(max_instructions=200_000)
            assert self.ide.alternate == DRDY | DSC, f"after SRST the drive says {self.ide.alternate:#x}"
        self.reset()
        self.begin_read()
        self.end_read(rig)

    def end_read(self, rig: Rig) -> None:
        data = b""
        for _ in range(PASSES):
            if not self.ide.alternate & BSY:
                assert self.ide.status & DRQ, "no data where the command has more"
                data += self.ide.read_block()
            if len(data) == LENGTH:
                break
            self.turn(rig)
        assert data == CONTENT
        assert self.ide.alternate == DRDY | DSC, f"after the last block the drive says {self.ide.alternate:#x}"


class MaskedMessages(PciMessages):
    """Two reads end while their vector, or the whole function, is masked; the message comes when it no longer is."""

    RULES = Rules(latencies_ns=(0, 40 * US, 700 * US))

    def act(self, rig: Rig) -> None:
        driver = RigDriver(rig, self.link)
        driver.init()
        self.listen(driver)
        of_function = rig.decisions.choose("masked: vector or function", 2)
        self.mask(True, of_function)
        reads = [driver.start(IN, sector, length=512) for sector in (SECTOR, SECTOR + 1)]
        driver.kick()
        rig.machine.run(max_instructions=(1, 5_000, 100_000)[rig.decisions.choose("unmasked after", 3)])
        assert not self.interrupted(driver), "a masked message was sent"
        self.mask(False, of_function)
        for _ in range(PASSES):
            if self.interrupted(driver):
                driver.collect()
            if not driver.in_flight:
                break
            rig.machine.run(max_instructions=5_000)
        assert not driver.in_flight, "a message was lost"
        for number, read in enumerate(reads):
            assert driver.result(read).data == CONTENT[512 * number : 512 * (number + 1)]

    def mask(self, masked: bool, of_function: int) -> None:
        if of_function:
            self.link.msix.control(enable=True, mask=masked)
        else:
            self.link.msix.mask(1, masked)


EVERY_INTERRUPTION = (IdeInterrupted, IdePioInterrupted, MaskedMessages)
