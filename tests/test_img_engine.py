"""What the engine tells so that e2kdisk-img can say it."""

import pytest

from e2kdisk.block.open import open_disk


@pytest.mark.needs("qemu-utils")
def test_the_status_of_a_zero_cluster_names_the_space_that_it_keeps(make_image, qemu_io):
    path = make_image("1M")
    qemu_io(path, "write 0 192k", "write -z 64k 64k", "write -z 128k 64k", "write -z 256k 64k")
    with open_disk(path, format="qcow2", read_only=True) as disk:
        runs, offset = [], 0
        while offset < 320 << 10:
            status = disk.scheduler.run(disk.node.status(offset, (320 << 10) - offset))
            runs.append((offset >> 10, status.length >> 10, status.zero, status.host_offset is not None))
            offset += status.length
    assert runs == [(0, 64, False, True), (64, 128, True, True), (192, 64, True, False), (256, 64, True, False)]
