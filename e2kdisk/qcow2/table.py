"""A table that is always in memory (L1 table, refcount table) and is written back by dirty sectors."""

from __future__ import annotations

from array import array

from e2kdisk.block.node import Node
from e2kdisk.qcow2.entries import Entries64, pack64
from e2kdisk.qcow2.geometry import HostOffset

_ENTRIES_PER_SECTOR = 64


class ResidentTable:
    """64-bit entries at one place of the file; a stage of the write order."""

    def __init__(self, file: Node, offset: HostOffset, values: array[int], name: str) -> None:
        self._file = file
        self._name = name
        self._update_event = f"{name}_update"
        self.offset = offset
        self.values = values
        """The entries; change them with `set` only."""
        self._dirty_sectors: set[int] = set()

    @classmethod
    async def read(cls, file: Node, offset: HostOffset, entries: int, name: str) -> ResidentTable:
        """Read a table whose bounds have been checked; `name` is that of its events (l1, reftable)."""
        raw = bytearray(entries * 8)
        if entries:
            if file.event is not None and name == "reftable":
                await file.event("reftable_load")
            await file.read(offset, [memoryview(raw)])
            if file.note is not None:
                file.note("load", table=name, host=int(offset), length=len(raw))
        return cls(file, offset, Entries64(raw).values, name)

    def set(self, index: int, value: int) -> None:
        """Change one entry."""
        self.values[index] = value
        self._dirty_sectors.add(index // _ENTRIES_PER_SECTOR)

    def move(self, offset: HostOffset, values: array[int]) -> None:
        """The table lies elsewhere now, already written there as a whole."""
        self.offset = offset
        self.values = values
        self._dirty_sectors.clear()

    @property
    def dirty(self) -> bool:
        """Stage.dirty."""
        return bool(self._dirty_sectors)

    async def write_back(self) -> None:
        """Stage.write_back."""
        for sector in sorted(self._dirty_sectors):
            first = sector * _ENTRIES_PER_SECTOR
            self._dirty_sectors.discard(sector)
            try:
                if self._file.event is not None:
                    await self._file.event(self._update_event)
                data = pack64(self.values[first : first + _ENTRIES_PER_SECTOR])
                if self._file.note is not None:
                    self._file.note("update", table=self._name, host=self.offset + first * 8, length=len(data))
                await self._file.write(self.offset + first * 8, [memoryview(data)])
            except BaseException:
                self._dirty_sectors.add(sector)
                raise
