"""BlockStatus: what a node knows of a range without reading it (reference: bdrv_block_status of later QEMU)."""

from __future__ import annotations


class BlockStatus:
    """One run of bytes of the same kind, from the offset that was asked for."""

    __slots__ = ("allocated", "compressed", "host_offset", "length", "zero")

    def __init__(
        self, length: int, allocated: bool, zero: bool, host_offset: int | None = None, compressed: bool = False
    ) -> None:
        self.length = length
        self.allocated = allocated
        """This layer decides what is read here; False: the backing file does."""
        self.zero = zero
        """It is known to read as zeros."""
        self.host_offset = host_offset
        """Where the bytes lie in the file, if they lie there as they are."""
        self.compressed = compressed
