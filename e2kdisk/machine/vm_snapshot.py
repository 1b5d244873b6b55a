"""Snapshots of a whole machine inside its images: all disks by the same name, the machine's state in the first.

As savevm, loadvm and delvm of QEMU: internal snapshots of qcow2, the state in the area behind the end of the disk that
the format keeps for it (reference: vm_state_size of QCowSnapshot).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2kdisk.block.disk import Disk
from e2kdisk.errors import ImageError, UsageError
from e2kdisk.machine.state import load_machine, save_machine
from e2kdisk.machine.state_file import MAX_BLOBS, pack_state, unpack_state
from e2kdisk.qcow2.image import Qcow2Image
from e2kdisk.qcow2.vm_state import read_snapshot_vm_state, write_vm_state

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    """One snapshot of a machine."""

    name: str
    state_bytes: int
    date_sec: int
    """Unix time at which it was taken."""
    clock_ns: int
    """The guest's time."""


def save_vm(machine: Machine, name: str) -> None:
    """Keep machine and disks under a name, in place of what had it before. Raises UsageError, ImageError, OSError.

    A failure leaves no snapshot of this name on any disk.
    """
    images = _images(machine)
    if not name:
        raise UsageError("a snapshot of a machine needs a name")
    state = pack_state(save_machine(machine))
    run = machine.scheduler.run
    _delete_everywhere(machine, images, name)
    try:
        for number, image in enumerate(images):
            length = 0
            if number == 0:
                length = len(state)
                run(write_vm_state(image, 0, [memoryview(state)]))
            run(image.snapshots.create(name, vm_state_size=length, vm_clock_ns=machine.time.now_ns()))
    except BaseException:
        with suppress(ImageError, OSError):
            _delete_everywhere(machine, images, name)
        raise


def load_vm(machine: Machine, name: str) -> None:
    """Bring machine and disks back to what they were. Raises UsageError, ImageError, OSError.

    Everything that can be found wrong is found before anything changes.
    """
    images = _images(machine)
    for image in images:
        image.snapshots.find(name)
    state = unpack_state(_read_state(machine, images[0], name), f"{images[0].name}, snapshot {name!r}")
    machine.scheduler.drain()
    for image in images:
        machine.scheduler.run(image.snapshots.apply(name))
    # Only now: a ring is looked up in memory at once, but nothing runs before everything is in its place.
    load_machine(machine, state)
    for disk in machine.disks:
        for tell in disk.on_resize:
            tell(disk.size)


def delete_vm(machine: Machine, name: str) -> None:
    """Remove a snapshot from all disks. Raises UsageError, ImageError, OSError."""
    images = _images(machine)
    images[0].snapshots.find(name)
    _delete_everywhere(machine, images, name)


def list_vm(machine: Machine) -> list[VmSnapshot]:
    """The snapshots with a machine's state, in the order of the table."""
    return [
        VmSnapshot(item.name, item.vm_state_size, item.date_sec, item.vm_clock_nsec)
        for item in _images(machine)[0].snapshots.all()
        if item.vm_state_size
    ]


def _images(machine: Machine) -> list[Qcow2Image]:
    """Every disk that the guest can change, as the image that can keep a snapshot of it."""
    images = [_image(disk) for disk in machine.disks if not disk.read_only]
    if not images:
        raise UsageError("a machine is kept in a qcow2 disk of its own, and it has none that can be written")
    return images


def _image(disk: Disk) -> Qcow2Image:
    if not isinstance(disk.node, Qcow2Image):
        raise UsageError(f"{disk.name}: is not a qcow2 image, so it cannot keep a snapshot")
    return disk.node


def _delete_everywhere(machine: Machine, images: list[Qcow2Image], name: str) -> None:
    for image in images:
        for item in [item for item in image.snapshots.all() if item.name == name]:
            machine.scheduler.run(image.snapshots.delete(item.id))


def _read_state(machine: Machine, image: Qcow2Image, name: str) -> bytes:
    """The state kept in a snapshot, read through a view of it: the image itself does not change."""
    snapshot = image.snapshots.find(name)
    if not snapshot.vm_state_size:
        raise UsageError(f"{image.name}: snapshot {name!r} is one of the disk alone, without a machine")
    if snapshot.vm_state_size > MAX_BLOBS:
        raise UsageError(f"{image.name}: snapshot {name!r} claims {snapshot.vm_state_size} bytes of machine")
    buffer = bytearray(snapshot.vm_state_size)
    machine.scheduler.run(read_snapshot_vm_state(image, snapshot, [memoryview(buffer)]))
    return bytes(buffer)
