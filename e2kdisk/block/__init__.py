"""Nodes that hold bytes (file, memory, null, raw), the Disk that controllers use, open options and open policy.

The names below are loaded when first used: a command that looks at one header need not load them all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.block.drive import DriveOptions, parse_drive
    from e2kdisk.block.file import FileNode
    from e2kdisk.block.memory import MemoryNode
    from e2kdisk.block.node import Node, ReadOnlyError
    from e2kdisk.block.null import NullNode
    from e2kdisk.block.open import Opener, open_disk
    from e2kdisk.block.options import OpenOptions
    from e2kdisk.block.policy import OpenPolicy
    from e2kdisk.block.raw import RawNode

__all__ = [
    "Disk",
    "DriveOptions",
    "FileNode",
    "MemoryNode",
    "Node",
    "NullNode",
    "OpenOptions",
    "OpenPolicy",
    "Opener",
    "RawNode",
    "ReadOnlyError",
    "open_disk",
    "parse_drive",
]

_MODULES = {
    "Disk": "e2kdisk.block.disk",
    "DriveOptions": "e2kdisk.block.drive",
    "parse_drive": "e2kdisk.block.drive",
    "FileNode": "e2kdisk.block.file",
    "MemoryNode": "e2kdisk.block.memory",
    "Node": "e2kdisk.block.node",
    "ReadOnlyError": "e2kdisk.block.node",
    "NullNode": "e2kdisk.block.null",
    "Opener": "e2kdisk.block.open",
    "open_disk": "e2kdisk.block.open",
    "OpenOptions": "e2kdisk.block.options",
    "OpenPolicy": "e2kdisk.block.policy",
    "RawNode": "e2kdisk.block.raw",
}


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'e2kdisk.block' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
