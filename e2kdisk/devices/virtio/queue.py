"""The split virtqueue: chains of descriptors in, used entries out, everything checked (VIRTIO 1.2 2.7).

        descriptor table             available ring                 used ring
        (driver writes)              (driver writes)                (device writes)
     0  address length flags next    flags idx [head, head, ...]    flags idx [head+length, ...]
     1  ...                                        used_event                       avail_event

The queue knows descriptors and never what a request means; it says whether the driver wants an interrupt and
never raises one. Ring indices are 16-bit and free-running: they wrap at 65536 whatever the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.memory import Area, GuestMemory, reader, writer
from e2kdisk.devices.scatter import Segment

DESCRIPTOR = Struct("<QIHH")
"""address, length, flags, next (VIRTIO 1.2 2.7.5)."""
USED_ELEMENT = Struct("<II")
"""head, bytes written by the device (VIRTIO 1.2 2.7.8)."""
U16 = Struct("<H")

NEXT = 1
"""The chain goes on at `next` (VIRTIO 1.2 2.7.5)."""
WRITE = 2
"""The device writes this buffer; otherwise it reads it."""
INDIRECT = 4
"""The buffer is a table of descriptors."""

NO_INTERRUPT = 1
"""Flag of the available ring (VIRTIO 1.2 2.7.7)."""
NO_NOTIFY = 1
"""Flag of the used ring (VIRTIO 1.2 2.7.10)."""

QUEUE_SIZE_MAX = 1024
CHAIN_MAX = 1024
"""Most descriptors in one chain. The specification allows no more than the queue size (2.7.5.3.1); drivers with a
small queue and large indirect tables exist and do no harm, a table of 2^28 entries would."""
CHAIN_BYTES_MAX = 1 << 32
"""Most bytes in one chain (VIRTIO 1.2 2.7.5)."""


class RingMistake(Mistake):
    """What a driver can do wrong with a ring."""

    QUEUE_SIZE = "queue size is not a power of 2 up to QueueNumMax", "VIRTIO 1.2 2.7"
    RING_ALIGNMENT = "a part of the queue is not aligned", "VIRTIO 1.2 2.7"
    RING_ADDRESS = "a part of the queue is not in RAM", "VIRTIO 1.2 2.7"
    AVAIL_INDEX = "available index is ahead by more than the queue size", "VIRTIO 1.2 2.7.6"
    USED_INDEX = "the driver changed the used index", "VIRTIO 1.2 2.7.8"
    HEAD = "head is not in the descriptor table", "VIRTIO 1.2 2.7.6"
    HEAD_IN_FLIGHT = "head is made available again before it is used", "VIRTIO 1.2 2.7.13"
    NEXT = "next is not in the descriptor table", "VIRTIO 1.2 2.7.5"
    LOOP = "chain has more descriptors than its table, or than can be", "VIRTIO 1.2 2.7.5.3.1"
    INDIRECT = "indirect descriptor without the feature", "VIRTIO 1.2 2.7.5.3.1"
    INDIRECT_NESTED = "indirect descriptor in an indirect table", "VIRTIO 1.2 2.7.5.3.1"
    INDIRECT_NEXT = "indirect descriptor with NEXT", "VIRTIO 1.2 2.7.5.3.1"
    INDIRECT_LENGTH = "indirect table length is not a multiple of 16 above 0", "VIRTIO 1.2 2.7.5.3.1"
    INDIRECT_ADDRESS = "indirect table is not in RAM", "VIRTIO 1.2 2.7.5.3"
    ORDER = "readable descriptor after a writable one", "VIRTIO 1.2 2.7.4.2"
    EMPTY_BUFFER = "descriptor of length 0", "VIRTIO 1.2 2.7.5"
    CHAIN_BYTES = "chain is longer than 4 GiB", "VIRTIO 1.2 2.7.5"
    BUFFER_ADDRESS = "buffer is not in RAM", "VIRTIO 1.2 2.7.5"


@dataclass(slots=True)
class Chain:
    """One buffer that the driver made available: its parts in order, bounds not yet compared with RAM."""

    head: int
    readable: list[Segment]
    writable: list[Segment]
    readable_length: int
    """Bytes."""
    writable_length: int
    """Bytes."""


class SplitQueue:
    """One split virtqueue, between QueueReady = 1 and reset."""

    def __init__(self, size_max: int, index: int = 0) -> None:
        self.size_max = size_max
        self.index = index
        """Its number in the device."""
        self.reset()

    def reset(self) -> None:
        """The state before any driver; whoever calls has drained the requests in flight."""
        self.size = self.size_max
        self.desc_address = 0
        self.avail_address = 0
        self.used_address = 0
        self.stop()

    def stop(self) -> None:
        """Serve no longer and begin at index 0 when started again; size and addresses stay."""
        self.ready = False
        self.stopping = False
        """While its requests are drained: they end without a word to the driver."""
        self.in_flight: set[int] = set()
        """Heads that were taken and not given back: each at most once, so at most `size` requests."""
        self.event_index = False
        self.indirect = False
        self._next_avail = 0  # the next available entry to take
        self._seen_avail = 0  # the driver's index when it was last looked at
        self._used = 0  # used entries that the driver can see
        self._pending = 0  # used entries stored behind them, not yet published

    # -- set-up -----------------------------------------------------------------------------------

    def start(self, memory: GuestMemory, *, event_index: bool, indirect: bool) -> GuestError | None:
        """Begin to serve the ring at the configured addresses; the driver's mistake if it cannot be served."""
        size = self.size
        if size & (size - 1) or not 0 < size <= self.size_max:
            return GuestError(RingMistake.QUEUE_SIZE, size)
        for address, alignment in ((self.desc_address, 16), (self.avail_address, 2), (self.used_address, 4)):
            if address % alignment:
                return GuestError(RingMistake.RING_ALIGNMENT, address)
        desc = memory.area(self.desc_address, 16 * size)
        if desc is None:
            return GuestError(RingMistake.RING_ADDRESS, self.desc_address)
        avail = memory.area(self.avail_address, 6 + 2 * size)
        if avail is None:
            return GuestError(RingMistake.RING_ADDRESS, self.avail_address)
        used = memory.area(self.used_address, 6 + 8 * size)
        if used is None:
            return GuestError(RingMistake.RING_ADDRESS, self.used_address)
        self._memory = memory
        self._read_descriptor = reader(desc, DESCRIPTOR)
        self._read_avail = reader(avail, U16)
        self._read_used = reader(used, U16)
        self._write_used = writer(used, U16)
        self._write_element = writer(used, USED_ELEMENT)
        self._mask = size - 1
        self.event_index = event_index
        self.indirect = indirect
        self.ready = True
        return None

    # -- driver to device -------------------------------------------------------------------------

    def pop(self) -> Chain | GuestError | None:
        """Take the next available chain; None when there is none now and the driver will notify about the next."""
        position = self._next_avail
        if position == self._seen_avail and not self._look():
            return None
        if (self._seen_avail - position) & 0xFFFF > self.size:
            return GuestError(RingMistake.AVAIL_INDEX, self._seen_avail)
        head: int = self._read_avail(4 + 2 * (position & self._mask))[0]
        if head >= self.size:
            return GuestError(RingMistake.HEAD, head)
        if head in self.in_flight:
            return GuestError(RingMistake.HEAD_IN_FLIGHT, head)
        chain = self._walk(head)
        if chain.__class__ is Chain:
            self._next_avail = (position + 1) & 0xFFFF
            self.in_flight.add(head)
        return chain

    def _look(self) -> bool:
        """Whether the driver has made more available; when not, have it notify about the next."""
        self._seen_avail = self._read_avail(2)[0]
        if self._seen_avail != self._next_avail:
            return True
        if not self.event_index:
            return False
        # avail_event before the second look: a driver that added a chain in between either sees the new event
        # index and notifies, or is seen here. The other order loses its last request.
        self._write_used(4 + 8 * self.size, self._next_avail)
        self._seen_avail = self._read_avail(2)[0]
        return self._seen_avail != self._next_avail

    def _walk(self, head: int) -> Chain | GuestError:
        """Follow a chain from its head (VIRTIO 1.2 2.7.5)."""
        read, limit, index = self._read_descriptor, self.size, head
        left = min(limit, CHAIN_MAX)
        readable: list[Segment] = []
        writable: list[Segment] = []
        readable_length = writable_length = 0
        while True:
            address, length, flags, following = read(16 * index)
            if flags & INDIRECT:
                inner = self._indirect_table(address, length, flags, nested=read is not self._read_descriptor)
                if isinstance(inner, GuestError):
                    return inner
                # Normal descriptors may come before an indirect one, never after it (VIRTIO 1.2 2.7.5.3.2).
                read, limit, index = reader(inner, DESCRIPTOR), length // 16, 0
                left = min(limit, CHAIN_MAX)
                continue
            left -= 1
            if left < 0:
                return GuestError(RingMistake.LOOP, head)
            if length == 0:
                return GuestError(RingMistake.EMPTY_BUFFER, address)
            if flags & WRITE:
                writable.append((address, length))
                writable_length += length
            elif writable:
                return GuestError(RingMistake.ORDER, address)
            else:
                readable.append((address, length))
                readable_length += length
            if not flags & NEXT:
                break
            if following >= limit:
                return GuestError(RingMistake.NEXT, following)
            index = following
        if readable_length + writable_length > CHAIN_BYTES_MAX:
            return GuestError(RingMistake.CHAIN_BYTES, readable_length + writable_length)
        return Chain(head, readable, writable, readable_length, writable_length)

    def _indirect_table(self, address: int, length: int, flags: int, *, nested: bool) -> Area | GuestError:
        """Check the descriptor of an indirect table and map the table (VIRTIO 1.2 2.7.5.3)."""
        if not self.indirect:
            return GuestError(RingMistake.INDIRECT, address)
        if nested:
            return GuestError(RingMistake.INDIRECT_NESTED, address)
        if flags & NEXT:
            return GuestError(RingMistake.INDIRECT_NEXT, address)
        if length == 0 or length % 16:
            return GuestError(RingMistake.INDIRECT_LENGTH, length)
        table = self._memory.area(address, length)
        return GuestError(RingMistake.INDIRECT_ADDRESS, address) if table is None else table

    # -- device to driver -------------------------------------------------------------------------

    def push(self, head: int, written: int) -> None:
        """Store the used entry of a chain that pop() gave; the driver sees it after publish().

        `written` counts the bytes from the start of the writable part that the device has surely written.
        """
        self.in_flight.remove(head)
        position = (self._used + self._pending) & self._mask
        self._write_element(4 + 8 * position, head, written)
        self._pending += 1

    def drop(self, head: int) -> None:
        """Forget a chain that is not given back, because the queue stops or the device is broken."""
        self.in_flight.discard(head)

    def publish(self) -> bool | GuestError:
        """Show the stored used entries to the driver; True if it wants an interrupt for them.

        Whoever calls has made the data visible before (GuestMemory.publish).
        """
        if not self._pending:
            return False
        old = self._used
        found = self._read_used(2)[0]
        if found != old:
            return GuestError(RingMistake.USED_INDEX, found)
        self._used = new = (old + self._pending) & 0xFFFF
        self._pending = 0
        self._write_used(2, new)
        # The driver's wish is read after the index is stored: a driver that asks for an interrupt and then finds
        # the old index must get the interrupt.
        if self.event_index:
            used_event = self._read_avail(4 + 2 * self.size)[0]
            # The event lies in the range [old, new): exactly one publish of that range interrupts (2.7.7.2).
            return bool((new - used_event - 1) & 0xFFFF < (new - old) & 0xFFFF)
        return not self._read_avail(0)[0] & NO_INTERRUPT

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Plain data; nothing is in flight."""
        return {
            "ready": self.ready,
            "size": self.size,
            "desc": self.desc_address,
            "avail": self.avail_address,
            "used": self.used_address,
            "event_index": self.event_index,
            "indirect": self.indirect,
            "next_avail": self._next_avail,
            "used_index": self._used,
        }

    def load(self, state: dict[str, Any], memory: GuestMemory) -> GuestError | None:
        """Restore; a ring that no longer lies in RAM is the same mistake as when it is set up."""
        self.reset()
        self.size = state["size"]
        self.desc_address, self.avail_address, self.used_address = state["desc"], state["avail"], state["used"]
        self._next_avail = self._seen_avail = state["next_avail"]
        self._used = state["used_index"]
        if state["ready"]:
            return self.start(memory, event_index=state["event_index"], indirect=state["indirect"])
        return None
