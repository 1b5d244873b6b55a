"""Writes the header of an open image: everything kept, changed in one write, durable before it returns."""

from __future__ import annotations

from typing import Any

from e2kdisk.block.node import Node
from e2kdisk.qcow2.header import Header


class HeaderWriter:
    """The one door to the header on disk (reference: qcow2_update_header)."""

    def __init__(self, file: Node, header: Header) -> None:
        self._file = file
        self._header = header

    async def switch(self, **fields: Any) -> None:
        """Change header fields, on disk and in memory together, in one durable write.

        What the fields point to must be durable already. On an error the fields have their old values.
        Raises OSError, or ImageError when the header would not fit.
        """
        old = {name: getattr(self._header, name) for name in fields}
        for name, value in fields.items():
            setattr(self._header, name, value)
        try:
            await self._file.write(0, [memoryview(self._header.pack(self._file.name))])
            await self._file.flush()
        except BaseException:
            for name, value in old.items():
                setattr(self._header, name, value)
            raise
