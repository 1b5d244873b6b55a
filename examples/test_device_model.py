"""A regression test of a controller: no guest CPU, the test is the driver, and every run is the same.

pytest -m e2k_bus test_device_model.py
"""

import struct

import pytest

import e2kdisk
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory

pytestmark = pytest.mark.e2k_bus
RAM, DESC, AVAIL, USED, HEADER, DATA, STATUS = 0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
READ_ONE_SECTOR = [(HEADER, 16, 1, 1), (DATA, 512, 3, 2), (STATUS, 1, 2, 0)]  # address, length, NEXT | WRITE, next


@pytest.fixture
def device(drive, trace):
    """A virtio-blk controller behind virtio-mmio, with RAM and an interrupt line, on a qcow2 image."""
    controller = e2kdisk.VirtioMmio(e2kdisk.VirtioBlk(drive(1 << 20, fill=0xA5)))
    memory, ram, irq = RamMemory(), bytearray(0x8000), IrqLine()
    memory.add_bank(RAM, memoryview(ram))
    controller.connect(memory, irq)
    controller.trace = trace  # what the device did is in the report of a failure
    return controller, ram, irq


def start(controller, sector, ram):
    """What a driver does (VIRTIO 1.2, 3.1.1 and 2.7.13): bring the device up, offer one request, notify."""
    for register, value in [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, 0), (0x38, 4),
                            (0x80, DESC), (0x90, AVAIL), (0xA0, USED), (0x44, 1), (0x70, 15)]:  # fmt: skip
        controller.write(register, 4, value)
    ram[DESC : DESC + 48] = b"".join(struct.pack("<QIHH", *descriptor) for descriptor in READ_ONE_SECTOR)
    ram[HEADER : HEADER + 16] = struct.pack("<IIQ", 0, 0, sector)
    ram[STATUS] = 0xFF
    ram[AVAIL : AVAIL + 6] = struct.pack("<3H", 0, 1, 0)
    controller.write(0x50, 4, 0)


def test_a_read_ends_with_data_then_status_then_interrupt(device, trace):
    controller, ram, irq = device
    start(controller, sector=0, ram=ram)
    assert ram[DATA : DATA + 512] == b"\xa5" * 512
    assert ram[STATUS] == 0
    assert struct.unpack_from("<HHII", ram, USED)[1:] == (1, 0, 513)  # one entry: head 0, 512 bytes and the status
    assert irq.level
    assert [event.fields["type"] for event in trace.select("request")] == ["IN"]


def test_a_read_past_the_end_of_the_disk_is_an_error_and_touches_nothing(device):
    controller, ram, irq = device
    start(controller, sector=(1 << 20) // 512, ram=ram)
    assert ram[STATUS] == 1  # VIRTIO_BLK_S_IOERR
    assert ram[DATA : DATA + 512] == bytes(512)
    assert irq.level
