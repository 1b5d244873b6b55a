"""Sector ciphers for encrypted images, and the secrets that unlock them."""

from e2kdisk.crypto.legacy import legacy_aes
from e2kdisk.crypto.secret import Secret, Secrets
from e2kdisk.crypto.sector import SECTOR_BYTES, SectorCipher

__all__ = ["SECTOR_BYTES", "Secret", "Secrets", "SectorCipher", "legacy_aes"]
