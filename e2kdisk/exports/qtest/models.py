"""What can be had under a name of QEMU's: programs, machines, the kinds of devices, for command lines and QMP."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

PROGRAM = "qemu-system-"
NO_MACHINE = "none"


@dataclass(frozen=True, slots=True)
class MachineModel:
    """A machine of `-machine`."""

    name: str
    board: str
    """"" is no board at all."""
    cpus: tuple[str, ...] = ()
    """What -cpu may say; none of them runs."""
    ram: int = 128 << 20
    """Bytes unless -m says."""
    interface: str = "virtio"
    """What a drive is for that does not say."""


_ARM = MachineModel("virt", "virt-arm64", ("cortex-a53", "cortex-a57", "cortex-a72", "max"))
_RISCV = MachineModel("virt", "virt-riscv64", ("rv64", "max"))
_ELBRUS = MachineModel("elbrus", "elbrus", ("e2k", "any", "max"), interface="ide")
_NONE = MachineModel(NO_MACHINE, "")

ARCHITECTURES: dict[str, tuple[MachineModel, ...]] = {
    "aarch64": (_ARM, _NONE),
    "riscv64": (_RISCV, _NONE),
    "e2k": (_ELBRUS, _NONE),
}
"""What follows qemu-system- in the name of the program -> its machines."""

BOARDS: tuple[MachineModel, ...] = (
    *(
        MachineModel(model.board, model.board, model.cpus, model.ram, model.interface)
        for model in (_ARM, _RISCV, _ELBRUS)
    ),
    _NONE,
)
"""The machines of `e2kdisk qtest`, by the names of `e2kdisk run`."""


def machines_of(program: str) -> tuple[MachineModel, ...] | None:
    """The machines of a program by its name; None for a name of QEMU's that we have not."""
    if not program.startswith(PROGRAM):
        return BOARDS
    return ARCHITECTURES.get(program.removeprefix(PROGRAM))


MMIO_BOARDS = ("virt-arm64", "virt-riscv64")
PCI_BOARDS = ("virt-arm64", "elbrus")
IDE_BOARDS = ("elbrus",)


class DeviceType(NamedTuple):
    """A type of devices in QEMU's tree of them."""

    parent: str
    boards: tuple[str, ...] = ()
    """Where it can be had; none for those that are only something in common."""
    abstract: bool = False


TYPES: dict[str, DeviceType] = {
    "device": DeviceType("object", abstract=True),
    "sys-bus-device": DeviceType("device", abstract=True),
    "virtio-mmio": DeviceType("sys-bus-device", MMIO_BOARDS),
    "pci-host-bridge": DeviceType("sys-bus-device", abstract=True),
    "gpex-pcihost": DeviceType("pci-host-bridge", ("virt-arm64",)),
    "pci-device": DeviceType("device", abstract=True),
    "virtio-pci": DeviceType("pci-device", abstract=True),
    "virtio-blk-pci-base": DeviceType("virtio-pci", abstract=True),
    "virtio-blk-pci": DeviceType("virtio-blk-pci-base", PCI_BOARDS),
    "virtio-blk-pci-transitional": DeviceType("virtio-blk-pci-base", PCI_BOARDS),
    "virtio-blk-pci-non-transitional": DeviceType("virtio-blk-pci-base", PCI_BOARDS),
    "virtio-device": DeviceType("device", abstract=True),
    "virtio-blk-device": DeviceType("virtio-device", MMIO_BOARDS),
    "ide-device": DeviceType("device", abstract=True),
    "ide-hd": DeviceType("ide-device", IDE_BOARDS),
}
"""What our boards model, under QEMU's names."""


def types_of(machines: Iterable[MachineModel]) -> dict[str, DeviceType]:
    """The types that some of the machines have, and what those come from: a test program tries what it finds here."""
    boards = {model.board for model in machines}
    had = [name for name, kind in TYPES.items() if boards & set(kind.boards)]
    return {name: kind for name, kind in TYPES.items() if any(is_a(other, name) for other in had)}


def is_a(name: str, ancestor: str) -> bool:
    """Whether a type is another or comes from it."""
    while name != ancestor:
        if name not in TYPES:
            return False
        name = TYPES[name].parent
    return True
