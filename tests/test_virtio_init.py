"""A driver brings the device up as the specification says, in both generations of the transport."""

import pytest

from e2kdisk.aio import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.memory import MemoryNode
from tests.virtio_driver import Driver

DISK_SIZE = 1 << 20


def make_disk(size: int = DISK_SIZE, **options) -> Disk:
    node = MemoryNode(Scheduler(), size)
    node.data[:] = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    return Disk(node, **options)


both_transports = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])


@both_transports
def test_a_driver_reads_and_writes(legacy):
    disk = make_disk()
    driver = Driver(disk, legacy=legacy)
    assert driver.read(0, 8) == bytes(disk.node.data[:4096])
    driver.write(3, b"x" * 1024)
    assert disk.node.data[3 * 512 : 5 * 512] == b"x" * 1024
    driver.flush()
    assert driver.interrupts == 3
