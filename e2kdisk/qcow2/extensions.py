"""Header extensions: parsed with bounds, kept verbatim and in order, packed again."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from e2kdisk.errors import ImageError
from e2kdisk.qcow2.layout import EXT_END, EXT_FEATURE_NAMES

_HEAD = struct.Struct(">II")
_FEATURE = struct.Struct(">BB46s")


class Feature:
    """One line of the feature name table (Qcow2Feature)."""

    __slots__ = ("bit", "name", "type")

    def __init__(self, type: int, bit: int, name: str) -> None:
        self.type = type
        """0 incompatible, 1 compatible, 2 autoclear (QCOW2_FEAT_TYPE_*)."""
        self.bit = bit
        self.name = name


FEATURES = (
    Feature(0, 0, "dirty bit"),
    Feature(0, 1, "corrupt bit"),
    Feature(0, 2, "external data file"),
    Feature(0, 3, "compression type"),
    Feature(0, 4, "extended L2 entries"),
    Feature(1, 0, "lazy refcounts"),
    Feature(2, 0, "bitmaps"),
    Feature(2, 1, "raw external data"),
)
"""The names that we write into new images; also how unsupported features are named in errors."""


class Extension:
    """One header extension; unknown ones survive every rewrite (Qcow2UnknownHeaderExtension)."""

    __slots__ = ("data", "type")

    def __init__(self, type: int, data: bytes) -> None:
        self.type = type
        self.data = data


def parse_extensions(file: str, area: bytes, start: int, end: int) -> list[Extension]:
    """The extensions between two offsets of the first cluster.

    `end` is where the backing file name begins, or the end of the cluster. Raises ImageError when one
    reaches beyond it (CVE-2014-0144).
    """
    found: list[Extension] = []
    offset = start
    while offset + _HEAD.size <= end:
        kind, length = _HEAD.unpack_from(area, offset)
        if kind == EXT_END:
            break
        data_start = offset + _HEAD.size
        if length > end - data_start:
            raise ImageError(
                file,
                f"header extension {kind:#010x} (offset {offset:#x})",
                f"length {length} does not fit in the header",
            )
        found.append(Extension(kind, bytes(area[data_start : data_start + length])))
        offset = data_start + ((length + 7) & ~7)
    return found


def pack_extensions(extensions: Iterable[Extension]) -> bytes:
    """The bytes of all extensions with the end marker."""
    parts: list[bytes] = []
    for extension in extensions:
        parts.append(_HEAD.pack(extension.type, len(extension.data)))
        parts.append(extension.data + bytes(-len(extension.data) % 8))
    parts.append(_HEAD.pack(EXT_END, 0))
    return b"".join(parts)


def feature_name_table(features: Iterable[Feature] = FEATURES) -> Extension:
    """The extension that tells other programs the names of feature bits."""
    return Extension(
        EXT_FEATURE_NAMES, b"".join(_FEATURE.pack(item.type, item.bit, item.name.encode("ascii")) for item in features)
    )


def parse_feature_names(data: bytes) -> Iterator[Feature]:
    """The names an image carries; a cut last record is ignored, they are only for messages."""
    for offset in range(0, len(data) - _FEATURE.size + 1, _FEATURE.size):
        kind, bit, name = _FEATURE.unpack_from(data, offset)
        yield Feature(kind, bit, name.split(b"\0", 1)[0].decode("utf-8", "replace"))
