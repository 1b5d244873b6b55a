"""Decoded tables: 64-bit entries (L1, L2, refcount table) and refcounts of every width."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

_SWAP = sys.byteorder == "little"


class Entries64:
    """Big-endian 64-bit entries as native integers."""

    __slots__ = ("values",)

    def __init__(self, raw: bytes | bytearray) -> None:
        self.values = array("Q")
        self.values.frombytes(raw)
        if _SWAP:
            self.values.byteswap()

    def pack(self, first: int, end: int) -> bytes:
        """Entries.pack."""
        return pack64(self.values[first // 8 : end // 8])


def pack64(values: Iterable[int]) -> bytes:
    """Big-endian bytes of 64-bit values."""
    part = array("Q", values)
    if _SWAP:
        part.byteswap()
    return part.tobytes()


class Refcounts:
    """The refcounts of one refcount block."""

    __slots__ = ()

    def get(self, index: int) -> int:
        """The refcount at an index."""
        raise NotImplementedError

    def set(self, index: int, value: int) -> None:
        """Change the refcount at an index; value fits the width."""
        raise NotImplementedError

    def find_free(self, start: int) -> int:
        """The first index from start whose refcount is 0, or -1."""
        raise NotImplementedError

    def pack(self, first: int, end: int) -> bytes:
        """Entries.pack."""
        raise NotImplementedError


class ByteRefcounts(Refcounts):
    """Widths of 8, 16, 32 and 64 bits."""

    __slots__ = ("_values",)

    def __init__(self, raw: bytearray, typecode: str) -> None:
        self._values = array(typecode)
        self._values.frombytes(raw)
        if _SWAP:
            self._values.byteswap()

    def get(self, index: int) -> int:
        """Refcounts.get."""
        return self._values[index]

    def set(self, index: int, value: int) -> None:
        """Refcounts.set."""
        self._values[index] = value

    def find_free(self, start: int) -> int:
        """Refcounts.find_free."""
        try:
            return self._values.index(0, start)
        except ValueError:
            return -1

    def pack(self, first: int, end: int) -> bytes:
        """Entries.pack."""
        size = self._values.itemsize
        part = self._values[first // size : end // size]
        if _SWAP:
            part.byteswap()
        return part.tobytes()


class BitRefcounts(Refcounts):
    """Widths of 1, 2 and 4 bits: the lowest index lies in the least significant bits of its byte."""

    __slots__ = ("_bits", "_mask", "_per_byte", "_raw")

    def __init__(self, raw: bytearray, bits: int) -> None:
        self._raw = raw
        self._bits = bits
        self._mask = (1 << bits) - 1
        self._per_byte = 8 // bits

    def get(self, index: int) -> int:
        """Refcounts.get."""
        byte, place = divmod(index, self._per_byte)
        return self._raw[byte] >> place * self._bits & self._mask

    def set(self, index: int, value: int) -> None:
        """Refcounts.set."""
        byte, place = divmod(index, self._per_byte)
        shift = place * self._bits
        self._raw[byte] = self._raw[byte] & ~(self._mask << shift) | value << shift

    def find_free(self, start: int) -> int:
        """Refcounts.find_free."""
        for index in range(start, len(self._raw) * self._per_byte):
            if self.get(index) == 0:
                return index
        return -1

    def pack(self, first: int, end: int) -> bytes:
        """Entries.pack."""
        return bytes(self._raw[first:end])


_TYPECODES = {8: "B", 16: "H", 32: "I", 64: "Q"}


def decode_refcounts(raw: bytearray, bits: int) -> Refcounts:
    """A refcount block of refcounts that are `bits` wide."""
    if bits < 8:
        return BitRefcounts(raw, bits)
    return ByteRefcounts(raw, _TYPECODES[bits])
