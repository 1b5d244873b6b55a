"""Persistent dirty bitmaps of one open image: loaded on open, kept up by every write, stored on close.

While an image is open for writing, all its bitmaps are marked in use in the file: a crash leaves the mark, and whoever
opens the image then knows that the stored bits are older than the data. Such a bitmap can only be removed.

    open        directory: in use, durable          before the first write of guest data
    write       bits in memory                      after the data: a clear() in between must not win
    close       new data and tables, refcounts      durable, nothing points there yet
                new directory, without the mark     one write of the header switches to it
                old directory, tables and data      released

Reference: the specification's "Bitmaps"; what is refused is what QEMU refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.bitmap_directory import (
    AUTO,
    IN_USE,
    MAX_BITMAP_BYTES,
    MAX_BITMAPS,
    MAX_DIRECTORY_BYTES,
    MAX_GRANULARITY_BITS,
    MAX_NAME_BYTES,
    MIN_GRANULARITY_BITS,
    BitmapEntry,
    BitmapsExtension,
    encode_name,
    is_stale,
    pack_directory,
    read_directory,
    read_extension,
)
from e2kdisk.qcow2.bitmap_table import read_bits, table_areas, table_length, write_bits
from e2kdisk.qcow2.dirty_bits import DirtyBits
from e2kdisk.qcow2.geometry import HostOffset
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.new_table import write_new
from e2kdisk.qcow2.overlap import OverlapGuard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image

MIN_DEFAULT_GRANULARITY = 4096
MAX_DEFAULT_GRANULARITY = 65536


class Bitmap:
    """One bitmap."""

    __slots__ = ("bits", "enabled", "entry", "inconsistent", "name")

    def __init__(
        self,
        name: str,
        bits: DirtyBits,
        enabled: bool,
        inconsistent: bool = False,
        entry: BitmapEntry | None = None,
    ) -> None:
        self.name = name
        self.bits = bits
        self.enabled = enabled
        """Every write to the disk is marked; stored as the flag `auto`."""
        self.inconsistent = inconsistent
        """It was not stored when the image was last closed: nobody knows its bits."""
        self.entry = entry
        """What the directory in the file says of it; None before it is stored for the first time."""

    @property
    def granularity(self) -> int:
        """Bytes of the disk that one bit stands for."""
        return 1 << self.bits.granularity_bits


class Bitmaps:
    """The persistent bitmaps of one open image, in the order of the directory."""

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image
        self._items: list[Bitmap] = []
        self._directory: BitmapsExtension | None = None
        self.stale = False
        """On open, the header named bitmaps that somebody had not kept up: they are gone."""

    def __iter__(self) -> Iterator[Bitmap]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def find(self, name: str) -> Bitmap:
        """The bitmap with a name. Raises ImageError."""
        for item in self._items:
            if item.name == name:
                return item
        raise self._error(name, f"Dirty bitmap '{name}' not found")

    def need_consistent(self) -> None:
        """Raise ImageError if there is a bitmap whose bits nobody knows."""
        for item in self._items:
            self._usable(item)

    def _usable(self, item: Bitmap) -> Bitmap:
        if item.inconsistent:
            raise self._error(item.name, f"Bitmap '{item.name}' is inconsistent and cannot be used")
        return item

    def _error(self, name: str, what: str) -> ImageError:
        return ImageError(self._image.name, f"bitmap '{name}'", what)

    # -- open -------------------------------------------------------------------------------------

    async def load(self, header: Header) -> None:
        """Read the directory and all bits that can be used. Raises ImageError for what makes no sense, OSError.

        `header` is the image's, with the size of the disk as it is now.
        """
        file = self._image.file
        self.stale = is_stale(header)
        self._directory = read_extension(file.name, header)
        for entry in await read_directory(file, header):
            bits = None if entry.in_use else await read_bits(file, header, entry)
            item = Bitmap(
                name=entry.name,
                bits=bits or DirtyBits(header.size, entry.granularity_bits),
                enabled=bool(entry.flags & AUTO),
                inconsistent=bits is None,
                entry=entry,
            )
            self._items.append(item)
        self._track()

    def guard_structures(self, guard: OverlapGuard) -> None:
        """Tell the overlap guard where the directory lies. Raises ImageError if something else lies there."""
        if self._directory is None:
            return
        offset, length = self._directory.directory_offset, self._directory.directory_bytes
        kind = guard.hit(offset, length)
        if kind not in (None, "bitmap directory"):
            raise ImageError(self._image.name, f"bitmap directory (offset {offset:#x})", f"the {kind} lies there")
        guard.add("bitmap directory", offset, length)

    async def claim(self) -> None:
        """Mark all bitmaps as in use, durably: from now on what is stored is not what they are.

        Nothing but flags changes, each within a sector of the disk, so a crash leaves some marked and some not; all
        agree with the disk, which nobody has written to yet.
        """
        if any(item.entry is not None and not item.entry.in_use for item in self._items):
            await self._write_flags([_flagged(item, item.entry.flags | IN_USE) for item in self._items if item.entry])
            await self._image.file.flush()

    async def _write_flags(self, entries: list[BitmapEntry]) -> None:
        assert self._directory is not None
        await self._image.file.write(self._directory.directory_offset, [memoryview(pack_directory(entries))])
        for item, entry in zip(self._items, entries, strict=True):
            item.entry = entry

    def _track(self) -> None:
        self._image.tracked = tuple(item.bits for item in self._items if item.enabled and not item.inconsistent)

    # -- change -----------------------------------------------------------------------------------

    def add(self, name: str, granularity: int | None = None, *, enabled: bool = True) -> Bitmap:
        """A new bitmap with no dirty bytes; it is in the file when the image has been closed.

        granularity: bytes, a power of two; None: the cluster size, but from 4 KiB to 64 KiB. Raises ImageError.
        """
        image = self._image
        image.need_write_access()
        if granularity is None:
            granularity = max(MIN_DEFAULT_GRANULARITY, min(image.geometry.cluster_size, MAX_DEFAULT_GRANULARITY))
        bits = granularity.bit_length() - 1
        if not name:
            raise self._error(name, "Bitmap name cannot be empty")
        if granularity != 1 << bits or not MIN_GRANULARITY_BITS <= bits <= MAX_GRANULARITY_BITS:
            raise self._error(name, "Granularity must be power of 2 and at least 512")
        item = Bitmap(name, DirtyBits(image.size, bits), enabled)
        self._need_room(item)
        if any(other.name == name for other in self._items):
            raise self._error(name, f"Bitmap already exists: {name}")
        self._items.append(item)
        self._track()
        return item

    def _need_room(self, new: Bitmap) -> None:
        image = self._image
        stored = table_length(new.bits, image.geometry) << image.geometry.cluster_bits
        names = [item.name for item in (*self._items, new)]
        directory = sum(len(BitmapEntry(name, 0, 0, 0, 0).pack()) for name in names)
        rules = (
            (not image.size, "the disk has no bytes"),  # a table without an entry is one that nobody reads again
            (image.header.version < 3, "Cannot store dirty bitmaps in qcow2 v2 files"),
            (stored > MAX_BITMAP_BYTES, "Too much space will be occupied by the bitmap. Use larger granularity"),
            (
                len(encode_name(new.name)) > MAX_NAME_BYTES,
                f"Name length exceeds maximum ({MAX_NAME_BYTES} characters)",
            ),
            (len(names) > MAX_BITMAPS, "Maximum number of persistent bitmaps is already reached"),
            (directory > MAX_DIRECTORY_BYTES, "Not enough space in the bitmap directory"),
        )
        for wrong, what in rules:
            if wrong:
                raise self._error(new.name, f"Can't make bitmap '{new.name}' persistent in '{image.name}': {what}")

    def clear(self, name: str) -> None:
        """Nothing is dirty any more. Raises ImageError."""
        self._image.need_write_access()
        self._usable(self.find(name)).bits.clear()

    def enable(self, name: str, *, enabled: bool = True) -> None:
        """Mark every write from now on; or, not enabled, none. Raises ImageError."""
        self._image.need_write_access()
        self._usable(self.find(name)).enabled = enabled
        self._track()

    def merge(self, name: str, source: Bitmap) -> None:
        """Make dirty what is dirty in another bitmap, of this or another image of the same size. Raises ImageError."""
        self._image.need_write_access()
        bits = self._usable(self.find(name)).bits
        others = self._usable(source).bits
        if others.size != bits.size:
            sizes = f"destination size is {bits.size}, source size is {others.size}"
            raise self._error(name, f"Bitmaps are of different sizes ({sizes}) and can't be merged")
        if others is not bits:
            bits.merge(others)

    def resize(self, size: int) -> None:
        """The disk has another size: what is new is clean."""
        for item in self._items:
            item.bits.resize(size)

    def withdraw(self, name: str) -> None:
        """Forget a bitmap that has been added since the image was opened. Raises ImageError."""
        item = self.find(name)
        if item.entry is not None:
            raise self._error(name, f"Bitmap '{name}' is stored in the image already")
        self._items.remove(item)
        self._track()

    async def remove(self, name: str) -> None:
        """Forget a bitmap, in the file too; one that nobody can use may be removed. Raises ImageError, OSError."""
        self._image.need_write_access()
        if self.find(name).entry is None:
            self.withdraw(name)
            return
        async with self._image.lock:
            item = self.find(name)  # again: somebody may have removed it meanwhile
            assert item.entry is not None
            released = await self._areas_of([item.entry])
            kept = [other.entry for other in self._items if other.entry is not None and other is not item]
            old = await self._switch(kept, [])
            self._items.remove(item)
            self._track()
            await self._release(old + released)

    # -- close ------------------------------------------------------------------------------------

    async def store(self) -> None:
        """Bring all bitmaps into the file and take the mark away; under the metadata lock, with no write on its way.

        The caller makes the last step durable. Raises OSError or ImageError; then the file's bitmaps are as they were,
        marked in use.
        """
        if not self._items:
            return
        if all(item.entry is not None and not item.bits.changed for item in self._items):
            await self._write_flags([_flagged(item, _stored_flags(item)) for item in self._items])
            return
        replaced = [item.entry for item in self._items if item.entry is not None and item.bits.changed]
        released = await self._areas_of(replaced)
        made: list[tuple[HostOffset, int]] = []
        try:
            entries = [await self._stored_entry(item, made) for item in self._items]
        except BaseException:
            await self._abandon(made)
            raise
        old = await self._switch(entries, made)
        for item, entry in zip(self._items, entries, strict=True):
            item.entry = entry
            item.bits.changed = False
        await self._release(old + released)

    async def _stored_entry(self, item: Bitmap, made: list[tuple[HostOffset, int]]) -> BitmapEntry:
        if item.entry is not None and not item.bits.changed:
            return _flagged(item, _stored_flags(item))
        offset = await write_bits(self._image, item.bits, made)
        return BitmapEntry(
            stored_name=item.name,
            table_offset=offset,
            table_entries=table_length(item.bits, self._image.geometry),
            flags=_stored_flags(item),
            granularity_bits=item.bits.granularity_bits,
            extra_data=b"" if item.entry is None else item.entry.extra_data,
        )

    async def _switch(
        self, entries: list[BitmapEntry], made: list[tuple[HostOffset, int]]
    ) -> list[tuple[HostOffset, int]]:
        """Write a new directory and make the header name it; returns where the old one lay, (offset, bytes).

        Before the header is written, an error gives back what is in `made`. If that write itself fails, nobody knows
        which directory it names: everything stays allocated, one of the two leaks.
        """
        image = self._image
        extension: BitmapsExtension | None = None
        data = pack_directory(entries)
        try:
            if entries:
                offset = await write_new(image, data)
                made.append((offset, image.geometry.clusters(len(data))))
                extension = BitmapsExtension(len(entries), len(data), offset)
            # Tables, data, and the counts of all of it: durable before anything leads there.
            await image.order.flush()
        except BaseException:
            await self._abandon(made)
            raise
        features = image.header.autoclear_features & ~layout.AUTOCLEAR_BITMAPS
        await image.writer.switch(
            autoclear_features=features | (layout.AUTOCLEAR_BITMAPS if extension else 0),
            extensions=image.header.with_extension(layout.EXT_BITMAPS, extension.pack() if extension else None),
        )
        old, self._directory = self._directory, extension
        if old is not None:
            image.guard.remove(old.directory_offset, old.directory_bytes)
        self.guard_structures(image.guard)
        return [] if old is None else [(HostOffset(old.directory_offset), old.directory_bytes)]

    async def _areas_of(self, entries: list[BitmapEntry]) -> list[tuple[HostOffset, int]]:
        """Where the tables and data of bitmaps lie, (offset, bytes), as far as they make sense."""
        image = self._image
        found: list[tuple[HostOffset, int]] = []
        for entry in entries:
            async for _, offset, length in table_areas(image.file, image.geometry, entry):
                if length and offset + length <= image.geometry.round_up(image.file.size):
                    found.append((HostOffset(offset), length))
        return found

    async def _release(self, areas: list[tuple[HostOffset, int]]) -> None:
        for offset, length in areas:
            await self._image.refcounts.release(offset, length)

    async def _abandon(self, made: list[tuple[HostOffset, int]]) -> None:
        for offset, clusters in made:
            await self._image.refcounts.abandon(offset, clusters)


def _flagged(item: Bitmap, flags: int) -> BitmapEntry:
    assert item.entry is not None
    return item.entry.with_flags(flags)


def _stored_flags(item: Bitmap) -> int:
    """The flags of a bitmap that is stored: what is unknown of an inconsistent one stays so."""
    if item.inconsistent:
        return (item.entry.flags if item.entry is not None else 0) | IN_USE
    others = item.entry.flags & ~(AUTO | IN_USE) if item.entry is not None else 0
    return others | (AUTO if item.enabled else 0)
