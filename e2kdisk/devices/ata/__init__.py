"""ATA: drives, channels, the bus master and the controllers that are made of them."""

from e2kdisk.devices.ata.channel import AtaChannel
from e2kdisk.devices.ata.commands import Kind
from e2kdisk.devices.ata.device import AtaDevice
from e2kdisk.devices.ata.identify import Identity
from e2kdisk.devices.ata.pci_ide import PciIde
from e2kdisk.devices.ata.platform import AtaPlatform

__all__ = ["AtaChannel", "AtaDevice", "AtaPlatform", "Identity", "Kind", "PciIde"]
