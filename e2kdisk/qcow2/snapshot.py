"""Internal snapshots: create, apply, delete, list; each step leaves the image valid if the next never comes.

A snapshot is an L1 table of its own; its L2 tables and clusters are shared with the active one by refcounts.
Flags (COPIED) and counts lie in different places of the file, so between changing one and the other an image
is marked dirty (version 3), and the repair on the next open puts the flags right. Without the mark (version
2) such a crash leaves flags that are missing: harmless, a write copies once more than needed.

Reference: the functions of qcow2-snapshot.c.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import pack64
from e2kdisk.qcow2.geometry import HostOffset
from e2kdisk.qcow2.new_table import write_new
from e2kdisk.qcow2.overlap import OverlapGuard
from e2kdisk.qcow2.references import add_references, clear_copied, drop_references, read_entries, refresh_copied
from e2kdisk.qcow2.snapshot_table import (
    MAX_TABLE_BYTES,
    REQUIRED_EXTRA_BYTES,
    Snapshot,
    find_snapshot,
    pack_snapshots,
    read_snapshots,
)
from e2kdisk.qcow2.vm_state import discard_vm_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


class Snapshots:
    """The snapshots of one open image."""

    def __init__(self, image: Qcow2Image) -> None:
        self._image = image
        self._entries: list[Snapshot] = []
        self._table_bytes = 0
        self.unsettled = False
        """An operation failed between counts and flags: flags may be missing, which close() puts right."""

    async def load(self) -> None:
        """Read the table (reference: qcow2_read_snapshots). Raises ImageError when it is broken."""
        self._entries, self._table_bytes = await read_snapshots(self._image.file, self._image.header)

    async def guard_structures(self, guard: OverlapGuard) -> None:
        """Tell the overlap guard where the snapshot table and the snapshots' tables lie."""
        image = self._image
        guard.add("snapshot table", image.header.snapshots_offset, self._table_bytes)
        for snapshot in self._entries:
            guard.add("inactive L1 table", snapshot.l1_table_offset, snapshot.l1_size * 8)
            if not guard.guards("inactive L2 table"):
                continue
            for entry in await read_entries(image, snapshot.l1_table_offset, snapshot.l1_size):
                if entry & layout.OFFSET_MASK:
                    guard.add("inactive L2 table", entry & layout.OFFSET_MASK, image.geometry.cluster_size)

    def all(self) -> list[Snapshot]:
        """All snapshots in the order of the table (reference: qcow2_snapshot_list)."""
        return list(self._entries)

    def find(self, name: str) -> Snapshot:
        """The snapshot with this id, else the first with this name. Raises ImageError."""
        return find_snapshot(self._image.name, self._entries, name)

    # -- create -----------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        *,
        vm_state_size: int = 0,
        date_ns: int | None = None,
        vm_clock_ns: int = 0,
        icount: int = (1 << 64) - 1,
    ) -> Snapshot:
        """Take a snapshot of the disk, and of vm_state_size bytes in the VM state area (qcow2_snapshot_create).

        Ids count upwards; names may repeat. Raises ImageError or OSError; the image is as before then.
        """
        image = self._image
        image.need_write_access()
        if len(self._entries) >= layout.MAX_SNAPSHOTS:
            raise ImageError(image.name, "snapshot table", "has 65536 snapshots already, the most an image can have")
        now = time.time_ns() if date_ns is None else date_ns
        async with self._changing():
            await image.flush_metadata()
            self.unsettled = True
            await self._set_dirty(True)
            values = array("Q", [entry & ~layout.COPIED for entry in image.mapping.l1.values])
            sizes = (vm_state_size, image.size, icount)
            snapshot = Snapshot(
                id=str(max((int(item.id) for item in self._entries if item.id.isdecimal()), default=0) + 1),
                name=name,
                l1_table_offset=0,
                l1_size=len(values),
                disk_size=image.size,
                vm_state_size=vm_state_size,
                date_sec=now // 10**9,
                date_nsec=now % 10**9,
                vm_clock_nsec=vm_clock_ns,
                extra_data=b"".join(value.to_bytes(8, "big") for value in sizes),
            )
            entries = [*self._entries, snapshot]
            try:
                # Flags first: once they are gone, a count of two is what every write expects.
                await clear_copied(image)
                await image.order.flush()
                await add_references(image, values)
                try:
                    snapshot.l1_table_offset = await write_new(image, pack64(values))
                    table_offset, table_bytes = await self._write_table(entries)
                except BaseException:
                    await drop_references(image, values)
                    raise
            except BaseException:
                # If even this fails, the dirty bit (or missing flags, in version 2) stay behind: harmless.
                with suppress(OSError, ImageError):
                    await self.settle()
                raise
            await self._switch_table(entries, table_offset, table_bytes)
            await self._set_dirty(False)
            self.unsettled = False
            await image.flush_metadata()
        if vm_state_size:
            await discard_vm_state(image, vm_state_size)
        return snapshot

    # -- apply ------------------------------------------------------------------------------------

    async def apply(self, name: str) -> None:
        """Make the disk what it was in a snapshot, size included (reference: qcow2_snapshot_goto).

        One write of the header switches. Raises ImageError or OSError; the disk is as before then.
        """
        image = self._image
        image.need_write_access()
        if image.bitmaps:
            # The whole disk changes, and no bitmap would tell.
            raise ImageError(image.name, "bitmaps", "Device has active dirty bitmaps")
        async with self._changing():
            snapshot = self.find(name)
            if snapshot.disk_size != image.size and image.header.version < 3:
                raise ImageError(image.name, f"snapshot {name!r}", "has another disk size; version 2 cannot apply it")
            await image.flush_metadata()
            old = image.mapping.l1.values
            old_offset = image.mapping.l1.offset
            values = await self._snapshot_l1(snapshot)
            await add_references(image, values)
            try:
                offset = await write_new(image, pack64(values))
                await image.order.flush()
            except BaseException:
                await drop_references(image, values)
                raise
            self.unsettled = True
            await image.writer.switch(
                l1_table_offset=offset,
                l1_size=len(values),
                size=snapshot.disk_size,
                incompatible_features=image.header.incompatible_features | self._dirty_bit(),
            )
            image.mapping.switch_l1(HostOffset(offset), values)
            image.size = snapshot.disk_size
            await drop_references(image, old)
            await image.refcounts.release(HostOffset(old_offset), max(len(old) * 8, 1))
            await self.settle()

    # -- delete -----------------------------------------------------------------------------------

    async def delete(self, name: str) -> None:
        """Remove a snapshot: from the table first, then its references (reference: qcow2_snapshot_delete)."""
        image = self._image
        image.need_write_access()
        async with self._changing():
            snapshot = self.find(name)
            await image.flush_metadata()
            # Read before the table forgets where it is; an L1 table that makes no sense is found out here.
            values = await self._snapshot_l1(snapshot)
            entries = [item for item in self._entries if item is not snapshot]
            table_offset, table_bytes = await self._write_table(entries)
            self.unsettled = True
            await self._switch_table(entries, table_offset, table_bytes, dirty=True)
            await drop_references(image, values)
            await image.refcounts.release(HostOffset(snapshot.l1_table_offset), max(snapshot.l1_size * 8, 1))
            await self.settle()

    # -- parts ------------------------------------------------------------------------------------

    async def _snapshot_l1(self, snapshot: Snapshot) -> array[int]:
        """A snapshot's L1 table, as long as its disk needs; its length is its own, never the active table's."""
        image = self._image
        values = await read_entries(image, snapshot.l1_table_offset, snapshot.l1_size)
        needed = image.geometry.l1_entries(snapshot.disk_size)
        if len(values) < needed:
            where = f"L1 table of snapshot {snapshot.id}"
            raise ImageError(image.name, where, f"{len(values)} entries are too few for {snapshot.disk_size} bytes")
        return array("Q", [entry & ~layout.COPIED for entry in values])

    async def _write_table(self, entries: list[Snapshot]) -> tuple[int, int]:
        """Write a snapshot table to new clusters, durable with all counts; returns (offset, bytes)."""
        image = self._image
        data = pack_snapshots(entries)
        if len(data) > MAX_TABLE_BYTES:
            raise ImageError(image.name, "snapshot table", "would be longer than 64 MiB")
        offset = await write_new(image, data) if entries else 0
        await image.order.flush()
        return offset, len(data)

    async def _switch_table(self, entries: list[Snapshot], offset: int, length: int, *, dirty: bool = False) -> None:
        """Make the header name a table that is durable; then the old one's space is released.

        If the write of the header fails, nobody knows which table it names: all stays allocated, one leaks.
        """
        image = self._image
        old_offset, old_bytes = image.header.snapshots_offset, self._table_bytes
        features = image.header.incompatible_features | (self._dirty_bit() if dirty else 0)
        await image.writer.switch(nb_snapshots=len(entries), snapshots_offset=offset, incompatible_features=features)
        self._entries = entries
        self._table_bytes = length
        if old_bytes:
            await image.refcounts.release(HostOffset(old_offset), old_bytes)

    async def complete_entries(self) -> None:
        """Give every entry the disk size and the 64-bit VM state size that version 3 asks for; under exclusive()."""
        if all(len(item.extra_data) >= REQUIRED_EXTRA_BYTES for item in self._entries):
            return
        table_offset, table_bytes = await self._write_table(self._entries)
        await self._switch_table(self._entries, table_offset, table_bytes)
        await self._image.guard_structures()

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Exclusive; and whatever happens, the overlap guard knows afterwards what lies where."""
        async with self._image.exclusive():
            try:
                yield
            finally:
                await self._image.guard_structures()

    async def settle(self) -> None:
        """After references went away: counts durable, then the flags that follow from them, then clean.

        Needs the metadata lock and no write on its way.
        """
        image = self._image
        await image.order.flush()
        await refresh_copied(image)
        await image.flush_metadata()
        await self._set_dirty(False)
        self.unsettled = False

    def _dirty_bit(self) -> int:
        return layout.INCOMPAT_DIRTY if self._image.header.version >= 3 else 0

    async def _set_dirty(self, dirty: bool) -> None:
        image = self._image
        if image.header.version < 3:
            return
        if image.order.lazy:
            if dirty:
                await image.refcounts.mark_dirty()
            return  # the bit stays until close
        features = image.header.incompatible_features & ~layout.INCOMPAT_DIRTY
        if dirty:
            features |= layout.INCOMPAT_DIRTY
        if features != image.header.incompatible_features:
            await image.writer.switch(incompatible_features=features)
