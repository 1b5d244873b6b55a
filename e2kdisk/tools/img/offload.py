"""Copy offloading (-C): the host copies from file to file, where both sides keep their bytes as they are."""

from __future__ import annotations

import errno

from e2kdisk.block.file import FileNode
from e2kdisk.block.node import Node
from e2kdisk.block.raw import RawNode
from e2kdisk.qcow2.copy_range import copy_from
from e2kdisk.qcow2.geometry import GuestOffset
from e2kdisk.qcow2.image import Qcow2Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEVER = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ETXTBSY, errno.EBADF})
"""Errors which say that the host cannot copy between these two files."""


class CannotOffload(Exception):
    """The bytes must be read and written."""


async def copy_range(source: Node, offset: int, length: int, target: Node, to: int) -> None:
    """Copy length bytes. Raises CannotOffload, OSError, ImageError; after an error any part may have been copied."""
    done = 0
    while done < length:
        file, host, run = await _file_range(source, offset + done, length - done)
        try:
            await _copy(file, host, run, target, to + done)
        except OSError as error:
            if error.errno in NEVER:
                raise CannotOffload from None
            raise
        done += run


async def _copy(file: FileNode, host: int, length: int, target: Node, to: int) -> None:
    if isinstance(target, Qcow2Image) and target.cipher is None and target.file.event is None:
        await copy_from(target, GuestOffset(to), file, host, length)
    elif type(target) is RawNode and isinstance(target.file, FileNode) and to + length <= target.size:
        await target.file.copy_from(file, host, target.offset + to, length)
    else:
        raise CannotOffload


async def _file_range(node: Any, offset: int, length: int) -> tuple[FileNode, int, int]:
    """The file in which bytes of an image lie: (file, offset, length), length bytes at most."""
    while isinstance(node, Qcow2Image):
        status = await node.status(offset, length)
        length = min(length, status.length)
        if not status.allocated and node.backing is not None and offset < node.backing.size:
            length = min(length, node.backing.size - offset)
            node = node.backing
            continue
        if status.host_offset is None or status.zero:
            raise CannotOffload
        node, offset = node.file, status.host_offset
    if isinstance(node, RawNode):
        node, offset = node.file, offset + node.offset
    if not isinstance(node, FileNode) or offset + length > node.size:
        raise CannotOffload
    return node, offset, length
