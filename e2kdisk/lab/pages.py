"""Pages: the content of a file in memory, copy-on-write over a base that many runs share."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from typing import Any

PAGE = 4096
_ZEROS = bytes(PAGE)


class Pages:
    """`size` bytes over an immutable base. A copy costs by the number of pages that differ from the base."""

    __slots__ = ("_base", "_pages", "size")

    def __init__(self, base: bytes | bytearray | memoryview, size: int | None = None) -> None:
        self._base = memoryview(base)
        self._pages: dict[int, bytes] = {}
        self.size = self._base.nbytes if size is None else size

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Pages:
        """The content of a file, mapped and not read; nobody may change the file as long as this lives."""
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return cls(b"")
            return cls(memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)))

    def copy(self) -> Pages:
        """An independent copy."""
        other = Pages(self._base, self.size)
        other._pages = dict(self._pages)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what is not zero: the file that the base may be a view of is not there in another process."""
        pages = ((number, self._page(number)) for number in range(-(-self.size // PAGE)))
        return Pages._of_pages, (self.size, {number: page for number, page in pages if page != _ZEROS})

    @classmethod
    def _of_pages(cls, size: int, pages: dict[int, bytes]) -> Pages:
        base = bytearray(-(-size // PAGE) * PAGE)
        for number, page in pages.items():
            base[number * PAGE : (number + 1) * PAGE] = page
        return cls(base, size)

    @property
    def changed_bytes(self) -> int:
        """Bytes of pages that are not the base's."""
        return PAGE * len(self._pages)

    def digest(self) -> bytes:
        """Equal for equal contents over the same base."""
        digest = hashlib.blake2b(self.size.to_bytes(8, "little"), digest_size=16)
        for number in sorted(self._pages):
            page = self._pages[number]
            if page != self._base_page(number):
                digest.update(number.to_bytes(8, "little") + page)
        return digest.digest()

    def differences(self, other: Pages) -> Iterator[tuple[int, int]]:
        """Begin and end, in bytes, of the pages that differ from those of another copy over the same base."""
        for number in sorted(self._pages.keys() | other._pages.keys()):
            if self._page(number) != other._page(number):
                yield number * PAGE, (number + 1) * PAGE

    def _base_page(self, number: int) -> bytes:
        page = bytes(self._base[number * PAGE : (number + 1) * PAGE])
        return page + _ZEROS[len(page) :]

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        return self._base_page(number) if page is None else page

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """(page number, first byte in it, end in it, place in the request)."""
        done = 0
        while done < length:
            number, first = divmod(offset + done, PAGE)
            end = min(PAGE, first + length - done)
            yield number, first, end, done
            done += end - first

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from offset; what lies past the end reads as zeros."""
        data = bytearray(length)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill a view from offset; what lies past the end reads as zeros."""
        inside = max(0, min(view.nbytes, self.size - offset))
        for number, first, end, at in self._pieces(offset, inside):
            view[at : at + end - first] = self._page(number)[first:end]
        if inside < view.nbytes:
            view[inside:] = bytes(view.nbytes - inside)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Change bytes; the content grows as needed."""
        view = memoryview(data)
        for number, first, end, at in self._pieces(offset, view.nbytes):
            piece = bytes(view[at : at + end - first])
            if len(piece) < PAGE:
                page = self._page(number)
                piece = page[:first] + piece + page[end:]
            self._pages[number] = piece
        self.size = max(self.size, offset + view.nbytes)

    def zero(self, offset: int, length: int) -> None:
        """Make bytes zero; the content grows as needed."""
        for number, first, end, _ in self._pieces(offset, length):
            page = self._page(number)
            self._pages[number] = _ZEROS if end - first == PAGE else page[:first] + bytes(end - first) + page[end:]
        self.size = max(self.size, offset + length)

    def truncate(self, size: int) -> None:
        """Change the size; bytes that come back later are zeros."""
        if size < self.size:
            end = self.size
            self.zero(size, -(-end // PAGE) * PAGE - size)
        self.size = size

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the content to a new file, with holes where there are zeros."""
        with open(path, "wb") as file:
            for number in range(-(-self.size // PAGE)):
                page = self._page(number)[: self.size - number * PAGE]
                if page != _ZEROS[: len(page)]:
                    file.seek(number * PAGE)
                    file.write(page)
            file.truncate(self.size)
