"""A disk that fails: what the guest sees, and requests that wait until somebody has helped."""

import json

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.memory import MemoryNode
from e2kdisk.devices.ata import AtaDevice
from e2kdisk.devices.error_policy import ErrorAction, ErrorPolicy
from e2kdisk.errors import UsageError
from tests.ata_driver import (
    ABRT,
    ACTIVE,
    BSY,
    BUFFER,
    DRDY,
    DRQ,
    DSC,
    ERR,
    INTERRUPT,
    SRST,
    UNC,
    Ide,
    Pc,
    pattern,
    prds,
)

OK = DRDY | DSC
FAILED = DRDY | ERR
BAD = 100


class Host:
    """One drive on a disk with faults."""

    def __init__(self, rules="", rerror="report", werror="report"):
        self.memory = MemoryNode(Scheduler(), 2048 * 512)
        self.memory.data[:] = pattern(2048)
        self.node = FaultNode(self.memory, rules)
        self.plug(ErrorPolicy.parse(rerror, werror))

    def plug(self, policy):
        self.drive = AtaDevice(Disk(self.node), errors=policy)
        self.stops = []
        self.drive.on_stop = self.stops.append
        self.pc = Pc(self.drive)
        self.ide = Ide(self.pc)


BAD_SECTOR = f"read sector {BAD}: EIO"


@pytest.mark.parametrize("count", [1, 2, 7, 200])
@pytest.mark.parametrize("before", [0, 1, 5, 99])
def test_pio_gives_the_good_sectors_and_names_the_bad_one(before, count):
    ide = Host(BAD_SECTOR).ide
    count = min(256, before + count)
    assert ide.pio_in(0x20, BAD - before, count) == pattern(before, BAD - before)
    assert (ide.status, ide.error) == (FAILED, UNC)
    assert (ide.lba, ide.reg(2)) == (BAD, (count - before) & 0xFF)
    assert ide.pio_in(0x20, BAD + 1, 3) == pattern(3, BAD + 1)


def test_read_multiple_names_the_bad_sector_inside_its_block():
    ide = Host(BAD_SECTOR).ide
    ide.call(0xC6, 0, 8)
    assert ide.pio_in(0xC4, BAD - 13, 32, block=8) == pattern(8, BAD - 13)
    assert (ide.status, ide.error, ide.lba, ide.reg(2)) == (FAILED, UNC, BAD, 32 - 13)


@pytest.mark.parametrize("before", [0, 1, 63])
def test_dma_has_read_the_good_sectors_and_names_the_bad_one(before):
    ide = Host(BAD_SECTOR).ide
    table = prds((BUFFER, 1000), (BUFFER + 0x1000, 64 * 512 - 1000))
    assert ide.dma(0xC8, BAD - before, 64, table) == (INTERRUPT, FAILED)
    assert (ide.error, ide.lba, ide.reg(2)) == (UNC, BAD, 64 - before)
    found = ide.bench.read(BUFFER, 1000) + ide.bench.read(BUFFER + 0x1000, 64 * 512 - 1000)
    assert found[: before * 512] == pattern(before, BAD - before)


def test_verify_names_the_bad_sector():
    ide = Host(BAD_SECTOR).ide
    assert ide.call(0x40, 0, 256) == FAILED
    assert (ide.error, ide.lba, ide.reg(2)) == (UNC, BAD, 256 - BAD)


def test_finding_the_bad_sector_takes_few_requests():
    host = Host(BAD_SECTOR)
    host.ide.dma(0xC8, 0, 200, prds((BUFFER, 0x10000), (BUFFER + 0x10000, 200 * 512 - 0x10000)))
    assert host.node.seen["read"] <= 1 + 8


@pytest.mark.parametrize("rule", ["write: EIO", "write: ENOSPC"])
def test_a_write_that_fails_is_aborted(rule):
    host = Host(rule)
    assert host.ide.pio_out(0x30, b"w" * 1024, 9) == FAILED
    assert (host.ide.error, host.ide.lba, host.ide.reg(2)) == (ABRT, 9, 2)
    assert host.ide.dma(0xCA, 9, 2, prds((BUFFER, 1024)), to_memory=False) == (INTERRUPT, FAILED)
    assert host.memory.data == pattern(2048)


@pytest.mark.parametrize("opcode", [0xE7, 0xEA])
def test_a_flush_that_fails_is_aborted(opcode):
    ide = Host("flush: EIO once").ide
    assert ide.call(opcode) == FAILED
    assert ide.error == ABRT
    assert ide.call(opcode) == OK


def test_an_ignored_error_is_success_and_shows_no_old_data():
    host = Host("read: EIO; write: EIO; flush: EIO", rerror="ignore", werror="ignore")
    host.drive.buffer[:] = b"s" * len(host.drive.buffer)
    assert host.ide.pio_in(0x20, 5, 2) == bytes(1024)
    assert host.ide.status == OK
    assert host.ide.pio_out(0x30, b"w" * 512, 5) == OK
    assert host.ide.call(0xE7) == OK
    assert host.ide.call(0x40, 0, 5) == OK
    assert host.ide.dma(0xC8, 5, 1, prds((BUFFER, 512))) == (INTERRUPT, OK)


# -- stop -------------------------------------------------------------------------------------------

REQUESTS = {
    "PIO read": lambda ide: ide.command(0x20, BAD, 2),
    "read multiple": lambda ide: (ide.call(0xC6, 0, 2), ide.command(0xC4, BAD, 2)),
    "verify": lambda ide: ide.command(0x40, BAD, 2),
    "PIO write": lambda ide: (ide.command(0x30, BAD, 1), ide.write_block(b"w" * 512)),
    "read DMA": lambda ide: (ide.set_table(prds((BUFFER, 1024))), ide.start(), ide.command(0xC8, BAD, 2)),
    "write DMA": lambda ide: (ide.set_table(prds((BUFFER, 1024))), ide.start(), ide.command(0xCA, BAD, 2)),
    "flush": lambda ide: ide.command(0xE7),
}


@pytest.mark.parametrize("begin", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("moved", [False, True], ids=["here", "after save and load"])
def test_a_stopped_request_is_made_again_on_resume(begin, moved):
    host = Host("any: EIO", rerror="stop", werror="stop")
    host.ide.bench.write(BUFFER, b"m" * 1024)
    begin(host.ide)
    assert host.ide.alternate == BSY | DRDY
    assert not host.pc.wires[0].level
    assert host.drive.stopped and host.stops[0].errno == 5
    host.pc.ide.resume()
    assert host.drive.stopped and len(host.stops) == 2
    if moved:
        state, ram = json.loads(json.dumps(host.pc.ide.save())), host.pc.ram
        host.plug(host.drive.errors)
        host.pc.ram[:] = ram
        host.pc.ide.load(state)
        host.ide = Ide(host.pc, setup=False)
        assert host.ide.alternate == BSY | DRDY
    host.node.clear()
    host.pc.ide.resume()
    assert not host.drive.stopped
    assert host.pc.wires[0].level
    status = host.ide.status
    assert status & ~DRQ == OK
    if status & DRQ:
        assert b"".join(host.ide.read_block() for _ in (0, 1)) == pattern(2, BAD)
    elif begin is REQUESTS["PIO write"]:
        assert host.memory.data[BAD * 512 : (BAD + 1) * 512] == b"w" * 512
    elif begin is REQUESTS["write DMA"]:
        assert host.memory.data[BAD * 512 : (BAD + 2) * 512] == b"m" * 1024
    elif begin is REQUESTS["read DMA"]:
        assert host.pc.read(BUFFER, 1024) == pattern(2, BAD)
    assert host.ide.pio_in(0x20, 1, 1) == pattern(1, 1)


def test_a_stopped_dma_does_not_read_its_table_again():
    host = Host(BAD_SECTOR, rerror="stop")
    REQUESTS["read DMA"](host.ide)
    assert host.drive.stopped
    host.pc.write(0x8000, bytes(64))
    host.node.clear()
    host.pc.ide.resume()
    assert (host.ide.master_status, host.ide.status) == (INTERRUPT, OK)
    assert host.pc.read(BUFFER, 1024) == pattern(2, BAD)


@pytest.mark.parametrize("end", ["SRST", "START"])
def test_a_stopped_request_can_be_cancelled(end):
    host = Host(BAD_SECTOR, rerror="stop")
    REQUESTS["read DMA"](host.ide)
    if end == "SRST":
        host.ide.set_control(SRST)
        host.ide.set_control(0)
        assert host.ide.registers()[0] == OK
    else:
        host.ide.stop()
        assert host.ide.alternate == OK | DRQ
    assert not host.drive.stopped
    host.node.clear()
    host.pc.ide.resume()
    assert host.pc.irqs == [0, 0]
    assert host.pc.read(BUFFER, 1024) == bytes(1024)


def test_enospc_stops_only_when_the_host_is_full():
    host = Host("write: ENOSPC once", werror="enospc")
    REQUESTS["PIO write"](host.ide)
    assert host.drive.stopped
    host.pc.ide.resume()
    assert host.ide.status == OK
    host = Host("write: EIO once", werror="enospc")
    REQUESTS["PIO write"](host.ide)
    assert (host.drive.stopped, host.ide.status) == (False, FAILED)


def test_a_stopped_read_keeps_the_bus_master_active():
    host = Host(BAD_SECTOR, rerror="stop")
    REQUESTS["read DMA"](host.ide)
    assert host.ide.master_status == ACTIVE


def test_an_unknown_action_is_refused_by_name():
    with pytest.raises(UsageError, match="rerror=retry: unknown action; known are report, ignore, stop, enospc"):
        ErrorPolicy.parse("retry")
    assert ErrorPolicy.parse("stop", "ignore") == ErrorPolicy(ErrorAction.STOP, ErrorAction.IGNORE)


def test_a_defect_of_ours_is_raised_and_the_command_ends(monkeypatch):
    host = Host()

    async def broken(offset, iov):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(host.drive.disk, "_node_read", broken)
    with pytest.raises(ZeroDivisionError):
        host.ide.command(0x20, 5, 1)
    assert (host.ide.status, host.ide.error) == (FAILED, ABRT)
