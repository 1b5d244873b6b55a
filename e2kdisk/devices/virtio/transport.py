"""What the registers of every transport do, wherever they are: features, status, queues (VIRTIO 1.2 2.1, 2.2, 4).

The tables of a transport say at which offset each of these functions answers.
"""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.registers import Register, RegisterMap, W
from e2kdisk.devices.virtio import features
from e2kdisk.devices.virtio.device import VirtioDevice
from e2kdisk.devices.virtio.queue import SplitQueue

LEGACY_PAGE_SIZE = 4096
"""Bytes; the unit of a queue's page number and the alignment of its used ring (VIRTIO 1.2 2.7.2, 4.1.5.1.3)."""

RING_RESET = features.bit("RING_RESET")


class RegisterMistake(Mistake):
    """What a driver can do wrong with the registers of any transport."""

    WIDTH = "register access of a wrong width", "VIRTIO 1.2 4.2.2.2, 4.1.3.1"
    NO_REGISTER = "no such register", "VIRTIO 1.2 4.2.2, 4.1.4"
    READ_ONLY = "write to a read-only register", "VIRTIO 1.2 4.2.2, 4.1.4"
    WRITE_ONLY = "read of a write-only register", "VIRTIO 1.2 4.2.2"
    QUEUE_RUNS = "a queue is configured while it is in use", "VIRTIO 1.2 4.2.3.2, 4.1.5.1.3"
    NO_QUEUE_RESET = "a queue is reset without the feature", "VIRTIO 1.2 2.6.1"


class TransportRegisters:
    """The registers that a transport has in front of a device: their state and what they do."""

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device
        device.transport = self
        self._clear()

    def _clear(self) -> None:
        """The state after Status = 0."""
        self._interrupt_status = 0
        self._device_features_select = 0
        self._driver_features_select = 0
        self._driver_features = 0
        self._queue_select = 0
        self._pfn = [0] * len(self.device.queues)

    # -- Transport --------------------------------------------------------------------------------

    def used_buffer(self, queue: SplitQueue) -> None:
        """Transport.used_buffer."""
        raise NotImplementedError

    def config_change(self) -> None:
        """Transport.config_change."""
        raise NotImplementedError

    # -- device -----------------------------------------------------------------------------------

    def read_device_features(self) -> int:
        """32 bits of the offered features."""
        if self._device_features_select > 1:
            return 0
        return self.device.offered >> 32 * self._device_features_select & 0xFFFFFFFF

    def read_device_features_select(self) -> int:
        """Which 32 bits read_device_features shows."""
        return self._device_features_select

    def select_device_features(self, value: int) -> None:
        """Choose the 32 bits that read_device_features shows."""
        self._device_features_select = value

    def read_driver_features(self) -> int:
        """32 bits of the accepted features."""
        if self._driver_features_select > 1:
            return 0
        return self._driver_features >> 32 * self._driver_features_select & 0xFFFFFFFF

    def write_driver_features(self, value: int) -> None:
        """32 bits of the accepted features."""
        if self._driver_features_select > 1:
            return
        shift = 32 * self._driver_features_select
        self._driver_features = self._driver_features & ~(0xFFFFFFFF << shift) | value << shift
        self.device.set_driver_features(self._driver_features)

    def read_driver_features_select(self) -> int:
        """Which 32 bits write_driver_features sets."""
        return self._driver_features_select

    def select_driver_features(self, value: int) -> None:
        """Choose the 32 bits that write_driver_features sets."""
        self._driver_features_select = value

    def read_status(self) -> int:
        """The device status."""
        return self.device.status

    def write_status(self, value: int) -> None:
        """0 resets the device, anything else goes on with its initialization."""
        if value & 0xFF == 0:
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
            self.device.report(GuestError(RegisterMistake.QUEUE_RUNS, self._queue_select))
            return None
        return queue

    def read_queue_select(self) -> int:
        """Which queue the queue registers are about."""
        return self._queue_select

    def select_queue(self, value: int) -> None:
        """Choose the queue that the queue registers are about."""
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

    def read_address(self, attribute: str, shift: int) -> int:
        """One half of the address of a part of the queue."""
        queue = self._selected()
        return 0 if queue is None else getattr(queue, attribute) >> shift & 0xFFFFFFFF

    def write_address(self, attribute: str, shift: int, value: int) -> None:
        """One half of the address of a part of the queue."""
        queue = self._configurable()
        if queue is not None:
            kept = getattr(queue, attribute) & ~(0xFFFFFFFF << shift)
            setattr(queue, attribute, kept | value << shift)

    def write_queue_reset(self, value: int) -> None:
        """1 takes the queue back to its state after a reset of the device; done when this returns (2.6.1)."""
        queue = self._selected()
        if queue is None or value != 1:
            return
        if not self.device.features & RING_RESET:
            self.device.report(GuestError(RegisterMistake.NO_QUEUE_RESET, self._queue_select))
            return
        self.device.stop_queue(queue)
        queue.reset()
        self.queue_was_reset(queue)

    def queue_was_reset(self, queue: SplitQueue) -> None:
        """For a transport that has state of its own for each queue."""

    # -- legacy queues (VIRTIO 1.2 2.7.2) -----------------------------------------------------------

    def read_queue_pfn(self) -> int:
        """0 while the queue is not in use."""
        return self._pfn[self._queue_select] if self._selected() is not None else 0

    def place_queue(self, pfn: int, page_size: int, align: int) -> None:
        """Start the selected queue on this page, or stop it with 0."""
        queue = self._selected()
        if queue is None:
            return
        if queue.ready:
            self.device.stop_queue(queue)
        self._pfn[self._queue_select] = pfn
        if pfn:
            # The three parts follow each other, the used ring at the next boundary (2.7.2):
            # | descriptors 16 n | available 6 + 2 n | padding | used 6 + 8 n |
            queue.desc_address = pfn * page_size
            queue.avail_address = queue.desc_address + 16 * queue.size
            queue.used_address = (queue.avail_address + 6 + 2 * queue.size + align - 1) & -align
            self.device.start_queue(queue)

    # -- access -----------------------------------------------------------------------------------

    def report_access(self, table: RegisterMap[Any], offset: int, size: int, wrong: Mistake) -> None:
        """Put an access that is no register's into the trace; `wrong` is why, if offset and width are right."""
        register: Register[Any] | None = table.at.get(offset)
        if register is None:
            wrong = RegisterMistake.NO_REGISTER
        elif register.width != size:
            wrong = RegisterMistake.WIDTH
        self.device.report(GuestError(wrong, offset))

    def load_register(self, table: RegisterMap[Any], offset: int, size: int) -> int:
        """A load at the offset of a register, of its width; anything else reads 0 and is a mistake."""
        register: Register[Any] | None = table.at.get(offset)
        if register is not None and size == register.width and register.access is not W:
            return register.reset if register.read is None else register.read(self)
        self.report_access(table, offset, size, RegisterMistake.WRITE_ONLY)
        return 0

    def store_register(self, table: RegisterMap[Any], offset: int, size: int, value: int) -> None:
        """A store at the offset of a register, of its width; anything else is lost and a mistake."""
        register: Register[Any] | None = table.at.get(offset)
        if register is not None and size == register.width and register.write is not None:
            register.write(self, value & (1 << 8 * size) - 1)
        else:
            self.report_access(table, offset, size, RegisterMistake.READ_ONLY)

    # -- state ------------------------------------------------------------------------------------

    def save_registers(self) -> dict[str, Any]:
        """What the registers hold that the device does not."""
        return {
            "interrupt_status": self._interrupt_status,
            "device_features_select": self._device_features_select,
            "driver_features_select": self._driver_features_select,
            "driver_features": self._driver_features,
            "queue_select": self._queue_select,
            "pfn": list(self._pfn),
        }

    def load_registers(self, state: dict[str, Any]) -> None:
        """Restore what save_registers() gave."""
        self._interrupt_status = state["interrupt_status"]
        self._device_features_select = state["device_features_select"]
        self._driver_features_select = state["driver_features_select"]
        self._driver_features = state["driver_features"]
        self._queue_select = state["queue_select"]
        self._pfn = list(state["pfn"])
