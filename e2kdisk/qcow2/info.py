"""What an image says of itself, without opening its chain or believing its features."""

from __future__ import annotations

import os
from typing import NamedTuple

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.file import FileNode
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import COMPRESSION_TYPES, CRYPT_METHODS, Header
from e2kdisk.qcow2.header_file import read_header


class ImageInfo(NamedTuple):
    """The facts of one qcow2 file."""

    filename: str
    virtual_size: int
    """Bytes of the guest's disk."""
    file_size: int
    """Length of the file, bytes."""
    disk_size: int
    """Bytes that the file takes on the host's disk."""
    header: Header

    @property
    def compat(self) -> str:
        """The version as qemu-img names it."""
        return "1.1" if self.header.version >= 3 else "0.10"

    @property
    def cluster_size(self) -> int:
        """Bytes."""
        return 1 << self.header.cluster_bits

    @property
    def compression(self) -> str:
        """Name of the compression type."""
        return COMPRESSION_TYPES.get(self.header.compression_type, str(self.header.compression_type))

    @property
    def encryption(self) -> str | None:
        """Name of the encryption method, None without."""
        method = self.header.crypt_method
        return CRYPT_METHODS.get(method, str(method)) if method else None

    @property
    def dirty(self) -> bool:
        """The refcounts may be out of date (lazy refcounts, not closed)."""
        return bool(self.header.incompatible_features & layout.INCOMPAT_DIRTY)

    @property
    def corrupt(self) -> bool:
        """Somebody found the metadata broken."""
        return bool(self.header.incompatible_features & layout.INCOMPAT_CORRUPT)


def info(filename: str | os.PathLike[str], *, force_share: bool = False) -> ImageInfo:
    """Read an image's header. Raises ImageError or OSError; unsupported features are reported, not refused.

    force_share reads an image that somebody else is writing.
    """
    path = os.fspath(filename)
    scheduler = Scheduler()
    engine = AutoEngine(scheduler)
    try:
        return scheduler.run(_info(path, engine, force_share))
    finally:
        engine.close()


async def _info(path: str, engine: AutoEngine, force_share: bool) -> ImageInfo:
    file = await FileNode.open(path, engine, read_only=True, force_share=force_share)
    try:
        header = await read_header(file)
        return ImageInfo(path, header.size, file.size, os.stat(path).st_blocks * 512, header)
    finally:
        await file.close()
