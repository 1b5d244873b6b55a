"""DirtyBits: which granules of a disk are dirty; in memory only pages that are neither all clean nor all dirty."""

from __future__ import annotations

from collections.abc import Iterator

_PAGE_BYTES = 4096
_PAGE_SHIFT = 15
"""granule >> _PAGE_SHIFT is the page that holds its bit."""
_PAGE_GRANULES = 1 << _PAGE_SHIFT
_FULL = b"\xff" * _PAGE_BYTES
"""The page of 32768 dirty granules, one for everybody: immutable, so nobody can change it by mistake."""


_CLEAN = bytes(_PAGE_BYTES)


class DirtyBits:
    """One bit for each granule of a disk, in the order of the format: the least significant bit of a byte first."""

    __slots__ = ("_pages", "changed", "granularity_bits", "size")

    def __init__(self, size: int, granularity_bits: int) -> None:
        self.size = size
        """Bytes of the disk; what lies behind is never dirty."""
        self.granularity_bits = granularity_bits
        """A granule has 1 << granularity_bits bytes."""
        self.changed = False
        """Something has changed since this was set to False; the owner does that after loading and storing."""
        self._pages: dict[int, bytearray | bytes] = {}
        """Page number -> its bits; a page that is not here is clean."""

    @property
    def granules(self) -> int:
        """How many granules the disk has; the last one may be cut."""
        return -(-self.size >> self.granularity_bits)

    @property
    def byte_count(self) -> int:
        """Bytes of all bits as they are stored."""
        return (self.granules + 7) // 8

    def __eq__(self, other: object) -> bool:
        """Whether the same bytes of equally large disks are dirty, whatever the granularities."""
        if not isinstance(other, DirtyBits):
            return NotImplemented
        return self.size == other.size and list(self.ranges()) == list(other.ranges())

    __hash__ = None  # type: ignore[assignment]

    # -- change -----------------------------------------------------------------------------------

    def mark(self, offset: int, length: int) -> None:
        """Make every granule dirty that these bytes of the disk touch."""
        end = min(offset + length, self.size)
        if offset >= end:
            return
        first, last = offset >> self.granularity_bits, (end - 1) >> self.granularity_bits
        if first == last:
            # The common case on its own: a small write to what is dirty already.
            page = self._pages.get(first >> _PAGE_SHIFT)
            if page is not None and page[first >> 3 & _PAGE_BYTES - 1] >> (first & 7) & 1:
                return
        self._set(first, last + 1)

    def _set(self, first: int, end: int) -> None:
        self.changed = True
        while first < end:
            number = first >> _PAGE_SHIFT
            base = number << _PAGE_SHIFT
            stop = min(end - base, _PAGE_GRANULES)
            if stop - (first - base) == _PAGE_GRANULES:
                self._pages[number] = _FULL
            else:
                page = self._pages.get(number)
                if page is None:
                    page = self._pages[number] = bytearray(_PAGE_BYTES)
                if isinstance(page, bytearray):
                    _set_bits(page, first - base, stop)
            first = base + _PAGE_GRANULES

    def clear(self) -> None:
        """Make everything clean."""
        self.changed = True
        self._pages.clear()

    def merge(self, other: DirtyBits) -> None:
        """Make dirty what is dirty in another bitmap of an equally large disk: whole granules of this one."""
        for offset, length in other.ranges():
            self.mark(offset, length)

    def resize(self, size: int) -> None:
        """The disk has another size: what is new is clean, what is cut off is forgotten."""
        if size != self.size:
            self.changed = True
        self.size = size
        last, inside = self.granules >> _PAGE_SHIFT, self.granules & _PAGE_GRANULES - 1
        for number in [number for number in self._pages if number > last or (number == last and not inside)]:
            del self._pages[number]
        if last in self._pages:
            kept = int.from_bytes(self._pages[last], "little") & (1 << inside) - 1
            self._pages[last] = bytearray(kept.to_bytes(_PAGE_BYTES, "little"))

    # -- look -------------------------------------------------------------------------------------

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The dirty bytes of the disk as (offset, length), in order, as long as possible."""
        begin = end = 0
        for first, stop in self._runs():
            if first != end or begin == end:
                if begin < end:
                    yield self._bytes(begin, end)
                begin = first
            end = stop
        if begin < end:
            yield self._bytes(begin, end)

    def _bytes(self, first: int, end: int) -> tuple[int, int]:
        offset = first << self.granularity_bits
        return offset, min(end << self.granularity_bits, self.size) - offset

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Runs of dirty granules (first, end) within one page each."""
        total = self.granules
        for number in sorted(self._pages):
            page = self._pages[number]
            base = number << _PAGE_SHIFT
            if page is _FULL:
                yield base, min(base + _PAGE_GRANULES, total)
                continue
            bits, at = int.from_bytes(page, "little"), base
            while bits:
                clean = (bits & -bits).bit_length() - 1
                bits >>= clean
                dirty = (~bits & bits + 1).bit_length() - 1
                bits >>= dirty
                yield at + clean, at + clean + dirty
                at += clean + dirty

    # -- as stored --------------------------------------------------------------------------------

    def parts(self, length: int) -> Iterator[tuple[int, bytes]]:
        """What is stored in parts of `length` bytes, a power of two: (number, bytes) of those with a dirty bit."""
        if length >= _PAGE_BYTES:
            per = length // _PAGE_BYTES
            for number in sorted({page // per for page in self._pages}):
                data = b"".join(self._pages.get(page, _CLEAN) for page in range(number * per, (number + 1) * per))
                if data.count(0) < length:
                    yield number, data
            return
        per = _PAGE_BYTES // length
        for page in sorted(self._pages):
            for index in range(per):
                data = bytes(self._pages[page][index * length : (index + 1) * length])
                if data.count(0) < length:
                    yield page * per + index, data

    def load(self, start: int, data: bytes | bytearray | memoryview) -> None:
        """Take over stored bytes from byte `start` on; bits behind the end of the disk are not taken."""
        taken = bytearray(data[: max(0, self.byte_count - start)])
        if taken and start + len(taken) == self.byte_count and self.granules & 7:
            taken[-1] &= (1 << (self.granules & 7)) - 1
        done = 0
        while done < len(taken):
            number, inside = divmod(start + done, _PAGE_BYTES)
            part = taken[done : done + _PAGE_BYTES - inside]
            if part != _CLEAN[: len(part)]:
                page = bytearray(self._pages.get(number, _CLEAN))
                page[inside : inside + len(part)] = part
                self._pages[number] = page
            done += len(part)

    def load_ones(self, start: int, length: int) -> None:
        """Take over `length` stored bytes of ones from byte `start` on."""
        self._set(start * 8, min((start + length) * 8, self.granules))


def _set_bits(page: bytearray, first: int, end: int) -> None:
    first_byte, last_byte = first >> 3, (end - 1) >> 3
    head = 0xFF << (first & 7) & 0xFF
    tail = 0xFF >> (7 - (end - 1 & 7))
    if first_byte == last_byte:
        page[first_byte] |= head & tail
        return
    page[first_byte] |= head
    page[last_byte] |= tail
    page[first_byte + 1 : last_byte] = _FULL[: last_byte - first_byte - 1]
