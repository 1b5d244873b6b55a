"""The header in the file: read on open; written with everything kept, in one write, durable before it returns."""

from __future__ import annotations

from typing import Any

from e2kdisk.block.node import Node
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import Header


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
        await self._file.write(0, [memoryview(self._header.pack(self._file.name))])
        self._uncertain = False

    async def switch(self, **fields: Any) -> None:
        """Change header fields, on disk and in memory together, in one durable write.

        What the fields point to must be durable already. On an error the fields have their old values.
        Raises OSError, or ImageError when the header would not fit.
        """
        old = {name: getattr(self._header, name) for name in fields}
        for name, value in fields.items():
            setattr(self._header, name, value)
        try:
            packed = self._header.pack(self._file.name)
            self._uncertain = True
            await self._file.write(0, [memoryview(packed)])
            await self._file.flush()
            self._uncertain = False
        except BaseException:
            for name, value in old.items():
                setattr(self._header, name, value)
            raise
