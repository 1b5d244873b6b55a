"""What each virtio-mmio register does, and the two tables of them (VIRTIO 1.2 4.2.2, 4.2.4)."""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.devices.virtio.device import CONFIG_CHANGE, USED_BUFFER, VirtioDevice
from e2kdisk.devices.virtio.queue import SplitQueue
from e2kdisk.devices.virtio.transport import LEGACY_PAGE_SIZE, TransportRegisters

MAGIC = 0x74726976
"""Little-endian "virt"."""
VENDOR = 0x4B44_3245
"""Little-endian "E2DK"; any value will do (VIRTIO 1.2 4.2.2, VendorID)."""


class MmioMistake(Mistake):
    """What a driver can do wrong with registers that only this transport has."""

    PAGE_SIZE = "GuestPageSize is not a power of 2", "VIRTIO 1.2 4.2.4"
    ALIGN = "QueueAlign is not a power of 2", "VIRTIO 1.2 4.2.4"


class MmioRegisters(TransportRegisters):
    """The registers of one device that are not the same in every transport."""

    def __init__(self, device: VirtioDevice) -> None:
        self._irq = IrqLine()
        self._page_size = LEGACY_PAGE_SIZE
        super().__init__(device)

    def _clear(self) -> None:
        # GuestPageSize stays: legacy drivers write it first and reset the device afterwards.
        super()._clear()
        self._irq.set(False)
        self._align = [LEGACY_PAGE_SIZE] * len(self.device.queues)

    def read_device_id(self) -> int:
        """Which kind of device this is."""
        return self.device.device_id

    def write_queue_ready(self, value: int) -> None:
        """1 starts the queue, 0 stops it."""
        queue = self._selected()
        if queue is None or queue.ready == bool(value & 1):
            return
        if queue.ready:
            self.device.stop_queue(queue)
        else:
            self.device.start_queue(queue)

    # -- legacy queues (VIRTIO 1.2 4.2.4) -----------------------------------------------------------

    def write_page_size(self, value: int) -> None:
        """The unit of QueuePFN in bytes; drivers go down to 512."""
        if value == 0 or value & (value - 1):
            self.device.report(GuestError(MmioMistake.PAGE_SIZE, value))
        else:
            self._page_size = value

    def write_queue_align(self, value: int) -> None:
        """Alignment of the used ring in bytes."""
        if value == 0 or value & (value - 1):
            self.device.report(GuestError(MmioMistake.ALIGN, value))
        elif self._configurable() is not None:
            self._align[self._queue_select] = value

    def write_queue_pfn(self, value: int) -> None:
        """Start the queue on this page, or stop it with 0."""
        if self._selected() is not None:
            self.place_queue(value, self._page_size, self._align[self._queue_select])

    # -- interrupts -------------------------------------------------------------------------------

    def used_buffer(self, queue: SplitQueue) -> None:
        """Transport.used_buffer."""
        self._interrupt_status |= USED_BUFFER
        self._irq.set(True)

    def config_change(self) -> None:
        """Transport.config_change."""
        # Drivers that only look at bit 0 exist, so both reasons are given.
        self._interrupt_status |= USED_BUFFER | CONFIG_CHANGE
        self._irq.set(True)

    def read_interrupt_status(self) -> int:
        """Why the line is raised: bit 0 used buffers, bit 1 configuration change."""
        return self._interrupt_status

    def acknowledge(self, value: int) -> None:
        """The driver has dealt with these reasons."""
        self._interrupt_status &= ~value
        self._irq.set(self._interrupt_status != 0)


# -- the tables -------------------------------------------------------------------------------------


def _reg(
    offset: int, name: str, access: Access, meaning: str, section: str = "VIRTIO 1.2 4.2.2", **more: Any
) -> Register[MmioRegisters]:
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=section, **more)


def _address(offset: int, name: str, attribute: str, meaning: str) -> list[Register[MmioRegisters]]:
    """The two halves of a 64-bit address of the selected queue."""
    return [
        _reg(
            offset + shift // 8,
            name + half,
            W,
            f"{meaning}, bits {shift} to {shift + 31}",
            write=lambda mmio, value, shift=shift: mmio.write_address(attribute, shift, value),
        )
        for shift, half in ((0, "Low"), (32, "High"))
    ]


_COMMON = [
    _reg(0x000, "MagicValue", R, 'little-endian "virt"', reset=MAGIC),
    _reg(0x008, "DeviceID", R, "kind of the device, 2 is block", read=MmioRegisters.read_device_id),
    _reg(0x00C, "VendorID", R, "who made the device", reset=VENDOR),
    _reg(0x010, "DeviceFeatures", R, "32 bits of what is offered", read=MmioRegisters.read_device_features),
    _reg(0x014, "DeviceFeaturesSel", W, "which 32 bits of them", write=MmioRegisters.select_device_features),
    _reg(0x020, "DriverFeatures", W, "32 bits of what is accepted", write=MmioRegisters.write_driver_features),
    _reg(0x024, "DriverFeaturesSel", W, "which 32 bits of them", write=MmioRegisters.select_driver_features),
    _reg(0x030, "QueueSel", W, "the queue that Queue registers are about", write=MmioRegisters.select_queue),
    _reg(0x034, "QueueNumMax", R, "largest size, 0 for no queue", read=MmioRegisters.read_queue_size_max),
    _reg(0x038, "QueueNum", W, "size in descriptors", write=MmioRegisters.write_queue_size),
    _reg(0x050, "QueueNotify", W, "index of a queue with new chains", write=MmioRegisters.notify),
    _reg(0x060, "InterruptStatus", R, "1 used buffers, 2 configuration", read=MmioRegisters.read_interrupt_status),
    _reg(0x064, "InterruptACK", W, "reasons that are dealt with", write=MmioRegisters.acknowledge),
    _reg(
        0x070, "Status", RW, "device status, 0 resets", read=MmioRegisters.read_status, write=MmioRegisters.write_status
    ),
]

MODERN: RegisterMap[MmioRegisters] = RegisterMap(
    "virtio-mmio version 2",
    *_COMMON,
    _reg(0x004, "Version", R, "2", reset=2),
    _reg(
        0x044,
        "QueueReady",
        RW,
        "1 while the queue is served",
        read=MmioRegisters.read_queue_ready,
        write=MmioRegisters.write_queue_ready,
    ),
    *_address(0x080, "QueueDesc", "desc_address", "address of the descriptor table"),
    *_address(0x090, "QueueDriver", "avail_address", "address of the available ring"),
    *_address(0x0A0, "QueueDevice", "used_address", "address of the used ring"),
    _reg(0x0C0, "QueueReset", RW, "1 resets the queue", write=MmioRegisters.write_queue_reset),
    _reg(0x0AC, "SHMSel", W, "shared memory region; there are none", write=lambda mmio, value: None),
    _reg(0x0B0, "SHMLenLow", R, "its length, all ones for none", reset=0xFFFFFFFF),
    _reg(0x0B4, "SHMLenHigh", R, "its length, all ones for none", reset=0xFFFFFFFF),
    _reg(0x0B8, "SHMBaseLow", R, "its address, all ones for none", reset=0xFFFFFFFF),
    _reg(0x0BC, "SHMBaseHigh", R, "its address, all ones for none", reset=0xFFFFFFFF),
    _reg(0x0FC, "ConfigGeneration", R, "changes with the configuration", read=MmioRegisters.read_config_generation),
)

_LEGACY_SECTION = "VIRTIO 1.2 4.2.4"

LEGACY: RegisterMap[MmioRegisters] = RegisterMap(
    "virtio-mmio version 1 (legacy)",
    *_COMMON,
    _reg(0x004, "Version", R, "1", _LEGACY_SECTION, reset=1),
    _reg(0x028, "GuestPageSize", W, "unit of QueuePFN in bytes", _LEGACY_SECTION, write=MmioRegisters.write_page_size),
    _reg(0x03C, "QueueAlign", W, "alignment of the used ring", _LEGACY_SECTION, write=MmioRegisters.write_queue_align),
    _reg(
        0x040,
        "QueuePFN",
        RW,
        "page number of the queue, 0 stops it",
        _LEGACY_SECTION,
        read=MmioRegisters.read_queue_pfn,
        write=MmioRegisters.write_queue_pfn,
    ),
)
