"""The legacy encryption of qcow2 (crypt_method 1): AES-128-CBC, password as key, guest sector number as IV.

It is weak (the key is the password itself, equal sectors of two images with one password encrypt equally, a
guest that can read the image file can build watermarks) and here only because images with it exist.
"""

from __future__ import annotations

from e2kdisk.crypto.cbc import AesCbc
from e2kdisk.crypto.iv import plain64
from e2kdisk.crypto.sector import SectorCipher

KEY_BYTES = 16


def legacy_aes(password: bytes) -> SectorCipher:
    """Return the cipher of a legacy image; only the first 16 bytes of the password count.

    Sectors are numbered by guest offset / 512. A wrong password is not noticed: the disk reads as noise.
    """
    return AesCbc(password[:KEY_BYTES].ljust(KEY_BYTES, b"\0"), plain64)
