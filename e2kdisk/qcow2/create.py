"""Make a new image: header, refcount structures and an empty L1 table, in the order that survives a crash."""

from __future__ import annotations

import os
from array import array

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.file import FileNode
from e2kdisk.block.node import Node, zero_iov
from e2kdisk.block.open import open_disk
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.entries import decode_refcounts, pack64
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.header import Header


class CreateOptions:
    """What a new image looks like; defaults as qemu-img has them."""

    def __init__(
        self,
        size: int,
        version: int = 3,
        cluster_size: int = layout.DEFAULT_CLUSTER_BYTES,
        refcount_bits: int = 16,
        backing_file: str | None = None,
        backing_format: str | None = None,
        lazy_refcounts: bool = False,
        encrypted: bool = False,
    ) -> None:
        self.size = size
        """Virtual disk size, bytes; rounded up to 512."""
        self.version = version
        self.cluster_size = cluster_size
        self.refcount_bits = refcount_bits
        self.backing_file = backing_file
        """Stored as it is; relative names are relative to the new image."""
        self.backing_format = backing_format
        self.lazy_refcounts = lazy_refcounts
        self.encrypted = encrypted
        """Legacy AES; the password is needed only to open the image."""

    def header(self) -> Header:
        """The header without table positions. Raises UsageError naming the option that is wrong."""
        cluster_bits = self.cluster_size.bit_length() - 1
        if (
            self.cluster_size != 1 << cluster_bits
            or not layout.MIN_CLUSTER_BITS <= cluster_bits <= layout.MAX_CLUSTER_BITS
        ):
            raise UsageError(f"cluster_size {self.cluster_size} is not a power of two from 512 to 2097152")
        if self.version not in (2, 3):
            raise UsageError(f"version {self.version} is not 2 or 3")
        if self.refcount_bits not in (1, 2, 4, 8, 16, 32, 64):
            raise UsageError(f"refcount_bits {self.refcount_bits} is not a power of two from 1 to 64")
        if self.version == 2 and (self.refcount_bits != 16 or self.lazy_refcounts):
            raise UsageError("version 2 images have 16-bit refcounts and no lazy refcounts; use version 3")
        if not 0 <= self.size <= layout.MAX_DISK_BYTES:
            raise UsageError(f"size {self.size} is outside 0..{layout.MAX_DISK_BYTES}")
        if self.backing_format is not None and self.backing_file is None:
            raise UsageError("backing_format without backing_file")
        size = (self.size + 511) & -512
        l1_size = Geometry(cluster_bits).l1_entries(size)
        if l1_size * 8 > layout.MAX_L1_BYTES:
            raise UsageError(f"a disk of {size} bytes needs a larger cluster_size than {self.cluster_size}")
        header = Header(
            version=self.version,
            cluster_bits=cluster_bits,
            size=size,
            l1_size=l1_size,
            l1_table_offset=0,
            refcount_table_offset=0,
            refcount_table_clusters=0,
            crypt_method=1 if self.encrypted else 0,
            refcount_order=self.refcount_bits.bit_length() - 1,
            compatible_features=layout.COMPAT_LAZY_REFCOUNTS if self.lazy_refcounts else 0,
            backing_file=self.backing_file,
        )
        if self.backing_file is not None and len(os.fsencode(self.backing_file)) > layout.MAX_BACKING_NAME_BYTES:
            raise UsageError("the backing file name is longer than 1023 bytes")
        if self.version == 3:
            header.unknown_fields = bytes(8)  # compression type 0 and its padding: header_length 112
        if self.backing_format is not None:
            header.set_extension(layout.EXT_BACKING_FORMAT, self.backing_format.encode())
        if self.version == 3:
            header.add_feature_names()
        return header


async def format_file(file: Node, options: CreateOptions) -> None:
    """Write an empty image into an empty file. Raises UsageError, ImageError or OSError.

        | header | refcount table | refcount blocks | L1 table |

    Everything is written and durable before the header makes an image of it.
    """
    header = options.header()
    geometry = Geometry(header.cluster_bits, header.refcount_order)
    l1_clusters = geometry.clusters(header.l1_size * 8)
    blocks, table_clusters = 1, 1
    while True:
        used = 1 + table_clusters + blocks + l1_clusters
        wanted_blocks = -(-used // geometry.refblock_entries)
        wanted_table = geometry.clusters(wanted_blocks * 8)
        if (wanted_blocks, wanted_table) == (blocks, table_clusters):
            break
        blocks, table_clusters = max(blocks, wanted_blocks), max(table_clusters, wanted_table)
    size = geometry.cluster_size
    block_offset = (1 + table_clusters) * size
    table = array("Q", bytes(table_clusters * size))
    for number in range(blocks):
        table[number] = block_offset + number * size
        counts = decode_refcounts(bytearray(size), geometry.refcount_bits)
        for slot in range(min(geometry.refblock_entries, used - number * geometry.refblock_entries)):
            counts.set(slot, 1)
        await file.write(table[number], [memoryview(counts.pack(0, size))])
    await file.write(size, [memoryview(pack64(table))])
    header.refcount_table_offset = size
    header.refcount_table_clusters = table_clusters
    if l1_clusters:
        header.l1_table_offset = block_offset + blocks * size
        # Not write_zeroes: for so little, a thread and a call that Python has to look for take longer.
        await file.write(header.l1_table_offset, zero_iov(l1_clusters * size))
    await file.flush()
    await file.write(0, [memoryview(header.pack(file.name))])
    await file.flush()


def create(
    filename: str | os.PathLike[str],
    size: int | None = None,
    *,
    version: int = 3,
    cluster_size: int = layout.DEFAULT_CLUSTER_BYTES,
    refcount_bits: int = 16,
    backing_file: str | os.PathLike[str] | None = None,
    backing_format: str | None = None,
    lazy_refcounts: bool = False,
) -> None:
    """Create a qcow2 image file, replacing what is there unless somebody uses it.

    size is in bytes; without it the backing file's size is taken. Raises UsageError, ImageError or OSError.

    >>> create("disk.qcow2", 1 << 30)
    >>> create("overlay.qcow2", backing_file="disk.qcow2", backing_format="qcow2")
    """
    path = os.fspath(filename)
    backing = None if backing_file is None else os.fspath(backing_file)
    if backing is not None and backing_format is None:
        raise UsageError(f"{path}: backing_file needs backing_format: a guessed format is unsafe")
    if size is None:
        if backing is None:
            raise UsageError(f"{path}: size is needed without a backing file")
        beside = os.path.join(os.path.dirname(path), backing)
        with open_disk(
            os.path.abspath(beside), format=backing_format, read_only=True, policy=OpenPolicy.permissive()
        ) as disk:
            size = disk.size
    options = CreateOptions(size, version, cluster_size, refcount_bits, backing, backing_format, lazy_refcounts)
    options.header()  # a wrong option must not cost the old file
    scheduler = Scheduler()
    engine = AutoEngine(scheduler)
    try:
        scheduler.run(_create(path, engine, options))
    finally:
        engine.close()


async def _create(path: str, engine: AutoEngine, options: CreateOptions) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    file = await FileNode.open(path, engine, read_only=False)
    try:
        # Emptied only now: opening has taken the image locks, so nobody else is using it.
        await file.truncate(0)
        await format_file(file, options)
    finally:
        await file.close()
