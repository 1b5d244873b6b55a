"""Nodes that hold bytes (file, memory, null, raw), the Disk that controllers use, open options and open policy."""

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
