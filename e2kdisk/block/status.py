"""BlockStatus: what a node knows of a range without reading it (reference: bdrv_block_status of later QEMU)."""

from __future__ import annotations

from typing import NamedTuple


class BlockStatus(NamedTuple):
    """One run of bytes of the same kind, from the offset that was asked for."""

    length: int
    allocated: bool
    """This layer decides what is read here; False: the backing file does."""
    zero: bool
    """It is known to read as zeros."""
    host_offset: int | None = None
    """Where the bytes lie in the file, if they lie there as they are."""
    compressed: bool = False
