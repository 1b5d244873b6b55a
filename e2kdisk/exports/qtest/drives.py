"""-drive and -blockdev: opens what they describe, and keeps it by its id and its node name until a device wants it."""

from __future__ import annotations

from itertools import count
from typing import Any, NamedTuple

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.open_tree import FORMAT_OPTIONS, TreeOpener
from e2kdisk.block.options import cache_mode
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.block.tree import Taken, Tree
from e2kdisk.errors import E2kDiskError, UsageError
from e2kdisk.exports.qtest.option_text import Properties

_DEFAULT_IDS = {"none": "none{}", "virtio": "virtio{}", "ide": "ide{bus}-hd{unit}"}
"""Interface -> the id of a drive that has none, as QEMU makes it."""
IDE_UNITS = 2
"""Drives of a bus."""
_FIXED: dict[str, tuple[str, ...]] = {
    "media": ("disk",),
    "snapshot": ("off",),
    "copy-on-read": ("off",),
    "detect-zeroes": ("off",),
    "werror": ("report", "auto"),
    "rerror": ("report", "auto"),
    "aio": ("threads", "native", "io_uring"),
}
"""What an option can only be; all values of aio mean the engine that we have."""


DRIVE_FILE = "#file"
"""Where add_drive() finds file=NAME, beside which there may be file.OPTION=VALUE."""


class LooseDrive(NamedTuple):
    """A drive of -drive if=..., which gets a controller without -device."""

    interface: str
    place: int
    disk: Disk


class Drives:
    """The disks of one command line."""

    def __init__(self, scheduler: Scheduler, interface: str = "virtio") -> None:
        """`interface` is what a drive is for that does not say."""
        self.scheduler = scheduler
        self._interface = interface
        self.engine = AutoEngine(scheduler)
        self.disks: dict[str, Disk] = {}
        """By the id of -drive."""
        self.nodes: dict[str, Disk] = {}
        """By node name."""
        self._loose: list[LooseDrive] = []
        self._references: dict[str, Tree] = {}
        """Files of -blockdev that another -blockdev names."""
        self._taken: list[Disk] = []
        self._places: set[tuple[str, int]] = set()
        """Interface and index of every -drive."""

    def add_drive(self, tree: Tree) -> None:
        """-drive. Raises UsageError, ImageError, OSError."""
        given = Properties("drive", tree)
        interface = given.text("if", self._interface)
        if interface not in _DEFAULT_IDS:
            raise UsageError(f"unsupported bus type '{interface}'")
        index = self._index(given, interface)
        default_id = _DEFAULT_IDS[interface].format(index, bus=index // IDE_UNITS, unit=index % IDE_UNITS)
        drive_id = given.identifier("id") or default_id
        if drive_id in self.disks:
            raise UsageError(f"Duplicate ID '{drive_id}' for drive")
        for key, values in _FIXED.items():
            given.must_be(key, *values)
        read_only = bool(given.switch("readonly", False))
        given.ignore("auto-read-only")
        cache = given.text("cache", "writeback")
        cache = "none" if cache == "off" else cache
        cache_mode(cache)
        node_name = given.text("node-name")
        name = given.text(DRIVE_FILE)
        driver = given.text("format")
        options = given.rest() | ({"driver": driver} if driver else {})
        if not name and not options:
            raise UsageError("a drive needs file=PATH; a drive without a medium is not modelled")
        disk = self._open(name or None, options, read_only, cache)
        self.disks[drive_id] = disk
        self._name(node_name, disk)
        self._places.add((interface, index))
        if interface != "none":
            self._loose.append(LooseDrive(interface, index, disk))

    def _index(self, given: Properties, interface: str) -> int:
        """The place of a drive among those of its interface: the first free one, unless it says."""
        index, bus, unit = given.number("index"), given.number("bus"), given.number("unit")
        if bus is not None or unit is not None:
            if index is not None:
                raise UsageError("index cannot be used with bus and unit")
            index = (bus or 0) * IDE_UNITS + (unit or 0)
        if index is None:
            return next(free for free in count() if (interface, free) not in self._places)
        if (interface, index) in self._places:
            raise UsageError(f"drive with index={index} exists")
        return index

    def add_blockdev(self, tree: Tree) -> None:
        """-blockdev: a format over a file, or a file that another -blockdev names. Raises UsageError, ImageError."""
        tree = dict(tree)
        name = tree.get("node-name")
        if not isinstance(name, str) or not name:
            raise UsageError("'node-name' must be specified for the root node")
        if name in self.nodes or name in self._references:
            raise UsageError("Duplicate nodes with node-name='" + name + "'")
        below = tree.get("file")
        if isinstance(below, str):
            if below not in self._references:
                raise UsageError(f"Cannot find device='{below}' nor node-name='{below}'")
            tree["file"] = self._references.pop(below)
        elif tree.get("driver") == "file":
            self._references[name] = {key: value for key, value in tree.items() if key != "node-name"}
            return
        if "driver" not in tree:
            raise UsageError("Parameter 'driver' is missing")
        self._name(name, self._open(None, tree, False, "writeback"))

    def _name(self, name: str, disk: Disk) -> None:
        if not name:
            return
        if name in self.nodes:
            disk.close()
            raise UsageError(f"Duplicate nodes with node-name='{name}'")
        self.nodes[name] = disk

    def _open(self, name: str | None, tree: Tree, read_only: bool, cache: str) -> Disk:
        FORMAT_OPTIONS.setdefault("qcow2", _qcow2_options)
        # The user names his own images, so what they name in turn may lie anywhere.
        opener = TreeOpener(Opener(self.engine, OpenPolicy.permissive()), read_only=read_only, cache=cache)
        node: Node = self.scheduler.run(opener.open(name, tree))
        return Disk(node, writethrough=cache_mode(opener.cache).writethrough)

    def take(self, name: str, wanted_by: str) -> Disk:
        """The disk of this drive id or node name, for one device. Raises UsageError."""
        if not name:
            raise UsageError("drive property not set")
        if name in self._references:  # a file of -blockdev, on its own
            self._name(
                name, self._open(None, {"driver": "raw", "file": self._references.pop(name)}, False, "writeback")
            )
        disk = self.disks.get(name) or self.nodes.get(name)
        if disk is None:
            raise UsageError(f"Property '{wanted_by}.drive' can't find value '{name}'")
        if any(disk is other for other in self._taken):
            raise UsageError(f"Drive '{name}' is already in use by another device")
        self._taken.append(disk)
        return disk

    def untaken(self) -> list[LooseDrive]:
        """Drives that no -device has taken and that get a controller without one, by their places."""
        found = [drive for drive in self._loose if not any(drive.disk is other for other in self._taken)]
        return sorted(found, key=lambda drive: drive.place)

    def close(self) -> None:
        """Close everything. Raises OSError, ImageError, after everything is closed."""
        errors: list[Exception] = []
        for disk in {id(disk): disk for disk in (*self.disks.values(), *self.nodes.values())}.values():
            try:
                disk.close()
            except (OSError, E2kDiskError) as error:
                errors.append(error)
        self.engine.close()
        if errors:
            raise errors[0]


def _qcow2_options(taken: Taken, filename: str, discards: bool) -> dict[str, Any]:
    from e2kdisk.qcow2.runtime import take_runtime

    return take_runtime(taken, filename, discards=discards)
