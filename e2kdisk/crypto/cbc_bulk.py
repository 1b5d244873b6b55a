"""CBC encryption across sectors with numpy: block j of all sectors in one ECB call.

    request   sector 0:  P0 P1 P2 ... P31          transposed   P0 of all sectors   -> E(. ^ IVs)
              sector 1:  P0 P1 P2 ... P31                       P1 of all sectors   -> E(. ^ result above)
              ...                                               ...

CBC is serial only inside a sector. 32 ECB calls of many blocks each keep the AES unit busy, where a chain waits
for every single block: four times less CPU for large requests.
"""

from __future__ import annotations

from array import array

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from e2kdisk.crypto.sector import SECTOR_BYTES

_BLOCKS = SECTOR_BYTES // 16

CHUNK_SECTORS = 512
"""Sectors encrypted in one go: the three buffers stay in a core's cache."""


class BulkEncryptor:
    """AES-CBC of many sectors at once; keeps no state between requests."""

    def __init__(self, key: bytes) -> None:
        self._ecb = Cipher(algorithms.AES(key), modes.ECB())

    def encrypt(self, ivs: array[int], data: memoryview) -> bytearray:
        """Return data, whole sectors, encrypted; ivs has two words for each sector."""
        sectors = len(ivs) // 2
        result = bytearray(data.nbytes)
        source = np.frombuffer(data, np.uint64).reshape(sectors, _BLOCKS, 2)
        target = np.frombuffer(result, np.uint64).reshape(sectors, _BLOCKS, 2)
        iv_words = np.frombuffer(ivs, np.uint64).reshape(sectors, 2)
        update_into = self._ecb.encryptor().update_into  # one per request: threads must not share it
        largest = min(sectors, CHUNK_SECTORS)
        plain_bytes = bytearray(largest * SECTOR_BYTES)
        # One block more than needed: update_into() wants room for it, and never touches it in ECB mode.
        cipher_bytes = bytearray(largest * SECTOR_BYTES + 16)
        plain_view, cipher_view = memoryview(plain_bytes), memoryview(cipher_bytes)
        for start in range(0, sectors, CHUNK_SECTORS):
            end = min(start + CHUNK_SECTORS, sectors)
            count = end - start
            words = count * _BLOCKS * 2
            plain = np.frombuffer(plain_bytes, np.uint64, words).reshape(_BLOCKS, count, 2)
            cipher = np.frombuffer(cipher_bytes, np.uint64, words).reshape(_BLOCKS, count, 2)
            plain[:] = source[start:end].transpose(1, 0, 2)
            step = count * 16
            previous = iv_words[start:end]
            for block in range(_BLOCKS):
                plain[block] ^= previous
                first = block * step
                update_into(plain_view[first : first + step], cipher_view[first:])
                previous = cipher[block]
            target[start:end] = cipher.transpose(1, 0, 2)
        return result
