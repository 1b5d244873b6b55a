"""e2kdisk: a virtual disk for emulators, from the controller's registers down to the qcow2 file.

The names below are loaded when first used: importing the package costs nothing.

Commands are over in milliseconds. So aio, block, qcow2 and the command lines of img and io, which they all load, have
plain classes where the rest of the package has dataclasses: importing and making those took a quarter of each start.
A NamedTuple costs ten times a plain class, the first one a millisecond, as its annotations are compiled.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs more to import than the rest of a short command
if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.block.open import open_disk
    from e2kdisk.block.policy import OpenPolicy
    from e2kdisk.devices.ata.platform import AtaPlatform
    from e2kdisk.devices.virtio.blk import VirtioBlk
    from e2kdisk.devices.virtio.mmio import VirtioMmio
    from e2kdisk.errors import E2kDiskError, ImageError, UnsupportedFeature, UsageError
    from e2kdisk.machine.attach import attach
    from e2kdisk.machine.machine import Machine
    from e2kdisk.qcow2.check import check
    from e2kdisk.qcow2.create import create
    from e2kdisk.qcow2.info import info

__version__ = "0.1.0"

__all__ = [
    "AtaPlatform",
    "Disk",
    "E2kDiskError",
    "ImageError",
    "Machine",
    "OpenPolicy",
    "UnsupportedFeature",
    "UsageError",
    "VirtioBlk",
    "VirtioMmio",
    "attach",
    "check",
    "create",
    "info",
    "open_disk",
]

_MODULES = {
    "AtaPlatform": "e2kdisk.devices.ata.platform",
    "Disk": "e2kdisk.block.disk",
    "E2kDiskError": "e2kdisk.errors",
    "ImageError": "e2kdisk.errors",
    "Machine": "e2kdisk.machine.machine",
    "OpenPolicy": "e2kdisk.block.policy",
    "UnsupportedFeature": "e2kdisk.errors",
    "UsageError": "e2kdisk.errors",
    "VirtioBlk": "e2kdisk.devices.virtio.blk",
    "VirtioMmio": "e2kdisk.devices.virtio.mmio",
    "attach": "e2kdisk.machine.attach",
    "check": "e2kdisk.qcow2.check",
    "create": "e2kdisk.qcow2.create",
    "info": "e2kdisk.qcow2.info",
    "open_disk": "e2kdisk.block.open",
}


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'e2kdisk' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*globals(), *__all__])
