"""The table of image formats, and guessing a format from the first bytes.

Formats are found by name when they are first needed: this package lies below the formats, so it must not
import them (and a command that opens a raw image need not load qcow2).
"""

from __future__ import annotations

import importlib

from e2kdisk.errors import UnsupportedFeature, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from e2kdisk.block.node import Node
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions
else:
    Protocol = object

PROBE_SIZE = 512
"""How much of a file is looked at to guess its format, in bytes: the sector that every magic lies in."""


class Format(Protocol):
    """One image format."""

    name: str

    def probe(self, head: bytes) -> bool:
        """Whether a file that begins with head (up to PROBE_SIZE bytes) is of this format."""

    async def open(self, file: Node, options: OpenOptions, opener: Opener) -> Node:
        """Make the node that translates; it closes file when it is closed. If this raises, the caller closes file."""


FORMATS: dict[str, str] = {
    "qcow2": "e2kdisk.qcow2.format:FORMAT",
    "raw": "e2kdisk.block.raw:FORMAT",
}
"""Name -> "module:attribute". Guessing asks in this order; raw, which fits everything, is last."""

FOREIGN: tuple[tuple[str, int, bytes], ...] = (
    ("qcow", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vhdx", 0, b"vhdxfile"),
    ("vpc", 0, b"conectix"),
    ("vdi", 0x40, b"\x7f\x10\xda\xbe"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("bochs", 0, b"Bochs Virtual HD Image"),
)
"""(name, offset, magic) of formats that other programs recognise and we do not read."""

_loaded: dict[str, Format] = {}


def load_format(name: str) -> Format:
    """Return the format of this name. Raises UsageError that names the known ones."""
    if name not in _loaded:
        if name not in FORMATS:
            raise UsageError(f"unknown image format {name!r}; known are {', '.join(sorted(FORMATS))}")
        module, _, attribute = FORMATS[name].partition(":")
        _loaded[name] = getattr(importlib.import_module(module), attribute)
    return _loaded[name]


def guess_format(head: bytes) -> str:
    """Name what the first bytes look like: a key of FORMATS, or the name of a foreign format; "raw" if nothing else."""
    for name in FORMATS:
        if name != "raw" and load_format(name).probe(head):
            return name
    for name, offset, magic in FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return name
    return "raw"


def probe_format(head: bytes, filename: str) -> str:
    """Guess the format of a file to be opened. Raises UnsupportedFeature for a format that is known but not read."""
    name = guess_format(head)
    if name not in FORMATS:
        what = f"this looks like a {name} image, which is not supported; format=raw gives its bytes as they are"
        raise UnsupportedFeature(filename, "", what)
    return name
