"""SectorCipher: what a format asks of its encryption; one tweak or IV per 512-byte sector."""

from __future__ import annotations

SECTOR_BYTES = 512
"""The unit of encryption: legacy qcow2 knows no other, and LUKS1 counts its IVs in it too."""


class SectorCipher:
    """Encrypts and decrypts runs of whole sectors; each sector is independent of its neighbours.

    Sectors are numbered in whatever space the format says (guest sectors for legacy qcow2, file sectors of the
    payload for LUKS). All methods are plain calls that may run on worker threads, several at once.
    """

    def encrypt(self, first_sector: int, data: bytes | bytearray | memoryview) -> bytearray:
        """Return data encrypted; the caller's bytes stay as they are, because a guest may read them meanwhile.

        Raises ValueError unless data is a whole number of sectors.
        """
        raise NotImplementedError

    def decrypt(self, first_sector: int, data: bytearray | memoryview) -> None:
        """Decrypt data in place. Raises ValueError unless it is a whole number of sectors."""
        raise NotImplementedError


def whole_sectors(length: int) -> int:
    """Return how many sectors `length` bytes are. Raises ValueError when they are not whole."""
    sectors, rest = divmod(length, SECTOR_BYTES)
    if rest:
        raise ValueError(f"{length} bytes are no whole number of {SECTOR_BYTES}-byte sectors")
    return sectors
