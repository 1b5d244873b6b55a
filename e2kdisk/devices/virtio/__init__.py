"""VIRTIO: queues, transports and the block device, three things that never mix."""

from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.mmio import VirtioMmio
from e2kdisk.devices.virtio.pci import VirtioPci

__all__ = ["VirtioBlk", "VirtioMmio", "VirtioPci"]
