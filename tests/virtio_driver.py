"""A guest's virtio driver in Python: rings in a bytearray, any transport of both generations, honest or hostile.

Honest: `read`, `write`, `flush`, `call`, or `start` several requests and `collect` them. Hostile: `poke` any RAM,
`descriptor` and `offer` anything, write any register through `controller`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import Any, ClassVar

from e2kdisk.aio import Clock, Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.memory import MemoryNode
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import RamMemory
from e2kdisk.devices.virtio import VirtioBlk, VirtioMmio
from e2kdisk.devices.virtio.device import ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FEATURES_OK
from e2kdisk.devices.virtio.features import bit
from e2kdisk.devices.virtio.queue import INDIRECT, NEXT, NO_INTERRUPT, NO_NOTIFY, WRITE
from tests.virtio_links import plug_mmio, plug_pci

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2

RAM_BASE = 0x4000_0000
HEADER = Struct("<IIQ")
RANGE = Struct("<QII")
DESCRIPTOR = Struct("<QIHH")
USED = Struct("<II")
U16 = Struct("<H")


def make_disk(size: int = 1 << 20, *, clock: Clock | None = None, **options: Any) -> Disk:
    """A disk in memory with a pattern on it that differs from sector to sector."""
    node = MemoryNode(Scheduler(clock), size)
    for sector in range(0, size, 512):
        node.data[sector : sector + 512] = (b"%015x," % sector * 32)[: min(512, size - sector)]
    return Disk(node, **options)


def contents(disk: Disk) -> bytearray:
    """The bytes of a disk of make_disk."""
    assert isinstance(disk.node, MemoryNode)
    return disk.node.data


class Events(list[tuple[str, str, dict[str, object]]]):
    """A Trace that remembers."""

    def event(self, source: str, kind: str, **fields: object) -> None:
        self.append((source, kind, fields))

    @property
    def guest_errors(self) -> list[str]:
        return [str(fields["what"]) for _, kind, fields in self if kind == "guest-error"]

    @property
    def requests(self) -> list[dict[str, object]]:
        return [fields for _, kind, fields in self if kind == "request"]


@dataclass
class Pending:
    """A request that the driver has made available."""

    head: int
    data_address: int
    data_length: int
    status_address: int
    used_length: int | None = None
    """From the used ring, once it is there."""


@dataclass
class Result:
    """What the device answered."""

    status: int
    data: bytes
    used_length: int


PLUGS = {"mmio": plug_mmio, "pci": plug_pci}


class Driver:
    """One guest with one block device, which it owns."""

    transport: ClassVar[str] = "mmio"
    """What a driver is made for that does not say; a test file changes it to run over every transport."""

    ram_base: int = RAM_BASE
    """Address of the guest's memory."""

    def __init__(
        self,
        disk: Disk,
        *,
        transport: str = "",
        legacy: bool = False,
        queue_size: int = 256,
        ram_size: int = 1 << 20,
        accept: int | None = None,
        without: Sequence[str] = (),
        size: int | None = None,
        page_size: int = 4096,
        align: int | None = None,
        init: bool = True,
        trace: bool = True,
    ) -> None:
        """`accept` masks the offered features; `without` names features to refuse; `size` is the ring's."""
        self.disk = disk
        self.device = VirtioBlk(disk, queue_size=queue_size)
        self.controller, self.link = PLUGS[transport or self.transport](self.device, legacy=legacy)
        self.legacy = legacy
        self.ram_size = ram_size
        self.ram = bytearray(ram_size)
        self.memory = RamMemory(lambda start, end: self.published.append((start, end)))
        self.published: list[tuple[int, int]] = []
        self.memory.add_bank(RAM_BASE, memoryview(self.ram))
        self.interrupts = 0
        """Rising edges of the interrupt line."""
        self.irq = IrqLine(self._edge)
        self.controller.connect(self.memory, self.irq)
        self.trace = Events()
        if trace:
            self.controller.trace = self.trace
        self.features = 0
        self._page_size = self.link.page_size or page_size
        self._align = self.link.page_size or (align if align is not None else page_size)
        self._size = size if not self.link.fixed_size else None
        self._refused = sum(bit(name) for name in without)
        self._accept = accept
        if init:
            self.init()

    def _edge(self, level: bool) -> None:
        self.interrupts += level

    # -- registers ------------------------------------------------------------------------------

    @property
    def mmio(self) -> VirtioMmio:
        """The controller, for tests of virtio-mmio itself."""
        assert isinstance(self.controller, VirtioMmio)
        return self.controller

    def reg(self, offset: int) -> int:
        return self.mmio.read(offset, 4)

    def set_reg(self, offset: int, value: int) -> None:
        self.mmio.write(offset, 4, value)

    @property
    def status(self) -> int:
        return self.link.status()

    def set_status(self, value: int) -> None:
        self.link.set_status(value)

    @property
    def broken(self) -> bool:
        return bool(self.status & DEVICE_NEEDS_RESET)

    def config(self, offset: int, size: int) -> int:
        return self.link.config(offset, size)

    def notify(self, queue: int = 0) -> None:
        """Notify whatever the device wishes."""
        self.link.notify(queue)

    # -- initialization (VIRTIO 1.2 3.1.1, 4.2.3.1, 4.2.4, 4.1.5.1) -----------------------------------

    def init(self) -> None:
        """Bring the device up from any state."""
        if self.legacy and isinstance(self.controller, VirtioMmio):
            self.set_reg(0x028, self._page_size)  # before the reset, as real drivers do
        self.set_status(0)
        assert self.status == 0
        self.set_status(ACKNOWLEDGE)
        self.set_status(ACKNOWLEDGE | DRIVER)
        self.features = self.link.offered() & ~self._refused
        if self._accept is not None:
            self.features &= self._accept
        self.link.accept(self.features)
        status = ACKNOWLEDGE | DRIVER
        if not self.legacy:
            status |= FEATURES_OK
            self.set_status(status)
            assert self.status & FEATURES_OK
        self.event_idx = bool(self.features & bit("EVENT_IDX"))
        self._init_queue()
        self.set_status(status | DRIVER_OK)

    def _init_queue(self) -> None:
        largest = self.link.queue_size()
        self.size = size = self._size or largest
        self.desc = self.ram_base + self._page_size
        self.avail = self.desc + 16 * size
        self.used_ring = (self.avail + 6 + 2 * size + self._align - 1) & -self._align
        self._arena = self.used_ring + 8 * size + 6
        self.poke(self.desc, bytes(self._arena - self.desc))
        self.link.start_queue(size, self.desc, self.avail, self.used_ring, self._page_size, self._align)
        self._next_free = self._arena
        self._free = list(range(size - 1, -1, -1))
        self._chains: dict[int, list[int]] = {}
        self.in_flight: dict[int, Pending] = {}
        self.avail_index = 0
        self.seen_used = 0
        self._kicked = 0

    # -- guest memory -----------------------------------------------------------------------------

    def poke(self, address: int, data: bytes) -> None:
        start = address - self.ram_base
        assert start >= 0 and start + len(data) <= len(self.ram)
        self.ram[start : start + len(data)] = data

    def peek(self, address: int, length: int) -> bytes:
        start = address - self.ram_base
        return bytes(self.ram[start : start + length])

    def peek16(self, address: int) -> int:
        value: int = U16.unpack(self.peek(address, 2))[0]
        return value

    def poke16(self, address: int, value: int) -> None:
        self.poke(address, U16.pack(value & 0xFFFF))

    def alloc(self, length: int) -> int:
        """Room for a buffer; all of it is free again when nothing is in flight."""
        address = self._next_free
        self._next_free += length
        assert self._next_free <= self.ram_base + self.ram_size, "the test's guest has no memory left"
        return address

    # -- rings ------------------------------------------------------------------------------------

    def descriptor(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        self.poke(self.desc + 16 * index, DESCRIPTOR.pack(address, length, flags, following))

    def offer(self, head: int) -> None:
        """Make a head available."""
        self.poke16(self.avail + 4 + 2 * (self.avail_index % self.size), head)
        self.avail_index = (self.avail_index + 1) & 0xFFFF
        self.poke16(self.avail + 2, self.avail_index)

    def add(self, readable: Sequence[tuple[int, int]], writable: Sequence[tuple[int, int]], indirect: bool) -> int:
        """Make a chain of (address, length) buffers available; its head."""
        buffers = [(address, length, 0) for address, length in readable]
        buffers += [(address, length, WRITE) for address, length in writable]
        if indirect:
            table = self.alloc(16 * len(buffers))
            for index, (address, length, flags) in enumerate(buffers):
                last = index == len(buffers) - 1
                entry = DESCRIPTOR.pack(address, length, flags | (0 if last else NEXT), 0 if last else index + 1)
                self.poke(table + 16 * index, entry)
            buffers = [(table, 16 * len(buffers), INDIRECT)]
        chain = [self._free.pop() for _ in buffers]
        for position, (address, length, flags) in enumerate(buffers):
            last = position == len(buffers) - 1
            self.descriptor(
                chain[position], address, length, flags | (0 if last else NEXT), 0 if last else chain[position + 1]
            )
        self._chains[chain[0]] = chain
        self.offer(chain[0])
        return chain[0]

    def kick(self) -> bool:
        """Notify unless the device does not want it (VIRTIO 1.2 2.7.10); whether it was notified."""
        old, self._kicked = self._kicked, self.avail_index
        if self.event_idx:
            event = self.peek16(self.used_ring + 4 + 8 * self.size)
            wanted = (self.avail_index - event - 1) & 0xFFFF < (self.avail_index - old) & 0xFFFF
        else:
            wanted = not self.peek16(self.used_ring) & NO_NOTIFY
        if wanted:
            self.notify()
        return wanted

    def take_used(self) -> list[tuple[int, int]]:
        """The used entries since the last look: (head, length)."""
        entries = []
        while self.seen_used != self.peek16(self.used_ring + 2):
            place = self.used_ring + 4 + 8 * (self.seen_used % self.size)
            entries.append(USED.unpack(self.peek(place, USED.size)))
            self.seen_used = (self.seen_used + 1) & 0xFFFF
        return entries

    def collect(self) -> list[Pending]:
        """What is done: acknowledge, take the used entries, ask for the next interrupt."""
        self.link.take_reasons()
        done = []
        for head, length in self.take_used():
            pending = self.in_flight.pop(head)  # KeyError: used twice, or never made available
            assert length <= pending.data_length + 1, "the device claims more than it had room for"
            pending.used_length = length
            self._free.extend(reversed(self._chains.pop(head)))
            done.append(pending)
        if self.event_idx:
            self.poke16(self.avail + 4 + 2 * self.size, self.seen_used)
        if not self.in_flight:
            self._next_free = self._arena
        return done

    def no_interrupts(self, flag: bool) -> None:
        """Set or clear the available ring's wish not to be interrupted."""
        self.poke16(self.avail, NO_INTERRUPT if flag else 0)

    # -- requests ---------------------------------------------------------------------------------

    def start(
        self,
        kind: int,
        sector: int = 0,
        data: bytes = b"",
        length: int = 0,
        *,
        cuts: Sequence[int] = (),
        indirect: bool = False,
    ) -> Pending:
        """Make a request available: header and `data` to the device, `length` bytes and a status from it.

        `cuts` are the places (bytes from the start of the request) where descriptors end, besides the one
        between readable and writable; without it header, data and status are descriptors of their own.
        """
        header = HEADER.pack(kind, 0, sector) + data
        to_device = self.alloc(len(header))
        self.poke(to_device, header)
        from_device = self.alloc(length + 1)
        self.poke(from_device, b"\xee" * (length + 1))
        cuts = cuts or (HEADER.size, len(header) + length)
        readable = _cut(to_device, len(header), cuts)
        writable = _cut(from_device, length + 1, [cut - len(header) for cut in cuts])
        head = self.add(readable, writable, indirect)
        self.in_flight[head] = pending = Pending(head, from_device, length, from_device + length)
        return pending

    def result(self, pending: Pending) -> Result:
        """The answer of a collected request, before its memory is used again."""
        assert pending.used_length is not None
        data = self.peek(pending.data_address, pending.data_length)
        return Result(self.peek(pending.status_address, 1)[0], data, pending.used_length)

    def wait(self, *wanted: Pending) -> None:
        """Collect until these requests are done."""
        while any(pending.used_length is None for pending in wanted):
            if not self.collect() and not self.disk.scheduler.wait(10):
                raise AssertionError(f"the device never finished; trace: {self.trace[-3:]}")

    def call(self, kind: int, sector: int = 0, data: bytes = b"", length: int = 0, **layout: object) -> Result:
        """One request from start to end."""
        pending = self.start(kind, sector, data, length, **layout)  # type: ignore[arg-type]
        self.kick()
        self.wait(pending)
        return self.result(pending)

    def read(self, sector: int, count: int) -> bytes:
        result = self.call(IN, sector, length=512 * count)
        assert result.status == OK
        return result.data

    def write(self, sector: int, data: bytes) -> None:
        assert self.call(OUT, sector, data).status == OK

    def flush(self) -> None:
        assert self.call(FLUSH).status == OK


def _cut(address: int, length: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    places = [0, *sorted({cut for cut in cuts if 0 < cut < length}), length]
    return [(address + start, end - start) for start, end in pairwise(places) if end > start]


def ranges(*triples: tuple[int, int, int]) -> bytes:
    """The data of DISCARD and WRITE_ZEROES: (sector, sectors, flags) each."""
    return b"".join(RANGE.pack(*triple) for triple in triples)
