"""What can be had under a name of QEMU's: programs, machines, the kinds of devices, for command lines and QMP."""

from __future__ import annotations

from dataclasses import dataclass

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


TYPES: dict[str, tuple[str, bool]] = {
    "device": ("object", True),
    "sys-bus-device": ("device", True),
    "virtio-mmio": ("sys-bus-device", False),
    "pci-host-bridge": ("sys-bus-device", True),
    "gpex-pcihost": ("pci-host-bridge", False),
    "pci-device": ("device", True),
    "virtio-pci": ("pci-device", True),
    "virtio-blk-pci-base": ("virtio-pci", True),
    "virtio-blk-pci": ("virtio-blk-pci-base", False),
    "virtio-blk-pci-transitional": ("virtio-blk-pci-base", False),
    "virtio-blk-pci-non-transitional": ("virtio-blk-pci-base", False),
    "virtio-device": ("device", True),
    "virtio-blk-device": ("virtio-device", False),
    "ide-device": ("device", True),
    "ide-hd": ("ide-device", False),
}
"""Types of devices: their parent, whether they are abstract. What our boards model, under QEMU's names."""


def is_a(name: str, ancestor: str) -> bool:
    """Whether a type is another or comes from it."""
    while name != ancestor:
        if name not in TYPES:
            return False
        name = TYPES[name][0]
    return True
