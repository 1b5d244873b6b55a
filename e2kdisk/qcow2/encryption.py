"""Encryption of guest data between the mapping and the file (reference: qcow2_encrypt_sectors)."""

from __future__ import annotations

from e2kdisk.aio.engine import IoVec, iov_slice
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.layout import SECTOR_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.crypto.sector import SectorCipher
    from e2kdisk.qcow2.image import Qcow2Image


def scatter(data: memoryview, iov: IoVec) -> None:
    """Copy data into iov, which is exactly as long."""
    start = 0
    for view in iov:
        view[:] = data[start : start + view.nbytes]
        start += view.nbytes


def decrypt(cipher: SectorCipher, offset: int, iov: IoVec) -> None:
    """Decrypt in place what was read from a guest offset, whole sectors."""
    if len(iov) == 1:
        cipher.decrypt(offset // SECTOR_BYTES, iov[0])
        return
    # Views may end inside a sector: decrypted as one piece, then spread.
    data = bytearray(b"".join(iov))
    cipher.decrypt(offset // SECTOR_BYTES, data)
    scatter(memoryview(data), iov)


def encrypted(cipher: SectorCipher | None, offset: int, iov: IoVec) -> IoVec:
    """What to write to the file for guest data at an offset; the guest's buffers are left as they are."""
    if cipher is None:
        return iov
    data = iov[0] if len(iov) == 1 else b"".join(iov)
    return [memoryview(cipher.encrypt(offset // SECTOR_BYTES, data))]


def _around(offset: GuestOffset, length: int) -> tuple[GuestOffset, bytearray]:
    """The whole sectors around some bytes: where they begin, and room for them."""
    start = GuestOffset(offset - offset % SECTOR_BYTES)
    return start, bytearray(offset + length - start + -(offset + length) % SECTOR_BYTES)


async def read_unaligned(image: Qcow2Image, offset: GuestOffset, iov: IoVec, length: int) -> None:
    """Read bytes that are no whole sectors of an encrypted image."""
    start, sectors = _around(offset, length)
    await image.read_beyond(start, [memoryview(sectors)], len(sectors))
    scatter(memoryview(sectors)[offset - start : offset - start + length], iov_slice(iov, 0, length))


async def write_unaligned(image: Qcow2Image, offset: GuestOffset, iov: IoVec, length: int) -> None:
    """Write bytes that are no whole sectors of an encrypted image: read, change, write, one after the other."""
    start, sectors = _around(offset, length)
    async with image.unaligned:
        await image.read_beyond(start, [memoryview(sectors)], len(sectors))
        sectors[offset - start : offset - start + length] = b"".join(iov)
        await image.write_beyond(start, [memoryview(sectors)], len(sectors))
