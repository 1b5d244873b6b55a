"""What every virtio device has: features, status, queues, and a way to break (VIRTIO 1.2 2).

A device never sees a register and a transport never sees a request. Between them:

    transport -> device    set_status, set_driver_features, start_queue, notify, set_dma, reset, read_config, ...
    device -> transport    used_buffer(queue), config_change
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.devices.controller import Trace
from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.devices.virtio import features
from e2kdisk.devices.virtio.queue import Chain, SplitQueue

# Device status (VIRTIO 1.2 2.1)
ACKNOWLEDGE = 1
DRIVER = 2
DRIVER_OK = 4
FEATURES_OK = 8
DEVICE_NEEDS_RESET = 64
FAILED = 128

# Interrupt reasons (VIRTIO 1.2 4.2.2, InterruptStatus)
USED_BUFFER = 1
CONFIG_CHANGE = 2

PAUSE_NS = 1_000_000
"""Between two bounded pieces of work for a driver that never stops; others run meanwhile."""

INDIRECT_DESC = features.bit("INDIRECT_DESC")
EVENT_IDX = features.bit("EVENT_IDX")
VERSION_1 = features.bit("VERSION_1")


class DeviceMistake(Mistake):
    """What a driver can do wrong before any ring is used."""

    FEATURES = "the driver accepts features that were not offered", "VIRTIO 1.2 2.2.1"
    NO_VERSION_1 = "the driver does not accept VERSION_1", "VIRTIO 1.2 6.1"
    NO_FEATURES_OK = "DRIVER_OK without FEATURES_OK", "VIRTIO 1.2 3.1.1"
    FEATURES_LATE = "features are written after FEATURES_OK", "VIRTIO 1.2 3.1.1"
    NO_QUEUE = "no such queue", "VIRTIO 1.2 4.2.2"


class Transport(Protocol):
    """How a device tells its driver."""

    def used_buffer(self, queue: SplitQueue) -> None:
        """The driver wants an interrupt for what is in the used ring of a queue (VIRTIO 1.2 2.9)."""
        ...

    def config_change(self) -> None:
        """The configuration space or DEVICE_NEEDS_RESET has changed."""
        ...


class _Nobody:
    """The transport of a device that is not plugged in."""

    def used_buffer(self, queue: SplitQueue) -> None:
        """Transport.used_buffer."""

    def config_change(self) -> None:
        """Transport.config_change."""


class VirtioDevice:
    """Base of the devices; a subclass handles chains and has a configuration space."""

    device_id: int
    """VIRTIO 1.2 5."""
    name: str
    memory: GuestMemory

    def __init__(self, scheduler: Scheduler, queue_sizes: list[int]) -> None:
        self.scheduler = scheduler
        self.trace: Trace | None = None
        self.queues = [SplitQueue(size, index) for index, size in enumerate(queue_sizes)]
        self.transport: Transport = _Nobody()
        self.legacy = False
        self.offered = 0
        self.config_generation = 0
        self.features = 0
        """What the driver has accepted."""
        self.status = 0
        self._serving = False
        self._dma = True
        self._continuations: dict[SplitQueue, Callable[[], None]] = {}
        """Queues with work left for the next poll(), and how to call that off."""

    # -- for the transport ------------------------------------------------------------------------

    def plug(self, memory: GuestMemory) -> None:
        """Learn the guest's memory."""
        self.memory = memory

    def choose_era(self, *, legacy: bool) -> None:
        """The transport says which drivers it is for; the device offers the features of that era."""
        self.legacy = legacy
        self.offered = self.offered_to(legacy=legacy)

    def offered_to(self, *, legacy: bool) -> int:
        """The features for drivers of an era."""
        return self.offer() & features.ERA_MASK[legacy]

    def set_driver_features(self, accepted: int) -> None:
        """The driver has written (a part of) the features that it accepts (VIRTIO 1.2 2.2)."""
        if self.status & FEATURES_OK:
            self.report(GuestError(DeviceMistake.FEATURES_LATE, accepted))
            return
        self.features = accepted
        if self.legacy:
            # Legacy drivers know no FEATURES_OK: what they write counts at once (VIRTIO 1.2 3.1.2).
            self.features &= self.offered
            self.features_settled()

    def set_status(self, value: int) -> None:
        """The driver has written the status, other than 0 (VIRTIO 1.2 2.1)."""
        if value & FEATURES_OK and not self.status & FEATURES_OK:
            mistake = self._refuse_features()
            if mistake is not None:
                # The driver reads the status back and finds FEATURES_OK missing (VIRTIO 1.2 3.1.1 step 6).
                value &= ~FEATURES_OK
                self.report(mistake)
            else:
                self.features_settled()
        if value & DRIVER_OK and not (value & FEATURES_OK or self.legacy):
            value &= ~DRIVER_OK
            self.report(GuestError(DeviceMistake.NO_FEATURES_OK))
        self.status = value & ~DEVICE_NEEDS_RESET | self.status & DEVICE_NEEDS_RESET

    def _refuse_features(self) -> GuestError | None:
        unknown = self.features & ~self.offered
        if unknown:
            return GuestError(DeviceMistake.FEATURES, unknown)
        if not self.legacy and not self.features & VERSION_1:
            return GuestError(DeviceMistake.NO_VERSION_1, self.features)
        return None

    def start_queue(self, queue: SplitQueue) -> None:
        """Begin to serve a queue whose size and addresses are set."""
        mistake = queue.start(
            self.memory, event_index=bool(self.features & EVENT_IDX), indirect=bool(self.features & INDIRECT_DESC)
        )
        if mistake is not None:
            self.break_device(mistake)

    def stop_queue(self, queue: SplitQueue) -> None:
        """Stop serving a queue; what is in flight ends first, its data lands now, and nobody is told."""
        cancel = self._continuations.pop(queue, None)
        if cancel is not None:
            cancel()
        queue.stopping = True
        if queue.in_flight:
            self.scheduler.drain(queue)
        queue.stop()

    def notify(self, index: int) -> None:
        """The driver has made chains available in a queue (VIRTIO 1.2 2.9)."""
        if index >= len(self.queues):
            self.report(GuestError(DeviceMistake.NO_QUEUE, index))
            return
        # Legacy drivers may use the device before DRIVER_OK (VIRTIO 1.2 3.1.2); later ones must not (2.1.2).
        if self.queues[index].ready and (self.legacy or self.status & DRIVER_OK):
            self._serve(self.queues[index])

    def set_dma(self, allowed: bool) -> None:
        """Whether the device may touch guest memory now (PCI's bus master enable); it may at first.

        Taken away: what is in flight ends before this returns, and nothing more is taken from the rings. Given:
        every queue is looked at, since its driver may have notified meanwhile.
        """
        if allowed == self._dma:
            return
        self._dma = allowed
        for queue in self.queues:
            if allowed and queue.ready:
                self.notify(queue.index)
            elif not allowed and queue.in_flight:
                self.scheduler.drain(queue)

    def reset(self) -> None:
        """Back to the state before any driver; no DMA and no completion happens after this returns (2.4)."""
        for queue in self.queues:
            self.stop_queue(queue)
            queue.reset()
        if self.trace is not None and self.status:
            self.trace.event(self.name, "reset")
        self.features = 0
        self.status = 0
        self.features_settled()

    # -- serving ----------------------------------------------------------------------------------

    def _serve(self, queue: SplitQueue) -> None:
        """Take what is available; requests that end on the spot become one batch: one index, one interrupt."""
        if self._serving or not self._dma or self.status & DEVICE_NEEDS_RESET:
            return
        self._serving = True
        mistake = None
        try:
            for _ in range(2 * queue.size):
                chain = queue.pop()
                if chain is None:
                    break
                mistake = self.handle(queue, chain) if isinstance(chain, Chain) else chain
                if mistake is not None:
                    break
            else:
                self._go_on_later(queue)
        finally:
            self._serving = False
            # Before the mistake is shown: what came before it in the ring is done and the driver may know.
            self._publish(queue)
        if mistake is not None:
            self.break_device(mistake)

    def _go_on_later(self, queue: SplitQueue) -> None:
        # A driver on another CPU may add chains as fast as they end, and disk data may land on the ring itself:
        # one register access does a bounded amount of work, and a poll() a little later goes on.
        def go_on() -> None:
            del self._continuations[queue]
            self._serve(queue)

        if queue not in self._continuations:
            when_ns = self.scheduler.clock.now_ns() + PAUSE_NS
            self._continuations[queue] = self.scheduler.call_at(when_ns, go_on)

    def finish(self, queue: SplitQueue, chain: Chain, written: int) -> None:
        """A chain is done and its data is in place: give it back; `written` as for SplitQueue.push."""
        queue.push(chain.head, written)
        if not self._serving:
            self._publish(queue)

    def silenced(self, queue: SplitQueue) -> bool:
        """Whether a request that ends now must leave guest memory alone: the queue stops, or the device is broken."""
        return queue.stopping or bool(self.status & DEVICE_NEEDS_RESET)

    def _publish(self, queue: SplitQueue) -> None:
        # Data and status first, then the used index, then the interrupt: a driver that sees a step may rely on
        # all the earlier ones.
        self.memory.publish()
        wanted = queue.publish()
        if wanted is True:
            self.transport.used_buffer(queue)
        elif wanted:
            self.break_device(wanted)

    # -- mistakes ---------------------------------------------------------------------------------

    def report(self, mistake: GuestError) -> None:
        """Put a mistake that harms nobody into the trace."""
        if self.trace is not None:
            self.trace.event(self.name, "guest-error", what=str(mistake))

    def break_device(self, mistake: GuestError) -> None:
        """Serve nothing until the driver resets the device (VIRTIO 1.2 2.1.2)."""
        self.report(mistake)
        if not self.status & DEVICE_NEEDS_RESET:
            self.status |= DEVICE_NEEDS_RESET
            if self.status & DRIVER_OK:
                self.config_changed()

    def config_changed(self) -> None:
        """Tell the driver that the configuration space, or DEVICE_NEEDS_RESET, has changed."""
        self.config_generation = (self.config_generation + 1) & 0xFFFFFFFF
        self.transport.config_change()

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Versioned plain data; nothing may be in flight."""
        if any(queue.in_flight for queue in self.queues):
            raise RuntimeError(f"{self.name}: save() with requests in flight; drain the scheduler first")
        return {
            "version": 1,
            "device": self.name,
            "features": self.features,
            "status": self.status,
            "config_generation": self.config_generation,
            "queues": [queue.save() | {"goes_on": queue in self._continuations} for queue in self.queues],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave, into a device that is plugged into the same memory."""
        if (state["version"], state["device"]) != (1, self.name):
            raise ValueError(f"{self.name}: cannot load state {state['device']!r} version {state['version']}")
        for queue in self.queues:
            self.stop_queue(queue)
        self.features = state["features"]
        self.status = state["status"]
        self.config_generation = state["config_generation"]
        for queue, saved in zip(self.queues, state["queues"], strict=True):
            mistake = queue.load(saved, self.memory)
            if mistake is not None:
                self.break_device(mistake)
            elif saved["goes_on"]:
                self._go_on_later(queue)

    # -- what a device is -------------------------------------------------------------------------

    @property
    def disks(self) -> dict[int, Disk]:
        """Controller.disks; of a device that is no disk, none."""
        return {}

    def offer(self) -> int:
        """The features that this device has, of every era."""
        raise NotImplementedError

    def features_settled(self) -> None:
        """The accepted features have changed."""

    def handle(self, queue: SplitQueue, chain: Chain) -> GuestError | None:
        """Start the request of a chain; it ends with finish(), now or later."""
        raise NotImplementedError

    @property
    def config_size(self) -> int:
        """Bytes of the configuration space."""
        return 0

    def config_name(self, offset: int) -> str:
        """The name of a configuration field, for traces."""
        return ""

    def read_config(self, offset: int, size: int) -> int:
        """Read the configuration space (VIRTIO 1.2 2.5); beyond its end are zeros."""
        return 0

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write the configuration space; what is not writable ignores it."""
