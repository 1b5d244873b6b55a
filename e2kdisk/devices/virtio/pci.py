"""Virtio over PCI: a virtio device as a function on a PCI bus (VIRTIO 1.2 4.1).

Transitional (1af4:1001 for a disk) has both the legacy registers in I/O space and the modern ones in memory; modern
(1af4:1042) has only those. Interrupts go by the pin or by MSI-X. The device touches memory only while the function
is a bus master: requests wait, those in flight end before the store that takes mastership away is done.
"""

from __future__ import annotations

from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.devices.controller import RegisterDevice, Trace
from e2kdisk.devices.guest_error import GuestError
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.devices.pci.bar import Bar
from e2kdisk.devices.pci.capability import VENDOR_SPECIFIC, Capability
from e2kdisk.devices.pci.function import Identity, PciFunction
from e2kdisk.devices.pci.msix import Msix
from e2kdisk.devices.registers import RW, R, Register, RegisterMap
from e2kdisk.devices.virtio.device import VirtioDevice
from e2kdisk.devices.virtio.pci_regions import (
    COMMON_AT,
    DEVICE_AT,
    ISR_AT,
    NOTIFY_AT,
    NOTIFY_MULTIPLIER,
    PAGE,
    LegacyRegion,
    ModernRegion,
)
from e2kdisk.devices.virtio.pci_registers import COMMON, PciMistake, PciRegisters
from e2kdisk.errors import UsageError

VENDOR = 0x1AF4
TRANSITIONAL_ID = {1: 0x1000, 2: 0x1001, 3: 0x1003, 4: 0x1005, 5: 0x1002, 8: 0x1004}
"""PCI device id of a transitional device, by virtio device id (VIRTIO 1.2 4.1.2.1)."""
MODERN_ID = 0x1040
"""PCI device id of a modern device, less its virtio device id (VIRTIO 1.2 4.1.2)."""
CLASS_CODE = {2: 0x0100}
"""PCI class by virtio device id: drivers go by the ids, firmware looks here for a disk. Others have none (0x00ff)."""

LEGACY_BAR = 0
MSIX_BAR = 1
MODERN_BAR = 4

# cfg_type of a capability (VIRTIO 1.2 4.1.4)
COMMON_CFG = 1
NOTIFY_CFG = 2
ISR_CFG = 3
DEVICE_CFG = 4
PCI_CFG = 5


class VirtioPci(PciFunction):
    """A virtio device as a PCI function; a Controller."""

    def __init__(self, device: VirtioDevice, *, transitional: bool = True, vectors: int | None = None) -> None:
        """Vectors is the number of MSI-X vectors, by default one a queue and one for configuration; 0 is no MSI-X.

        Raises UsageError for a device that has no transitional id.
        """
        if transitional and device.device_id not in TRANSITIONAL_ID:
            raise UsageError(f"{device.name}: there is no transitional device of this kind")
        vectors = len(device.queues) + 1 if vectors is None else vectors
        self.device = device
        self.transitional = transitional
        self.msix: Msix | None = None
        name = device.name
        if vectors:
            self.msix = Msix(name, vectors, deliver=self._send, on_control=self._drive_pin)
        self.registers = PciRegisters(device, self.msix, self.set_intx)
        modern = ModernRegion(name, self.registers)
        bars = [Bar(index=MODERN_BAR, size=modern.size, registers=modern, wide=True, prefetchable=True)]
        if transitional:
            legacy = LegacyRegion(name, self.registers)
            bars.insert(0, Bar(index=LEGACY_BAR, size=legacy.size, registers=legacy, space="io"))
        capabilities = _capabilities(device)
        if self.msix is not None:
            bars.append(self.msix.bar(MSIX_BAR))
            capabilities.append(self.msix.capability(MSIX_BAR))
        super().__init__(name, _identity(device, transitional), interrupt_pin=1, bars=bars, capabilities=capabilities)
        self._window_at = self.capability_offsets[len(_STRUCTURES)]
        device.choose_era(legacy=False)
        device.set_dma(False)
        device.reset()

    # -- Controller -------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Scheduler:
        """The device's."""
        return self.device.scheduler

    @property
    def disks(self) -> dict[int, Disk]:
        """Controller.disks."""
        return self.device.disks

    @property
    def trace(self) -> Trace | None:
        """The device's: transport and device report to the same place."""
        return self.device.trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        self.device.trace = trace

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Controller.connect."""
        super().connect(memory, irq)
        self.device.plug(memory)

    def reset(self) -> None:
        """Controller.reset."""
        self.registers.write_status(0)
        self.device.choose_era(legacy=False)
        super().reset()
        if self.msix is not None:
            self.msix.reset()
            self.msix.set_control(0)

    def on_command(self) -> None:
        """PciFunction.on_command: DMA and messages are for bus masters."""
        self.device.set_dma(self.bus_master)
        if self.msix is not None:
            self.msix.allow(self.bus_master)

    def _drive_pin(self) -> None:
        self.registers.drive_pin()

    def _send(self, address: int, data: int) -> None:
        if self.bus is not None:
            if self.device.trace is not None:
                self.device.trace.event(self.device.name, "message", address=address, data=data)
            self.bus.message(address, data)

    # -- access window (VIRTIO 1.2 4.1.4.9) ----------------------------------------------------------

    def read_config(self, offset: int, size: int) -> int:
        """PciFunction.read_config: reading the window's data reads what it points to."""
        data = self._window_at + _DATA
        if offset < data + 4 and offset + size > data:
            target = self._target()
            if target is not None:
                region, at, length = target
                self.config.set(data, length, region.read(at, length) & (1 << 8 * length) - 1)
        return super().read_config(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """PciFunction.write_config: writing the window's data writes what it points to."""
        super().write_config(offset, size, value)
        data = self._window_at + _DATA
        if offset < data + 4 and offset + size > data:
            target = self._target()
            if target is not None:
                region, at, length = target
                region.write(at, length, self.config.get(data, length))

    def _target(self) -> tuple[RegisterDevice, int, int] | None:
        """What the window points to: region, offset and length in bytes."""
        index = self.config.get(self._window_at + _BAR, 1)
        at = self.config.get(self._window_at + _OFFSET, 4)
        length = self.config.get(self._window_at + _LENGTH, 4)
        for bar in self.bars:
            if bar.index == index and length in (1, 2, 4) and at % length == 0 and at + length <= bar.size:
                return bar.registers, at, length
        self.device.report(GuestError(PciMistake.ACCESS_WINDOW, at))
        return None

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """Controller.save."""
        return super().save() | {
            "transport": "virtio-pci",
            "transitional": self.transitional,
            "legacy": self.device.legacy,
            "registers": self.registers.save_registers(),
            "msix": None if self.msix is None else self.msix.save(),
            "device": self.device.save(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Controller.load."""
        if state["transport"] != "virtio-pci" or state["transitional"] != self.transitional:
            raise ValueError(f"{self.name}: this state is of another transport")
        self.registers.write_status(0)
        super().load(state)
        self.registers.load_registers(state["registers"])
        self.device.choose_era(legacy=state["legacy"])
        self.device.load(state["device"])
        if self.msix is not None:
            control = self.config.get(self.capability_offsets[-1] + 2, 2)
            self.msix.load(state["msix"], control, bus_master=self.bus_master)
        self.registers.drive_pin()
        # Last: a queue that may be served again may interrupt at once.
        self.device.set_dma(self.bus_master)


def _identity(device: VirtioDevice, transitional: bool) -> Identity:
    kind = device.device_id
    return Identity(
        vendor=VENDOR,
        device=TRANSITIONAL_ID[kind] if transitional else MODERN_ID + kind,
        class_code=CLASS_CODE.get(kind, 0x00FF),
        revision=0 if transitional else 1,  # 4.1.2.1: modern drivers may tell by it
        subsystem_vendor=VENDOR,
        # Legacy drivers go by the subsystem; from 0x40 up they leave a device alone (4.1.2.1).
        subsystem=kind if transitional else 0x1100,
    )


# -- capabilities (VIRTIO 1.2 4.1.4) ------------------------------------------------------------------

_BAR, _OFFSET, _LENGTH, _DATA = 4, 8, 12, 16
"""Places in struct virtio_pci_cap and, behind it, of the window's data."""

_STRUCTURES = (
    (COMMON_CFG, "common", COMMON_AT, COMMON.size),
    (ISR_CFG, "isr", ISR_AT, 1),
    (DEVICE_CFG, "device", DEVICE_AT, None),
    (NOTIFY_CFG, "notify", NOTIFY_AT, None),
)
"""cfg_type, name, offset in the modern region, bytes (None depends on the device)."""


def _capabilities(device: VirtioDevice) -> list[Capability]:
    lengths = {DEVICE_CFG: (device.config_size + 3) & -4, NOTIFY_CFG: NOTIFY_MULTIPLIER * len(device.queues)}
    assert max(lengths.values()) <= PAGE
    found = [_structure(kind, name, at, length or lengths[kind]) for kind, name, at, length in _STRUCTURES]
    return [*found, _structure(PCI_CFG, "window", 0, 0, stored=0xFFFFFFFF)]


def _structure(kind: int, name: str, offset: int, length: int, *, stored: int = 0) -> Capability:
    """Struct virtio_pci_cap; of the access window the driver may write all that says where it is."""

    def field(at: int, field_name: str, width: int, meaning: str, reset: int, stored: int = 0) -> Register[Any]:
        return Register(
            offset=at,
            name=f"{name}.{field_name}",
            access=RW if stored else R,
            width=width,
            reset=reset,
            meaning=meaning,
            section="VIRTIO 1.2 4.1.4",
            stored=stored,
        )

    registers = [
        field(3, "cfg_type", 1, "which structure this is", kind),
        field(_BAR, "bar", 1, "the region that has it", 0 if stored else MODERN_BAR, stored & 0xFF),
        field(5, "id", 1, "one of several, there is one", 0),
        field(_OFFSET, "offset", 4, "where it begins there", offset, stored),
        field(_LENGTH, "length", 4, "how long it is", length, stored),
    ]
    if kind == NOTIFY_CFG:
        registers.append(field(16, "notify_off_multiplier", 4, "bytes between queues", NOTIFY_MULTIPLIER))
    if kind == PCI_CFG:
        registers.append(field(_DATA, "pci_cfg_data", 4, "what the window points to", 0, stored))
    size = max(register.offset + register.width for register in registers)
    return Capability(
        VENDOR_SPECIFIC,
        RegisterMap(f"virtio {name}", field(2, "cap_len", 1, "bytes of this capability", size), *registers),
    )
