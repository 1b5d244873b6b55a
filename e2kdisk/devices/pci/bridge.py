"""A PCI-to-PCI bridge with nothing behind it: its registers, so that a scan of the bus finds what it expects."""

from __future__ import annotations

from e2kdisk.devices.pci.function import PciFunction
from e2kdisk.devices.pci.header import BRIDGE_HEADER


class PciBridge(PciFunction):
    """A function with a header of type 1; it passes nothing on, since no function is on its other side."""

    header = BRIDGE_HEADER
