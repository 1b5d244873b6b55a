"""What the registers of virtio over PCI do beyond those of every transport, and the tables of them (VIRTIO 1.2 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.pci.msix import Msix
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.devices.virtio.device import CONFIG_CHANGE, USED_BUFFER, VirtioDevice
from e2kdisk.devices.virtio.queue import SplitQueue
from e2kdisk.devices.virtio.transport import LEGACY_PAGE_SIZE, TransportRegisters

NO_VECTOR = 0xFFFF
"""VIRTIO_MSI_NO_VECTOR: no message for this (VIRTIO 1.2 4.1.5.1.2)."""


class PciMistake(Mistake):
    """What a driver can do wrong with registers that only this transport has."""

    MIXED = "registers of the other generation are written while the device is in use", "VIRTIO 1.2 4.1.4.10"
    ENABLE = "queue_enable is written with something else than 1", "VIRTIO 1.2 4.1.4.3.2"
    VECTOR = "there is no such MSI-X vector", "VIRTIO 1.2 4.1.5.1.2"
    ACCESS_WINDOW = "the access window points to no register", "VIRTIO 1.2 4.1.4.9.1"


class PciRegisters(TransportRegisters):
    """Registers of one device for drivers of both generations; the device is of the one that wrote last from reset."""

    def __init__(self, device: VirtioDevice, msix: Msix | None, set_pin: Callable[[bool], None]) -> None:
        self.msix = msix
        self._set_pin = set_pin
        super().__init__(device)

    def _clear(self) -> None:
        super()._clear()
        self._config_vector = NO_VECTOR
        self._queue_vectors = [NO_VECTOR] * len(self.device.queues)

    def write_status(self, value: int) -> None:
        """TransportRegisters.write_status."""
        super().write_status(value)
        if value & 0xFF == 0:
            # No notification may come from before the reset (VIRTIO 1.2 2.4.1): neither the pin nor a waiting message.
            if self.msix is not None:
                self.msix.forget()
            self.drive_pin()

    def speak(self, *, legacy: bool) -> bool:
        """A driver of this generation writes: whether the device is its, which a device in use is not."""
        device = self.device
        if device.legacy != legacy:
            if device.status or any(queue.ready for queue in device.queues):
                device.report(GuestError(PciMistake.MIXED))
                return False
            device.choose_era(legacy=legacy)
        return True

    # -- interrupts -------------------------------------------------------------------------------

    @property
    def msix_enabled(self) -> bool:
        """Whether messages take the place of the pin."""
        return self.msix is not None and self.msix.enabled

    def used_buffer(self, queue: SplitQueue) -> None:
        """Transport.used_buffer."""
        self._interrupt(USED_BUFFER, self._queue_vectors[queue.index])

    def config_change(self) -> None:
        """Transport.config_change."""
        # Drivers that only look at bit 0 exist, so both reasons are given.
        self._interrupt(USED_BUFFER | CONFIG_CHANGE, self._config_vector)

    def _interrupt(self, reasons: int, vector: int) -> None:
        self._interrupt_status |= reasons
        if self.msix is not None and self.msix.enabled:
            self.msix.notify(vector)
        else:
            self._set_pin(True)

    def drive_pin(self) -> None:
        """The pin follows the ISR status unless messages are used (VIRTIO 1.2 4.1.4.5.1)."""
        self._set_pin(self._interrupt_status != 0 and not self.msix_enabled)

    def take_isr(self) -> int:
        """ISR status; reading clears it and releases the pin (VIRTIO 1.2 4.1.4.5.1)."""
        reasons = self._interrupt_status
        if reasons:
            self._interrupt_status = 0
            self._set_pin(False)
        return reasons

    # -- vectors (VIRTIO 1.2 4.1.5.1.2) --------------------------------------------------------------

    def _vector(self, value: int) -> int:
        """The vector that sticks: a driver reads NO_VECTOR back when it cannot have the one it asked for."""
        if value == NO_VECTOR or (self.msix is not None and value < self.msix.vectors):
            return value
        self.device.report(GuestError(PciMistake.VECTOR, value))
        return NO_VECTOR

    def read_config_vector(self) -> int:
        """The vector of configuration changes."""
        return self._config_vector

    def write_config_vector(self, value: int) -> None:
        """Choose the vector of configuration changes."""
        self._config_vector = self._vector(value)

    def read_queue_vector(self) -> int:
        """The vector of the selected queue."""
        return NO_VECTOR if self._selected() is None else self._queue_vectors[self._queue_select]

    def write_queue_vector(self, value: int) -> None:
        """Choose the vector of the selected queue."""
        if self._selected() is not None:
            self._queue_vectors[self._queue_select] = self._vector(value)

    def queue_was_reset(self, queue: SplitQueue) -> None:
        """TransportRegisters.queue_was_reset."""
        self._queue_vectors[queue.index] = NO_VECTOR

    # -- modern (VIRTIO 1.2 4.1.4.3) -----------------------------------------------------------------

    def read_queue_count(self) -> int:
        """Number of queues."""
        return len(self.device.queues)

    def read_generation(self) -> int:
        """8 bits of the configuration's generation."""
        return self.device.config_generation & 0xFF

    def read_queue_size(self) -> int:
        """The size that the driver has set, at first the largest; 0 says that there is no such queue."""
        queue = self._selected()
        return 0 if queue is None else queue.size & 0xFFFF

    def write_queue_enable(self, value: int) -> None:
        """1 starts the queue; nothing but a reset stops it."""
        queue = self._selected()
        if value != 1:
            self.device.report(GuestError(PciMistake.ENABLE, value))
        elif queue is not None and not queue.ready:
            self.device.start_queue(queue)

    # -- legacy (VIRTIO 1.2 4.1.4.10) ----------------------------------------------------------------

    def read_legacy_features(self) -> int:
        """The features for legacy drivers."""
        return self.device.offered_to(legacy=True) & 0xFFFFFFFF

    def read_legacy_driver_features(self) -> int:
        """What the driver has accepted of them."""
        return self._driver_features & 0xFFFFFFFF

    def write_legacy_driver_features(self, value: int) -> None:
        """What the driver accepts of them."""
        self._driver_features = value
        self.device.set_driver_features(value)

    def write_queue_pfn(self, value: int) -> None:
        """Start the queue on this page, or stop it with 0."""
        self.place_queue(value, LEGACY_PAGE_SIZE, LEGACY_PAGE_SIZE)

    # -- state ------------------------------------------------------------------------------------

    def save_registers(self) -> dict[str, Any]:
        """TransportRegisters.save_registers."""
        vectors = {"config_vector": self._config_vector, "queue_vectors": list(self._queue_vectors)}
        return super().save_registers() | vectors

    def load_registers(self, state: dict[str, Any]) -> None:
        """TransportRegisters.load_registers."""
        super().load_registers(state)
        self._config_vector = state["config_vector"]
        self._queue_vectors = list(state["queue_vectors"])


# -- the tables -------------------------------------------------------------------------------------


def _reg(offset: int, name: str, width: int, access: Access, meaning: str, **more: Any) -> Register[PciRegisters]:
    more.setdefault("section", "VIRTIO 1.2 4.1.4.3")
    return Register(offset=offset, name=name, width=width, access=access, meaning=meaning, **more)


def _address(offset: int, name: str, attribute: str, meaning: str) -> list[Register[PciRegisters]]:
    """The two halves of a 64-bit address of the selected queue, each an access of its own (VIRTIO 1.2 4.1.3.1)."""
    return [
        _reg(
            offset + shift // 8,
            f"{name}_{half}",
            4,
            RW,
            f"{meaning}, bits {shift} to {shift + 31}",
            read=lambda pci, shift=shift: pci.read_address(attribute, shift),
            write=lambda pci, value, shift=shift: pci.write_address(attribute, shift, value),
        )
        for shift, half in ((0, "low"), (32, "high"))
    ]


COMMON: RegisterMap[PciRegisters] = RegisterMap(
    "virtio-pci common configuration",
    _reg(
        0x00,
        "device_feature_select",
        4,
        RW,
        "which 32 bits device_feature shows",
        read=PciRegisters.read_device_features_select,
        write=PciRegisters.select_device_features,
    ),
    _reg(0x04, "device_feature", 4, R, "32 bits of what is offered", read=PciRegisters.read_device_features),
    _reg(
        0x08,
        "driver_feature_select",
        4,
        RW,
        "which 32 bits driver_feature sets",
        read=PciRegisters.read_driver_features_select,
        write=PciRegisters.select_driver_features,
    ),
    _reg(
        0x0C,
        "driver_feature",
        4,
        RW,
        "32 bits of what is accepted",
        read=PciRegisters.read_driver_features,
        write=PciRegisters.write_driver_features,
    ),
    _reg(
        0x10,
        "config_msix_vector",
        2,
        RW,
        "vector for configuration changes",
        read=PciRegisters.read_config_vector,
        write=PciRegisters.write_config_vector,
    ),
    _reg(0x12, "num_queues", 2, R, "number of queues", read=PciRegisters.read_queue_count),
    _reg(
        0x14,
        "device_status",
        1,
        RW,
        "how far initialization is, 0 resets",
        read=PciRegisters.read_status,
        write=PciRegisters.write_status,
    ),
    _reg(0x15, "config_generation", 1, R, "changes with the configuration", read=PciRegisters.read_generation),
    _reg(
        0x16,
        "queue_select",
        2,
        RW,
        "the queue that queue registers are about",
        read=PciRegisters.read_queue_select,
        write=PciRegisters.select_queue,
    ),
    _reg(
        0x18,
        "queue_size",
        2,
        RW,
        "its size, 0 for no queue",
        read=PciRegisters.read_queue_size,
        write=PciRegisters.write_queue_size,
    ),
    _reg(
        0x1A,
        "queue_msix_vector",
        2,
        RW,
        "vector for its used buffers",
        read=PciRegisters.read_queue_vector,
        write=PciRegisters.write_queue_vector,
    ),
    _reg(
        0x1C,
        "queue_enable",
        2,
        RW,
        "1 while it is served",
        read=PciRegisters.read_queue_ready,
        write=PciRegisters.write_queue_enable,
    ),
    _reg(0x1E, "queue_notify_off", 2, R, "its place in the notifications", read=PciRegisters.read_queue_select),
    *_address(0x20, "queue_desc", "desc_address", "address of the descriptor table"),
    *_address(0x28, "queue_driver", "avail_address", "address of the available ring"),
    *_address(0x30, "queue_device", "used_address", "address of the used ring"),
    _reg(0x38, "queue_notify_data", 2, R, "without NOTIF_CONFIG_DATA nothing"),
    _reg(0x3A, "queue_reset", 2, RW, "1 resets the queue, at once", write=PciRegisters.write_queue_reset),
)


def _old(offset: int, name: str, width: int, access: Access, meaning: str, **more: Any) -> Register[PciRegisters]:
    return _reg(offset, name, width, access, meaning, section="VIRTIO 1.2 4.1.4.10", **more)


_LEGACY = (
    _old(0x00, "DeviceFeatures", 4, R, "what is offered", read=PciRegisters.read_legacy_features),
    _old(
        0x04,
        "DriverFeatures",
        4,
        RW,
        "what is accepted",
        read=PciRegisters.read_legacy_driver_features,
        write=PciRegisters.write_legacy_driver_features,
    ),
    _old(
        0x08,
        "QueueAddress",
        4,
        RW,
        "page number of the queue, 0 stops it",
        read=PciRegisters.read_queue_pfn,
        write=PciRegisters.write_queue_pfn,
    ),
    _old(0x0C, "QueueSize", 2, R, "0 for no queue", read=PciRegisters.read_queue_size_max),
    _old(
        0x0E,
        "QueueSelect",
        2,
        RW,
        "the queue that queue registers are about",
        read=PciRegisters.read_queue_select,
        write=PciRegisters.select_queue,
    ),
    _old(0x10, "QueueNotify", 2, W, "there are new chains", write=PciRegisters.notify),
    _old(
        0x12,
        "DeviceStatus",
        1,
        RW,
        "how far initialization is, 0 resets",
        read=PciRegisters.read_status,
        write=PciRegisters.write_status,
    ),
    _old(
        0x13,
        "ISRStatus",
        1,
        R,
        "why the pin is driven, cleared by reading",
        read=PciRegisters.take_isr,
    ),
)

LEGACY: RegisterMap[PciRegisters] = RegisterMap("virtio-pci legacy", *_LEGACY)

LEGACY_WITH_VECTORS: RegisterMap[PciRegisters] = RegisterMap(
    "virtio-pci legacy, MSI-X enabled",
    *_LEGACY,
    _old(
        0x14,
        "ConfigVector",
        2,
        RW,
        "vector for configuration changes",
        read=PciRegisters.read_config_vector,
        write=PciRegisters.write_config_vector,
    ),
    _old(
        0x16,
        "QueueVector",
        2,
        RW,
        "vector for used buffers of the queue",
        read=PciRegisters.read_queue_vector,
        write=PciRegisters.write_queue_vector,
    ),
)
"""The device's configuration follows, four bytes later than without MSI-X."""

STATUS_AT = {COMMON.name: 0x14, LEGACY.name: 0x12, LEGACY_WITH_VECTORS.name: 0x12}
"""Offset of the device status in each table."""
