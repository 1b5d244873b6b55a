"""-device: controllers under QEMU's names, with those of their properties that ours have, and where they go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from e2kdisk.block.disk import Disk
from e2kdisk.block.tree import Tree
from e2kdisk.devices.ata import AtaDevice, PciIde
from e2kdisk.devices.ata.identify import Identity
from e2kdisk.devices.virtio import VirtioBlk, VirtioMmio, VirtioPci
from e2kdisk.errors import UsageError
from e2kdisk.exports.qtest.drives import IDE_UNITS, Drives
from e2kdisk.exports.qtest.models import IDE_BOARDS, MachineModel
from e2kdisk.exports.qtest.option_text import Properties
from e2kdisk.machine.boards.board import Placed

MMIO_SLOTS = {"virt-arm64": 32, "virt-riscv64": 8}
"""Slots for virtio-mmio; devices fill them from the last one down, as in QEMU."""
PCI_BUSES = {"virt-arm64": ("pcie.0",), "elbrus": ("pci.0", "pcie.0")}
"""Names of the only PCI bus."""
IDE_PLACES = 4
IDE_NAME = "ide0"
"""What the controller of all IDE drives is called."""
QUEUE_SIZE = 256
_SLOT = re.compile(r"(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?0)?", re.IGNORECASE)
_BUS_NUMBER = re.compile(r"(ide|virtio-mmio-bus)\.([0-9]{1,2})")


@dataclass(slots=True)
class Devices:
    """What a command line plugs into a board."""

    model: MachineModel
    drives: Drives
    legacy_mmio: bool = True
    """virtio-mmio speaks version 1, QEMU's choice unless -global virtio-mmio.force-legacy=off."""
    placed: list[Placed] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)
    _mmio_slots: dict[int, str] = field(default_factory=dict)
    _ide: dict[int, AtaDevice] = field(default_factory=dict)

    def add(self, tree: Tree) -> None:
        """One -device. Raises UsageError, ImageError, OSError."""
        tree = dict(tree)
        name = tree.pop("driver", None)
        if not isinstance(name, str) or not name:
            raise UsageError("Parameter 'driver' is missing")
        name = ALIASES.get(name, name)
        if name not in MODELS:
            raise UsageError(f"'{name}' is not a valid device model name; known are {', '.join(MODELS)}")
        given = Properties(name, tree)
        device_id = given.identifier("id")
        if device_id in self._ids or device_id == IDE_NAME:
            raise UsageError(f"Duplicate ID '{device_id}' for device")
        disk = self.drives.take(given.text("drive"), name)
        MODELS[name](self, given, disk, device_id)
        if device_id:
            self._ids.add(device_id)

    def add_loose(self) -> None:
        """Controllers for drives that ask for one without a -device. Raises UsageError."""
        virtio = "virtio-blk-pci" if self.model.board in PCI_BUSES else "virtio-blk-device"
        for interface, index, disk in self.drives.untaken():
            name, place = virtio, {}
            if interface == "ide":
                name, place = "ide-hd", {"bus": f"ide.{index // IDE_UNITS}", "unit": str(index % IDE_UNITS)}
            MODELS[name](self, Properties(name, place), disk, "")

    def controllers(self) -> list[Placed]:
        """All controllers, IDE last: one for all its drives."""
        if not self._ide:
            return self.placed
        drives = [self._ide.get(place) for place in range(IDE_PLACES)]
        return [*self.placed, Placed(PciIde(drives, name=IDE_NAME))]

    # -- the kinds --------------------------------------------------------------------------------

    def virtio_mmio(self, given: Properties, disk: Disk, device_id: str) -> None:
        """virtio-blk-device."""
        slots = MMIO_SLOTS.get(self.model.board)
        if slots is None:
            raise UsageError(f"No 'virtio-bus' bus found for device '{given.what}'")
        free = [slot for slot in range(slots - 1, -1, -1) if slot not in self._mmio_slots]
        slot = _numbered(given.text("bus"), "virtio-mmio-bus", free)
        if slot is None:
            raise UsageError(f"all {slots} slots for virtio-mmio are taken")
        device = self._virtio_blk(given, disk, device_id)
        given.finish()
        self._mmio_slots[slot] = device.name
        self.placed.append(Placed(VirtioMmio(device, legacy=self.legacy_mmio), slot))

    def virtio_pci(self, given: Properties, disk: Disk, device_id: str, transitional: bool | None = None) -> None:
        """virtio-blk-pci; `transitional` is what the name says, None leaves it to properties."""
        buses = PCI_BUSES.get(self.model.board)
        if buses is None:
            raise UsageError(f"No 'PCI' bus found for device '{given.what}'")
        given.must_be("bus", *buses)
        slot = _pci_slot(given)
        device = self._virtio_blk(given, disk, device_id)
        without_legacy = bool(given.switch("disable-legacy", False))
        if given.switch("disable-modern", False):
            raise UsageError("disable-modern=on is not modelled: every device speaks the modern interface, too")
        vectors = given.number("vectors")
        given.ignore("modern-pio-notify", "ats", "page-per-vq", "rombar", "romfile")
        given.finish()
        if vectors is not None and vectors > 2048:
            raise UsageError(f"vectors={vectors}: a function has 2048 at most")
        legacy = not without_legacy if transitional is None else transitional
        self.placed.append(Placed(VirtioPci(device, transitional=legacy, vectors=vectors), slot))

    def _virtio_blk(self, given: Properties, disk: Disk, device_id: str) -> VirtioBlk:
        _describe(given, disk)
        given.must_be("num-queues", "1")
        for key in ("event_idx", "indirect_desc", "config-wce", "discard", "write-zeroes", "seg-max-adjust"):
            given.must_be(key, "on", "true")
        for key in ("packed", "scsi", "iommu_platform"):
            given.must_be(key, "off", "false")
        device = VirtioBlk(disk, queue_size=given.number("queue-size", QUEUE_SIZE) or 0)
        device.name = device_id or f"device[{len(self.placed)}]"  # no identifier, so never somebody's
        return device

    def ide_hd(self, given: Properties, disk: Disk, device_id: str) -> None:
        """ide-hd: buses ide.0 and ide.1, units 0 and 1 of each."""
        if self.model.board not in IDE_BOARDS:
            raise UsageError(f"No 'IDE' bus found for device '{given.what}'")
        bus, unit = given.text("bus"), given.number("unit")
        free = [place for place in range(IDE_PLACES) if place not in self._ide]
        if bus:
            channel = _numbered(bus, "ide", [0, 1])
            free = [place for place in free if place // 2 == channel]
        if unit is not None:
            free = [place for place in free if place % 2 == unit]
        if not free:
            raise UsageError(f"{given.what}: there is no free place {bus or 'on the IDE buses'} for it")
        serial = given.text("serial")
        _describe(given, disk)
        own = Identity.of(disk, free[0] + 1)
        identity = Identity(
            serial or own.serial,
            given.text("model", own.model),
            given.text("ver", own.firmware),
            given.number("wwn", 0) or 0,
        )
        given.finish()
        self._ide[free[0]] = AtaDevice(disk, identity=identity)


def _describe(given: Properties, disk: Disk) -> None:
    """Properties that every disk has (QEMU's block devices)."""
    disk.serial = given.text("serial", disk.serial)
    for key, attribute in (
        ("logical_block_size", "logical_block_size"),
        ("physical_block_size", "physical_block_size"),
    ):
        if (size := given.number(key)) is not None:
            setattr(disk, attribute, size)
    write_cache = given.switch("write-cache")
    if write_cache is not None:
        disk.write_cache = write_cache
    given.ignore("bootindex", "share-rw", "min_io_size", "opt_io_size", "discard_granularity")
    for key in ("werror", "rerror"):
        given.must_be(key, "report", "auto")


def _numbered(bus: str, kind: str, free: list[int]) -> int | None:
    """The number in the name of a bus ("ide.1"), which must be free; without a name the first one that is."""
    if not bus:
        return free[0] if free else None
    found = _BUS_NUMBER.fullmatch(bus)
    if found is None or found[1] != kind or int(found[2]) not in free:
        raise UsageError(f"Bus '{bus}' not found, or it is full")
    return int(found[2])


def _pci_slot(given: Properties) -> int | None:
    """Property addr: a slot in hexadecimal, with a function that must be 0."""
    text = given.text("addr")
    given.must_be("multifunction", "off", "false")
    if not text:
        return None
    found = _SLOT.fullmatch(text)
    if found is None or int(found[1], 16) > 31:
        raise UsageError(f"Property '{given.what}.addr' doesn't take value '{text}'")
    return int(found[1], 16)


def _pci(transitional: bool | None) -> Callable[..., None]:
    def plug(devices: Devices, given: Properties, disk: Disk, device_id: str) -> None:
        devices.virtio_pci(given, disk, device_id, transitional)

    return plug


MODELS: dict[str, Callable[[Devices, Properties, Disk, str], Any]] = {
    "virtio-blk-device": Devices.virtio_mmio,
    "virtio-blk-pci": _pci(None),
    "virtio-blk-pci-transitional": _pci(True),
    "virtio-blk-pci-non-transitional": _pci(False),
    "ide-hd": Devices.ide_hd,
}
"""Name of a device -> what plugs it in."""
ALIASES = {"virtio-blk": "virtio-blk-pci"}
