"""What a drive asks of whatever carries its DMA: a PCI bus master, a platform's engine, an AHCI port."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from e2kdisk.devices.scatter import Segment


class DmaEnd(Enum):
    """Why there is no place for the data of a transfer."""

    SHORT = "the table describes less than the transfer"
    FAULT = "the table cannot be read"


class DmaTransport(Protocol):
    """Carries the data of one transfer at a time; where the data lies is its business, what moves is the drive's."""

    def prepare(self) -> bool:
        """A drive has a transfer ready: whether it may begin now; if not, AtaChannel.start_dma() is called later."""
        ...

    def segments(self, length: int, to_memory: bool) -> list[Segment] | DmaEnd:
        """Where the next `length` bytes lie in guest memory."""
        ...

    def transferred(self) -> None:
        """All of it has moved; the drive's interrupt follows."""
        ...

    def abort(self, host_error: bool = False) -> None:
        """The transfer has ended without all of its data; host_error: guest memory was to blame, not the drive."""
        ...
