"""Device trees, written as nested dictionaries: a dictionary is a node, anything else a property."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Value = int | str | bytes | None | Sequence[int] | Sequence[str]
Tree = Mapping[str, Any]
"""Property: int or list of int (cells of 32 bits), str or list of str, bytes, None (present, without a value)."""


def cells(*values: int) -> list[int]:
    """Pairs of cells for 64-bit numbers."""
    return [half for value in values for half in (value >> 32, value & 0xFFFF_FFFF)]


def blob(tree: Tree, room: int) -> bytes:
    """The flattened device tree, padded so that firmware has room to add to it."""
    import fdt

    def node(name: str, content: Tree) -> Any:
        made = fdt.Node(name)
        for key, value in content.items():
            made.append(node(key, value) if isinstance(value, Mapping) else _property(key, value))
        return made

    document = fdt.FDT()
    document.root = node("/", tree)
    data: bytes = document.to_dtb(version=17)
    if len(data) > room:
        raise ValueError(f"the device tree needs {len(data)} bytes, there are {room}")
    # The size in the header (its second word) says how much may be used.
    return data[:4] + room.to_bytes(4, "big") + data[8:] + bytes(room - len(data))


def _property(name: str, value: Value) -> Any:
    import fdt

    if value is None:
        return fdt.Property(name)
    if isinstance(value, bytes):
        return fdt.PropBytes(name, data=value)
    items: list[Any] = [value] if isinstance(value, (int, str)) else list(value)
    kind = fdt.PropWords if isinstance(items[0], int) else fdt.PropStrings
    return kind(name, *items)
