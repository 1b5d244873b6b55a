"""A cache of on-disk tables (L2 slices, refcount blocks) with second-chance eviction and ordered write-back.

Everything here happens under the image's metadata lock, except that readers look at `tables` without it. A
table is valid for its finder until the next await: any await may evict it. Nobody holds a table across an
await; who changes one changes it at once and calls mark_dirty, which refuses a table that is gone. This
replaces the get/put pairs of the reference (qcow2_cache_get, qcow2_cache_put): nothing can be forgotten.

Loads need the lock too, because a load may evict: writing a dirty table is safe only while nobody can link a
new cluster into it between the flush of the refcounts and the write.
"""

from __future__ import annotations

from e2kdisk.block.node import Node
from e2kdisk.qcow2.geometry import HostOffset
from e2kdisk.qcow2.write_order import WriteOrder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, Protocol, TypeVar

    class Entries(Protocol):
        """The decoded contents of a table."""

        def pack(self, first: int, end: int) -> bytes:
            """The on-disk bytes of the byte range first..end of the table: a multiple of 512, or the whole table."""
            ...

    E = TypeVar("E", bound=Entries)
    E_co = TypeVar("E_co", bound=Entries, covariant=True)

    class Codec(Protocol[E_co]):
        """Turns on-disk bytes into entries."""

        def __call__(self, raw: bytearray) -> E_co:
            """Decode; the buffer is the callee's."""
            ...

else:
    E = None

    class Generic:
        """What is left of typing's at run time: to import that takes longer than a short command."""

        __slots__ = ()

        def __class_getitem__(cls, kind: object) -> type:
            return cls


class Table(Generic[E]):
    """One cached table."""

    __slots__ = ("dirty_end", "dirty_first", "entries", "key", "offset", "used")

    def __init__(self, key: int, offset: HostOffset, entries: E) -> None:
        self.key = key
        self.offset = offset
        """Where it lies in the file."""
        self.entries = entries
        self.used = True
        self.dirty_first = 0
        self.dirty_end = 0
        """The byte range that differs from the file; empty when both are equal."""


DIRTY_UNIT = 512
"""Tables are written in whole sectors: a sector is what a disk writes or does not write."""


class TableCache(Generic[E]):
    """Tables of one kind by number (their position in the space they map), at most `limit` of them.

    Reference: qcow2_cache_create and the functions after it. The cache is a stage of the write order; a dirty
    table is evicted only after everything before that stage is durable.
    """

    def __init__(self, file: Node, order: WriteOrder, codec: Codec[E], table_bytes: int, limit: int, name: str) -> None:
        self.tables: dict[int, Table[E]] = {}
        """Resident tables; read-only for others. Lookups on the hot path use it directly."""
        self.table_bytes = table_bytes
        self.limit = max(2, limit)
        self._file = file
        self._order = order
        self._codec = codec
        self._name = name
        self._load_event = f"{name}_load"
        # The name that QEMU has used since it writes the blocks through its cache, in parts.
        self._update_event = "refblock_update_part" if name == "refblock" else f"{name}_update"
        self._dirty: dict[int, Table[E]] = {}

    # -- find -------------------------------------------------------------------------------------

    async def get(self, key: int, offset: HostOffset) -> Table[E]:
        """The table with this number, read from `offset` if it is not resident; valid until the next await."""
        table = self.tables.get(key)
        if table is None:
            await self._make_room()
            raw = bytearray(self.table_bytes)
            if self._file.event is not None:
                await self._file.event(self._load_event)
            await self._file.read(offset, [memoryview(raw)])
            table = self.tables[key] = Table(key, offset, self._codec(raw))
            if self._file.note is not None:
                self._file.note("load", table=self._name, host=int(offset), length=self.table_bytes)
        table.used = True
        return table

    async def insert(self, key: int, offset: HostOffset, raw: bytearray, *, dirty: bool) -> Table[E]:
        """Put a table that has been built in memory under a number (reference: qcow2_cache_get_empty)."""
        await self._make_room()
        table = self.tables[key] = Table(key, offset, self._codec(raw))
        self._dirty.pop(key, None)
        if dirty:
            self.mark_dirty(table, 0, self.table_bytes)
        return table

    def forget(self, key: int) -> None:
        """Drop a table whose place on disk no longer belongs to it; its changes are lost on purpose."""
        self.tables.pop(key, None)
        self._dirty.pop(key, None)

    def reset(self, codec: Codec[E]) -> None:
        """Forget all tables, none of which is dirty; those to come are decoded by codec."""
        assert not self._dirty, "tables were forgotten that had been changed"
        self.tables.clear()
        self._codec = codec

    # -- change -----------------------------------------------------------------------------------

    def mark_dirty(self, table: Table[E], first: int, end: int) -> None:
        """The bytes first..end of the table have been changed (reference: qcow2_cache_entry_mark_dirty)."""
        assert self.tables.get(table.key) is table, "a table was changed after an await had evicted it"
        first &= -DIRTY_UNIT
        end = min((end + DIRTY_UNIT - 1) & -DIRTY_UNIT, self.table_bytes)
        if table.dirty_first == table.dirty_end:
            table.dirty_first, table.dirty_end = first, end
            self._dirty[table.key] = table
        else:
            table.dirty_first = min(table.dirty_first, first)
            table.dirty_end = max(table.dirty_end, end)

    # -- write ------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Stage.dirty."""
        return bool(self._dirty)

    async def write_back(self) -> None:
        """Stage.write_back: in file order, neighbours in one call."""
        tables = sorted(self._dirty.values(), key=lambda table: table.offset)
        index = 0
        while index < len(tables):
            batch = [tables[index]]
            index += 1
            while index < len(tables) and _joins(batch[-1], tables[index]):
                batch.append(tables[index])
                index += 1
            await self._write(batch)

    async def _write(self, batch: list[Table[E]]) -> None:
        ranges = [(table, table.dirty_first, table.dirty_end) for table in batch]
        pieces = [memoryview(table.entries.pack(first, end)) for table, first, end in ranges]
        for table in batch:
            table.dirty_first = table.dirty_end = 0
            self._dirty.pop(table.key, None)
        try:
            if self._file.event is not None:
                await self._file.event(self._update_event)
            if self._file.note is not None:
                length = sum(piece.nbytes for piece in pieces)
                self._file.note("update", table=self._name, host=batch[0].offset + ranges[0][1], length=length)
            await self._file.write(batch[0].offset + ranges[0][1], pieces)
        except BaseException:
            for table, first, end in ranges:
                self.mark_dirty(table, first, end)
            raise

    async def _make_room(self) -> None:
        while len(self.tables) >= self.limit:
            victim = self._choose_victim()
            if victim.dirty_first != victim.dirty_end:
                await self._order.flush(before=self)
                if victim.dirty_first != victim.dirty_end:
                    self._order.note_unsynced()
                    await self._write([victim])
            if self.tables.get(victim.key) is victim and victim.dirty_first == victim.dirty_end:
                del self.tables[victim.key]

    def _choose_victim(self) -> Table[E]:
        """Second chance: the oldest table that nobody has used since the hand last passed it."""
        tables = self.tables
        while True:
            key = next(iter(tables))
            table = tables[key]
            if not table.used:
                return table
            table.used = False
            # Reinserting moves it behind the others: the dict's order is the clock's ring.
            del tables[key]
            tables[key] = table


def _joins(first: Table[E], second: Table[E]) -> bool:
    return first.offset + first.dirty_end == second.offset + second.dirty_first
