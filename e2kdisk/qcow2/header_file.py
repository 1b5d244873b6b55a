"""The header in the file: read on open; written with everything kept, in one write, durable before it returns."""

from __future__ import annotations

from e2kdisk.block.node import Node
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import Header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


async def read_header(file: Node) -> Header:
    """Read and parse the header of an image. Raises ImageError or OSError; judges no features and no limits."""
    head = bytearray(min(file.size, 1 << layout.MIN_CLUSTER_BITS))
    await file.read(0, [memoryview(head)])
    # The cluster size stands in the part just read; parse() checks it, here it only bounds the second read.
    bits = int.from_bytes(head[20:24], "big")
    if layout.MIN_CLUSTER_BITS < bits <= layout.MAX_CLUSTER_BITS:
        head = bytearray(min(file.size, 1 << bits))
        await file.read(0, [memoryview(head)])
    return Header.parse(file.name, bytes(head))


class HeaderWriter:
    """The one door to the header on disk (reference: qcow2_update_header); the first stage of the write order.

    A switch that failed may have reached the disk all the same: then the old header is written again before
    anything else becomes durable that only it leads to.
    """

    def __init__(self, file: Node, header: Header) -> None:
        self._file = file
        self._header = header
        self._uncertain = False
        """The header in the file may be another one than in memory."""

    @property
    def dirty(self) -> bool:
        """Stage.dirty."""
        return self._uncertain

    async def write_back(self) -> None:
        """Stage.write_back."""
        await self._write()
        self._uncertain = False

    async def switch(self, **fields: Any) -> None:
        """Change header fields, on disk and in memory together, in one durable write.

        What the fields point to must be durable already. On an error the fields have their old values.
        Raises OSError, or ImageError when the header would not fit.
        """
        header = self._header
        old = {name: getattr(header, name) for name in (*fields, "extensions", "backing_file_offset")}
        for name, value in fields.items():
            setattr(header, name, value)
        try:
            header.pack(self._file.name)  # may say that it does not fit: before anything is uncertain
            self._uncertain = True
            await self._write()
            await self._file.flush()
            self._uncertain = False
        except BaseException:
            for name, value in old.items():
                setattr(header, name, value)
            raise

    async def _write(self) -> None:
        """Write the header so that a power cut leaves the old one or the new one.

        Sectors reach the disk one by one. The first one switches; where that is possible, what it needs behind it
        is there before.
        """
        file, header = self._file, self._header
        packed = header.pack(file.name)
        behind = packed[layout.SECTOR_BYTES :]
        there = bytearray(len(behind))
        if behind:
            await file.read(layout.SECTOR_BYTES, [memoryview(there)])
        if there != behind:
            new = header.beside(await read_header(file))
            if new is None:
                await file.write(0, [memoryview(packed)])
                return
            header.extensions, header.backing_file_offset = new.extensions, new.backing_file_offset
            packed = header.pack(file.name)
            behind = packed[header.backing_file_offset :]
            if header.backing_file_offset >= layout.SECTOR_BYTES:
                await file.write(header.backing_file_offset, [memoryview(behind)])
                await file.flush()
        await file.write(0, [memoryview(packed)[: layout.SECTOR_BYTES]])
