"""-drive and -blockdev: opens what they describe, and keeps it by its id and its node name until a device wants it."""

from __future__ import annotations

from collections import Counter
from typing import Any

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
AIO_MODES = ("threads", "native", "io_uring")
"""All mean the engine that we have."""


DRIVE_FILE = "#file"
"""Where add_drive() finds file=NAME, beside which there may be file.OPTION=VALUE."""


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
        self.loose: list[tuple[str, Disk]] = []
        """Those of -drive if=..., which get a controller without -device: interface, disk."""
        self._references: dict[str, Tree] = {}
        """Files of -blockdev that another -blockdev names."""
        self._taken: list[Disk] = []
        self._numbers: Counter[str] = Counter()

    def add_drive(self, tree: Tree) -> None:
        """-drive. Raises UsageError, ImageError, OSError."""
        given = Properties("drive", tree)
        interface, drive_id = given.text("if", self._interface), given.text("id")
        if interface not in _DEFAULT_IDS:
            raise UsageError(f"unsupported bus type '{interface}'")
        number = self._numbers[interface]
        self._numbers[interface] += 1
        drive_id = drive_id or _DEFAULT_IDS[interface].format(number, bus=number // 2, unit=number % 2)
        if drive_id in self.disks:
            raise UsageError(f"Duplicate ID '{drive_id}' for drive")
        given.must_be("media", "disk")
        for key in ("snapshot", "copy-on-read"):
            given.must_be(key, "off")
        given.must_be("detect-zeroes", "off")
        for key in ("werror", "rerror"):
            given.must_be(key, "report", "auto")
        given.must_be("aio", *AIO_MODES)
        for key in ("index", "bus", "unit"):
            if (place := given.number(key)) is not None:
                raise UsageError(f"{key}={place}: give the place to -device; drives are in the order of the options")
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
        if interface != "none":
            self.loose.append((interface, disk))

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

    def untaken(self) -> list[tuple[str, Disk]]:
        """Drives that no -device has taken and that get a controller without one."""
        return [(interface, disk) for interface, disk in self.loose if not any(disk is other for other in self._taken)]

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
