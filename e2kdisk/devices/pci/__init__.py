"""PCI: configuration space, regions that move, interrupt pins and messages (PCI Local Bus 3.0)."""

from e2kdisk.devices.pci.bar import Bar, Claim
from e2kdisk.devices.pci.bridge import PciBridge
from e2kdisk.devices.pci.bus import PciBus
from e2kdisk.devices.pci.capability import Capability
from e2kdisk.devices.pci.function import Identity, PciFunction
from e2kdisk.devices.pci.host import ConfigPorts, Ecam
from e2kdisk.devices.pci.interrupt import WiredOr, swizzle
from e2kdisk.devices.pci.window import PciWindow

__all__ = [
    "Bar",
    "Capability",
    "Claim",
    "ConfigPorts",
    "Ecam",
    "Identity",
    "PciBridge",
    "PciBus",
    "PciFunction",
    "PciWindow",
    "WiredOr",
    "swizzle",
]
