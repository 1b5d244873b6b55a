"""What each virtio-mmio register does, and the two tables of them (VIRTIO 1.2 4.2.2, 4.2.4)."""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.registers import RW, Access, R, Register, RegisterMap, W
from e2kdisk.devices.virtio.device import VirtioDevice
from e2kdisk.devices.virtio.queue import SplitQueue

MAGIC = 0x74726976
"""Little-endian "virt"."""
VENDOR = 0x4B44_3245
"""Little-endian "E2DK"; any value will do (VIRTIO 1.2 4.2.2, VendorID)."""
LEGACY_PAGE_SIZE = 4096
"""Until the driver writes GuestPageSize."""


class MmioMistake(Mistake):
    """What a driver can do wrong with the registers."""

    WIDTH = "register access is not 32 bits wide", "VIRTIO 1.2 4.2.2.2"
    NO_REGISTER = "no such register", "VIRTIO 1.2 4.2.2"
    READ_ONLY = "write to a read-only register", "VIRTIO 1.2 4.2.2"
    WRITE_ONLY = "read of a write-only register", "VIRTIO 1.2 4.2.2"
    PAGE_SIZE = "GuestPageSize is not a power of 2", "VIRTIO 1.2 4.2.4"
    ALIGN = "QueueAlign is not a power of 2", "VIRTIO 1.2 4.2.4"
    QUEUE_RUNS = "a queue is configured while it is in use", "VIRTIO 1.2 4.2.3.2"


class MmioRegisters:
    """The registers of one device: their state and what reading and writing them does."""

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device
        self._irq = IrqLine()
        self._page_size = LEGACY_PAGE_SIZE
        self._clear()

    def _clear(self) -> None:
        """The state after Status = 0; GuestPageSize survives that, legacy drivers write it before."""
        self._interrupt_status = 0
        self._irq.set(False)
        self._device_features_select = 0
        self._driver_features_select = 0
        self._driver_features = 0
        self._queue_select = 0
        self._align = [LEGACY_PAGE_SIZE] * len(self.device.queues)
        self._pfn = [0] * len(self.device.queues)

    # -- device -----------------------------------------------------------------------------------

    def read_device_id(self) -> int:
        """Which kind of device this is."""
        return self.device.device_id

    def read_device_features(self) -> int:
        """32 bits of the offered features."""
        if self._device_features_select > 1:
            return 0
        return self.device.offered >> 32 * self._device_features_select & 0xFFFFFFFF

    def select_device_features(self, value: int) -> None:
        """Which 32 bits DeviceFeatures shows."""
        self._device_features_select = value

    def write_driver_features(self, value: int) -> None:
        """32 bits of the accepted features."""
        if self._driver_features_select > 1:
            return
        shift = 32 * self._driver_features_select
        self._driver_features = self._driver_features & ~(0xFFFFFFFF << shift) | value << shift
        self.device.set_driver_features(self._driver_features)

    def select_driver_features(self, value: int) -> None:
        """Which 32 bits DriverFeatures sets."""
        self._driver_features_select = value

    def read_status(self) -> int:
        """The device status."""
        return self.device.status

    def write_status(self, value: int) -> None:
        """0 resets the device, anything else goes on with its initialization."""
        if value & 0xFF == 0:
            # GuestPageSize stays: legacy drivers write it first and reset the device afterwards.
            self.device.reset()
            self._clear()
        else:
            self.device.set_status(value & 0xFF)

    def notify(self, value: int) -> None:
        """There are new chains in a queue."""
        self.device.notify(value)

    def read_config_generation(self) -> int:
        """Changes whenever the configuration space has changed."""
        return self.device.config_generation

    # -- queues -----------------------------------------------------------------------------------

    def _selected(self) -> SplitQueue | None:
        queues = self.device.queues
        return queues[self._queue_select] if self._queue_select < len(queues) else None

    def _configurable(self) -> SplitQueue | None:
        """The selected queue, if the driver may configure it now."""
        queue = self._selected()
        if queue is not None and queue.ready:
            self.device.report(GuestError(MmioMistake.QUEUE_RUNS, self._queue_select))
            return None
        return queue

    def select_queue(self, value: int) -> None:
        """Which queue the queue registers are about."""
        self._queue_select = value

    def read_queue_size_max(self) -> int:
        """0 says that there is no such queue."""
        queue = self._selected()
        return 0 if queue is None else queue.size_max

    def write_queue_size(self, value: int) -> None:
        """Checked when the queue is started."""
        queue = self._configurable()
        if queue is not None:
            queue.size = value

    def read_queue_ready(self) -> int:
        """1 while the queue is served."""
        queue = self._selected()
        return int(queue is not None and queue.ready)

    def write_queue_ready(self, value: int) -> None:
        """1 starts the queue, 0 stops it."""
        queue = self._selected()
        if queue is None or queue.ready == bool(value & 1):
            return
        if queue.ready:
            self.device.stop_queue(queue)
        else:
            self.device.start_queue(queue)

    def write_address(self, attribute: str, shift: int, value: int) -> None:
        """One half of the address of a part of the queue."""
        queue = self._configurable()
        if queue is not None:
            kept = getattr(queue, attribute) & ~(0xFFFFFFFF << shift)
            setattr(queue, attribute, kept | value << shift)

    # -- legacy queues (VIRTIO 1.2 4.2.4, 2.7.2) ------------------------------------------------------

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

    def read_queue_pfn(self) -> int:
        """0 while the queue is not in use."""
        queue = self._selected()
        return 0 if queue is None else self._pfn[self._queue_select]

    def write_queue_pfn(self, value: int) -> None:
        """Start the queue on this page, or stop it with 0."""
        queue = self._selected()
        if queue is None:
            return
        if queue.ready:
            self.device.stop_queue(queue)
        self._pfn[self._queue_select] = value
        if value:
            # The three parts follow each other, the used ring at the next QueueAlign boundary (2.7.2):
            # | descriptors 16 n | available 6 + 2 n | padding | used 6 + 8 n |
            align = self._align[self._queue_select]
            queue.desc_address = value * self._page_size
            queue.avail_address = queue.desc_address + 16 * queue.size
            queue.used_address = (queue.avail_address + 6 + 2 * queue.size + align - 1) & -align
            self.device.start_queue(queue)

    # -- interrupts -------------------------------------------------------------------------------

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
