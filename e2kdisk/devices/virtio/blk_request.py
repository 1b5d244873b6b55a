"""One block request: parsed from its chain into typed values, completed exactly once (VIRTIO 1.2 5.2.6).

    | type 4 | reserved 4 | sector 8 |  data ...               | status 1 |
    '---- readable by the device ----'-- in either direction --'- writable

A driver may cut this into descriptors anywhere (VIRTIO 1.2 2.7.4.1): only the direction of each byte counts.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from e2kdisk.devices.guest_error import GuestError, Mistake
from e2kdisk.devices.scatter import Segment, map_all, split
from e2kdisk.devices.virtio.queue import Chain, RingMistake, SplitQueue

if TYPE_CHECKING:
    from e2kdisk.devices.virtio.blk import VirtioBlk

HEADER = Struct("<IIQ")
"""type, reserved, sector (VIRTIO 1.2 5.2.6)."""

# Status (VIRTIO 1.2 5.2.6)
OK = 0
IOERR = 1
UNSUPP = 2


class BlkMistake(Mistake):
    """What a driver can do wrong with a request, beyond the ring."""

    HEADER = "request header is shorter than 16 bytes", "VIRTIO 1.2 5.2.6"
    STATUS = "no room for the status byte", "VIRTIO 1.2 5.2.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One request type of the command table."""

    name: str
    section: str
    run: Callable[[VirtioBlk, BlkRequest], Coroutine[Any, Any, int]]
    feature: int = 0
    """The feature bit that must be offered, else UNSUPP."""
    to_guest: bool = False
    """Its data goes from the device to the guest."""
    modifies: bool = False
    """Fails on a read-only disk."""
    data_max: int | None = 0
    """Most bytes of data that are looked at, whatever the guest gives; None for the size of the disk."""


@dataclass(slots=True, eq=False)
class BlkRequest:
    """A request as the driver meant it."""

    device: VirtioBlk
    queue: SplitQueue
    chain: Chain
    command: Command | None
    """None for an unknown type."""
    type: int
    sector: int
    length: int
    """Bytes of data that the driver gave in the direction of the command."""
    segments: list[Segment]
    """Where the data is in guest memory, up to the command's data_max."""
    data: list[memoryview]
    """The same as memory."""
    status_address: int
    status_view: memoryview
    filled: bool = False
    """Whether data may have been changed: set before the read that does it."""

    @classmethod
    def parse(cls, device: VirtioBlk, queue: SplitQueue, chain: Chain) -> BlkRequest | GuestError:
        """The request in a chain, or the driver's mistake; the status byte is always the last writable byte."""
        if chain.readable_length < HEADER.size:
            return GuestError(BlkMistake.HEADER, chain.readable_length)
        if chain.writable_length == 0:
            return GuestError(BlkMistake.STATUS)
        memory = device.memory
        header, segments = split(chain.readable, HEADER.size)
        header_views = map_all(memory.source, header)
        if isinstance(header_views, int):
            return GuestError(RingMistake.BUFFER_ADDRESS, header_views)
        kind, _, sector = HEADER.unpack(header_views[0] if len(header_views) == 1 else b"".join(header_views))
        in_data, ((status_address, _),) = split(chain.writable, chain.writable_length - 1)
        status_view = memory.target(status_address, 1)
        if status_view is None:
            return GuestError(RingMistake.BUFFER_ADDRESS, status_address)
        command = device.commands.get(kind)
        length = most = 0
        mapper = memory.source
        if command is not None:
            length = chain.readable_length - HEADER.size
            if command.to_guest:
                segments, length, mapper = in_data, chain.writable_length - 1, memory.target
            most = command.data_max if command.data_max is not None else device.disk.size
        # A lying length costs nothing: no more is mapped than the command can use. It fails by `length`.
        data = map_all(mapper, segments if length <= most else split(segments, most)[0])
        if isinstance(data, int):
            return GuestError(RingMistake.BUFFER_ADDRESS, data)
        return cls(device, queue, chain, command, kind, sector, length, segments, data, status_address, status_view)

    def complete(self, status: int, error: BaseException | None) -> None:
        """Answer the driver: the data, then the status byte, then the used entry."""
        if error is not None:
            status = IOERR
        device, queue = self.device, self.queue
        if device.silenced(queue):
            queue.drop(self.chain.head)
        else:
            memory = device.memory
            written = 0
            if self.filled:
                # Also after an error: what has landed has landed, and translated code there is stale.
                for (address, _), view in zip(self.segments, self.data):  # noqa: B905 (data ends at data_max)
                    memory.written(address, view)
                    if status == OK:
                        written += view.nbytes
            self.status_view[0] = status
            memory.written(self.status_address, self.status_view)
            # The used length promises that so many bytes from the start are written (2.7.8.2): the status byte
            # counts only when everything before it does.
            if written == self.chain.writable_length - 1:
                written += 1
            device.finish(queue, self.chain, written)
        if device.trace is not None:
            self.report("request", status=status)
        if isinstance(error, Exception):
            raise error  # I/O errors are a status; this is a defect of ours, for whoever runs the scheduler

    def report(self, kind: str, **fields: object) -> None:
        """Put the request into the trace, when it begins ("submit") and when it is answered ("request")."""
        assert self.device.trace is not None
        name = f"{self.type:#x}" if self.command is None else self.command.name
        self.device.trace.event(
            self.device.name,
            kind,
            type=name,
            sector=self.sector,
            bytes=self.length,
            head=self.chain.head,
            status_at=self.status_address,
            **fields,
        )
