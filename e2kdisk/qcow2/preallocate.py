"""Preallocation: clusters mapped before anybody writes them (off, metadata, falloc, full)."""

from __future__ import annotations

from e2kdisk.block.node import zero_iov
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.allocation import Allocation
from e2kdisk.qcow2.geometry import GuestOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

PREALLOCATIONS = ("off", "metadata", "falloc", "full")

_CHUNK_BYTES = 64 << 20
_PIECE_BYTES = 2 << 20
"""Zeros that must be written go out in requests of this size."""


async def preallocate(image: Qcow2Image, offset: int, length: int, mode: str) -> None:
    """Map all clusters of a guest range that reads as zeros. Raises UsageError, OSError, ImageError.

    metadata: the clusters are holes of the file; falloc: the host reserves their space; full: zeros are written.
    """
    if mode not in PREALLOCATIONS:
        raise UsageError(f"preallocation {mode!r} is not one of {', '.join(PREALLOCATIONS)}")
    if mode == "off" or not length:
        return
    if image.cipher is not None:
        # Zeros of the file decrypt to noise: whatever the mode, zeros have to be written as the guest would.
        end = min(offset + length, image.size)
        for start in range(offset, end, _PIECE_BYTES):
            await image.write(start, zero_iov(min(_PIECE_BYTES, end - start)))
        return
    geometry = image.geometry
    done = geometry.round_down(offset)
    end = offset + length
    while done < end:
        async with image.lock:
            claim = await image.allocator.claim(GuestOffset(done), min(end - done, _CHUNK_BYTES))
        if not isinstance(claim, Allocation):
            done += claim.length
            continue
        try:
            size = claim.clusters << geometry.cluster_bits
            if mode == "full":
                for start in range(0, size, _PIECE_BYTES):
                    await image.file.write(claim.host + start, zero_iov(min(_PIECE_BYTES, size - start)))
            elif not claim.fresh:
                # Space that was used before still holds what was in it.
                await image.file.write_zeroes(claim.host, size, unmap=mode == "metadata")
            elif mode == "falloc":
                await image.file.reserve(claim.host, size)
            else:
                # The file must reach to the end of its last cluster: others see no hole past it.
                await image.file.write(
                    claim.host + size - layout.SECTOR_BYTES, [memoryview(bytes(layout.SECTOR_BYTES))]
                )
            image.order.note_unsynced()
            async with image.lock:
                await image.allocator.link(claim)
        finally:
            await image.finish(claim)
        done = min(end, claim.guest + size)
