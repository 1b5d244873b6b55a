"""qcow2 in the table of formats: recognise an image, judge its header, open it with its backing file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from e2kdisk.block.node import Node
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.image import Qcow2Image
from e2kdisk.qcow2.mapping import DEFAULT_L2_CACHE_BYTES

if TYPE_CHECKING:
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions

_MAGIC = struct.pack(">I", layout.MAGIC)
_EXTRAS = {"l2_cache_size": DEFAULT_L2_CACHE_BYTES}


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


class Qcow2Format:
    """The entry in the table of formats."""

    name = "qcow2"

    def probe(self, head: bytes) -> bool:
        """Format.probe: magic, and a version that is not qcow (1)."""
        return head[:4] == _MAGIC and int.from_bytes(head[4:8], "big") >= 2

    async def open(self, file: Node, options: OpenOptions, opener: Opener) -> Node:
        """Format.open; extras: l2_cache_size in bytes."""
        extras = options.take_extras(_EXTRAS)
        header = await read_header(file)
        header.check_features(file.name, writing=not file.read_only)
        header.check_limits(file.name, file.size)
        backing = await opener.open_backing(options, header.backing_file or "", header.backing_format)
        try:
            return await Qcow2Image.open(file, header, backing, l2_cache_bytes=extras["l2_cache_size"])
        except BaseException:
            if backing is not None:
                await backing.close()
            raise


FORMAT = Qcow2Format()
