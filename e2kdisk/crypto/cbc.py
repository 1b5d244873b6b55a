"""AES in CBC mode with an IV per sector, without paying for a new cipher context per sector (10 us each).

CBC restarts with every sector, but a context can be kept running over all of them. It XORs its last cipher
block L into the next plaintext block, where the sector's IV should be:

    encrypt   feed  P0 ^ IV ^ L  as the first block    ->  the context computes  E(P0 ^ IV), which is right
    decrypt   the context computes  D(C0) ^ L          ->  XOR  L ^ IV  into the first block afterwards

Decryption thus is one call for any number of sectors and one XOR over the first blocks of all of them.
Encryption is serial inside a sector; large requests go across the sectors instead (cbc_bulk).
"""

from __future__ import annotations

import sys

from e2kdisk.crypto.iv import IvGenerator
from e2kdisk.crypto.sector import SECTOR_BYTES, SectorCipher, whole_sectors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    from e2kdisk.crypto.cbc_bulk import BulkEncryptor

BLOCK = 16
"""Bytes of an AES block."""

SLACK = BLOCK
"""Bytes that update_into() wants behind its output, rounded up so that the buffer stays whole words."""

CHUNK = 128 << 10
"""Bytes decrypted in one go: input and output stay in a core's cache."""

BULK_FROM = 32 << 10
"""Bytes of one request from which encrypting across the sectors is faster than one sector after the other."""

NUMPY_AFTER = 8 << 20
"""Bytes encrypted without numpy before it is imported; its 150 ms come back after another 30 MiB."""

_SECTOR_WORDS = SECTOR_BYTES // 8


class _Chain:
    """A running CBC context and the last cipher block that went through it."""

    __slots__ = ("last", "out", "update_into")

    def __init__(self, context: CipherContext) -> None:
        self.update_into = context.update_into
        self.last = 0
        """Little-endian number; the context was made with a zero IV."""
        self.out = bytearray()
        """Where the context writes to, grown as needed."""

    def room(self, length: int) -> bytearray:
        """A buffer of at least length bytes and the slack."""
        if len(self.out) < length + SLACK:
            self.out = bytearray(length + SLACK)
        return self.out


class AesCbc(SectorCipher):
    """AES-CBC (key of 16, 24 or 32 bytes) with an IV generator."""

    def __init__(self, key: bytes, ivs: IvGenerator) -> None:
        self._ivs = ivs
        self._key = key
        self._cbc: Cipher[CBC] | None = None
        # Contexts at rest. A request takes one and puts it back, so threads never share one; a request that
        # fails keeps it, because nobody knows its last block any more.
        self._encryptors: list[_Chain] = []
        self._decryptors: list[_Chain] = []
        self._bulk: BulkEncryptor | None = None
        self._encrypted = 0

    def __repr__(self) -> str:
        return f"AesCbc({len(self._key) * 8} bit)"  # never the key

    def encrypt(self, first_sector: int, data: bytes | bytearray | memoryview) -> bytearray:
        """SectorCipher.encrypt."""
        view = memoryview(data)
        sectors = whole_sectors(view.nbytes)
        if view.nbytes >= BULK_FROM:
            bulk = self._find_bulk(view.nbytes)
            if bulk is not None:
                return bulk.encrypt(self._ivs(first_sector, sectors), view)
        return self._encrypt_chained(first_sector, view, sectors)

    def _encrypt_chained(self, first_sector: int, view: memoryview, sectors: int) -> bytearray:
        length = view.nbytes
        fed = bytearray(view)
        result = bytearray(length + SLACK)
        ivs = self._ivs(first_sector, sectors).tobytes()
        chain = _take(self._encryptors) or _Chain(self._context().encryptor())
        update_into, last, number = chain.update_into, chain.last, int.from_bytes
        with memoryview(fed) as source, memoryview(result) as target:
            iv = 0
            for start in range(0, length, SECTOR_BYTES):
                first = number(source[start : start + BLOCK], "little") ^ number(ivs[iv : iv + BLOCK], "little") ^ last
                source[start : start + BLOCK] = first.to_bytes(BLOCK, "little")
                end = start + SECTOR_BYTES
                update_into(source[start:end], target[start:])
                last = number(target[end - BLOCK : end], "little")
                iv += BLOCK
        chain.last = last
        self._encryptors.append(chain)
        del result[length:]
        return result

    def decrypt(self, first_sector: int, data: bytearray | memoryview) -> None:
        """SectorCipher.decrypt."""
        view = memoryview(data)
        whole_sectors(view.nbytes)
        chain = _take(self._decryptors) or _Chain(self._context().decryptor())
        for start in range(0, view.nbytes, CHUNK):
            self._decrypt_chunk(chain, first_sector + start // SECTOR_BYTES, view[start : start + CHUNK])
        self._decryptors.append(chain)

    def _decrypt_chunk(self, chain: _Chain, first_sector: int, view: memoryview) -> None:
        length = view.nbytes
        sectors = length // SECTOR_BYTES
        out = memoryview(chain.room(length))
        chain.update_into(view, out)
        ivs = self._ivs(first_sector, sectors)
        cipher = view.cast("Q")
        plain = out[:length].cast("Q")
        last, chain.last = chain.last, int.from_bytes(view[length - BLOCK :], "little")
        # Both words of the first block of every sector at once, as one number of `sectors` words.
        for word, previous in ((0, last & _WORD), (1, last >> 64)):
            lasts = _number(cipher[_SECTOR_WORDS - 2 + word :: _SECTOR_WORDS])
            lasts = (lasts << 64 | previous) & ((1 << 64 * sectors) - 1)  # each sector's predecessor
            firsts = _number(plain[word::_SECTOR_WORDS]) ^ lasts ^ _number(memoryview(ivs)[word::2])
            plain[word::_SECTOR_WORDS] = memoryview(firsts.to_bytes(8 * sectors, "little")).cast("Q")
        view[:] = out[:length]

    def _context(self) -> Cipher[CBC]:
        if self._cbc is None:
            # Imported late: it costs as much as our whole start.
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

            self._cbc = Cipher(algorithms.AES(self._key), modes.CBC(bytes(BLOCK)))
        return self._cbc

    def _find_bulk(self, length: int) -> BulkEncryptor | None:
        """The fast way for large requests, or None: no numpy, or not worth importing it yet."""
        if self._bulk is None:
            self._encrypted += length
            if "numpy" not in sys.modules and self._encrypted < NUMPY_AFTER:
                return None
            try:
                from e2kdisk.crypto.cbc_bulk import BulkEncryptor
            except ImportError:
                self._encrypted = -sys.maxsize  # not installed: asked once only
                return None
            self._bulk = BulkEncryptor(self._key)
        return self._bulk


_WORD = (1 << 64) - 1


def _take(resting: list[_Chain]) -> _Chain | None:
    """A context at rest, or None; one step, because another thread may take the last one meanwhile."""
    try:
        return resting.pop()
    except IndexError:
        return None


def _number(words: memoryview) -> int:
    """The words in memory order as one little-endian number."""
    return int.from_bytes(words.tobytes(), "little")
