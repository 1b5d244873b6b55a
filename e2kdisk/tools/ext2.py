"""A small ext2 file system from a table of files: the boot partition of the demo, without mke2fs at hand.

One block group, no journal, owner root, all times 0, so the same files give the same bytes.

    block 0 or 1   superblock           then  block bitmap, inode bitmap, inode table, data
    the next       group descriptor           (blocks of 1 KiB: the superblock is block 1, else it lies in block 0)

Layout: Linux, Documentation/filesystems/ext2.rst; field names are those of its structures.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from e2kdisk.errors import UsageError

SUPERBLOCK_OFFSET = 1024
MAGIC = 0xEF53
INODE_SIZE = 128
INODE = struct.Struct("<HHIIIIIHHIII15IIIII12x")
ENTRY = struct.Struct("<IHBB")
ROOT, FIRST_INODE = 2, 11
"""The first inode that is not reserved belongs to lost+found, as fsck expects it."""
DIRECT, DEPTHS = 12, 3
FILE, DIRECTORY = 0x8000, 0x4000
FILE_TYPES = {FILE: 1, DIRECTORY: 2}
"""In directory entries, which is the only incompatible feature used."""
UUID = bytes.fromhex("e2e2d15c000040008000000000000001")


@dataclass(slots=True)
class _Node:
    """A file or directory on its way into the image."""

    number: int
    parent: int
    kind: int
    content: bytes = b""
    children: dict[str, _Node] = field(default_factory=dict)
    pointers: list[int] = field(default_factory=lambda: [0] * (DIRECT + DEPTHS))
    blocks: int = 0
    """Of data and of block numbers."""

    @property
    def links(self) -> int:
        """Names that lead here."""
        if self.kind == FILE:
            return 1
        return 2 + sum(child.kind == DIRECTORY for child in self.children.values())


class _Builder:
    """One image; blocks are given out in their order, and never back."""

    def __init__(self, size: int, block_size: int, volume_name: str) -> None:
        if block_size not in (1024, 2048, 4096):
            raise UsageError(f"ext2: blocks of {block_size} bytes: must be 1024, 2048 or 4096")
        self.block_size = block_size
        self.blocks = size // block_size
        self.first = SUPERBLOCK_OFFSET // block_size
        if self.blocks - self.first > 8 * block_size:
            raise UsageError(f"ext2: {size} bytes: one group of {block_size}-byte blocks has {8 * block_size} of them")
        self.inodes = max(64, size // 16384 & -8)
        table_blocks = -(-self.inodes * INODE_SIZE // block_size)
        self.block_bitmap = self.first + 2
        self.inode_table = self.block_bitmap + 2
        self.free = self.inode_table + table_blocks
        if self.free >= self.blocks:
            raise UsageError(f"ext2: {size} bytes are too few")
        self.name = volume_name.encode()[:16]
        self.image = bytearray(self.blocks * block_size)
        self.nodes: list[_Node] = []

    def add(self, parent: _Node | None, kind: int, content: bytes = b"") -> _Node:
        """A new inode."""
        number = ROOT if parent is None else FIRST_INODE + len(self.nodes) - 1
        if number > self.inodes:
            raise UsageError(f"ext2: more than {self.inodes} files")
        node = _Node(number, number if parent is None else parent.number, kind, content)
        self.nodes.append(node)
        return node

    # -- blocks -----------------------------------------------------------------------------------

    def allocate(self, content: bytes) -> int:
        """The next free block, with this content."""
        if self.free == self.blocks:
            raise UsageError(f"ext2: the files do not fit {self.blocks * self.block_size} bytes")
        number = self.free
        self.free += 1
        self.image[number * self.block_size : number * self.block_size + len(content)] = content
        return number

    def store(self, node: _Node) -> None:
        """Give a node's content its blocks and block numbers."""
        before = self.free
        content, size = memoryview(node.content), self.block_size
        numbers = [self.allocate(bytes(content[at : at + size])) for at in range(0, len(content), size)]
        node.pointers[: len(numbers[:DIRECT])] = numbers[:DIRECT]
        rest = numbers[DIRECT:]
        for depth in range(1, DEPTHS + 1):
            reach = (size // 4) ** depth
            if rest:
                node.pointers[DIRECT + depth - 1] = self._indirect(rest[:reach], depth)
            rest = rest[reach:]
        node.blocks = self.free - before

    def _indirect(self, numbers: list[int], depth: int) -> int:
        """A block of block numbers, `depth` steps above the data."""
        if depth > 1:
            reach = (self.block_size // 4) ** (depth - 1)
            numbers = [self._indirect(numbers[at : at + reach], depth - 1) for at in range(0, len(numbers), reach)]
        return self.allocate(struct.pack(f"<{len(numbers)}I", *numbers))

    def directory(self, node: _Node) -> bytes:
        """The entries of a directory; none crosses a block, the last of a block reaches to its end."""
        names: list[tuple[bytes, int, int]] = [(b".", node.number, DIRECTORY), (b"..", node.parent, DIRECTORY)]
        names += [(name.encode(), child.number, child.kind) for name, child in node.children.items()]
        blocks: list[list[bytes]] = [[]]
        room = self.block_size
        for name, number, kind in names:
            length = ENTRY.size + (len(name) + 3 & -4)
            if length > room:
                blocks.append([])
                room = self.block_size
            blocks[-1].append(ENTRY.pack(number, length, len(name), FILE_TYPES[kind]) + name.ljust(length - 8, b"\0"))
            room -= length
        return b"".join(map(self._directory_block, blocks))

    def _directory_block(self, entries: list[bytes]) -> bytes:
        used = sum(map(len, entries[:-1]))
        last = bytearray(entries[-1].ljust(self.block_size - used, b"\0"))
        struct.pack_into("<H", last, 4, self.block_size - used)
        return b"".join(entries[:-1]) + last

    # -- what describes them ----------------------------------------------------------------------

    def finish(self) -> bytes:
        """Store everything and write the tables."""
        for node in self.nodes:
            if node.kind == DIRECTORY:
                node.content = self.directory(node)
            self.store(node)
            self._inode(node)
        used_inodes = FIRST_INODE - 1 + len(self.nodes) - 1
        self._bitmap(self.block_bitmap, self.free - self.first, self.blocks - self.first)
        self._bitmap(self.block_bitmap + 1, used_inodes, self.inodes)
        free_blocks, free_inodes = self.blocks - self.free, self.inodes - used_inodes
        directories = sum(node.kind == DIRECTORY for node in self.nodes)
        descriptor = struct.pack(
            "<IIIHHH", *range(self.block_bitmap, self.block_bitmap + 3), free_blocks, free_inodes, directories
        )
        at = (self.first + 1) * self.block_size
        self.image[at : at + len(descriptor)] = descriptor
        self._superblock(free_blocks, free_inodes)
        return bytes(self.image)

    def _inode(self, node: _Node) -> None:
        mode = node.kind | (0o644 if node.kind == FILE else 0o755)
        sectors = node.blocks * (self.block_size // 512)
        size = len(node.content)
        at = self.inode_table * self.block_size + (node.number - 1) * INODE_SIZE
        fields = (mode, 0, size, 0, 0, 0, 0, 0, node.links, sectors, 0, 0, *node.pointers, 0, 0, 0, 0)
        INODE.pack_into(self.image, at, *fields)

    def _bitmap(self, block: int, used: int, total: int) -> None:
        """Bits of what is used, and of what there is not."""
        bits = 8 * self.block_size
        value = (1 << used) - 1 | (1 << bits) - (1 << total)
        self.image[block * self.block_size : (block + 1) * self.block_size] = value.to_bytes(bits // 8, "little")

    def _superblock(self, free_blocks: int, free_inodes: int) -> None:
        shift = self.block_size.bit_length() - 11
        per_group = 8 * self.block_size
        head = struct.pack(
            "<13I6H4I2H",
            *(self.inodes, self.blocks, 0, free_blocks, free_inodes, self.first, shift, shift),
            *(per_group, per_group, self.inodes, 0, 0),  # s_blocks_per_group to s_wtime
            *(0, 0xFFFF, MAGIC, 1, 1, 0),  # never checked by count; clean; errors: continue
            *(0, 0, 0, 1),  # s_lastcheck, s_checkinterval, s_creator_os, s_rev_level
            *(0, 0),
        )
        dynamic = struct.pack("<IHHIII16s16s", FIRST_INODE, INODE_SIZE, 0, 0, 2, 0, UUID, self.name)
        self.image[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + len(head + dynamic)] = head + dynamic


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    for part in parts or [path]:
        if part in ("", "/", ".", "..") or len(part.encode()) > 255:
            raise UsageError(f"ext2: {path}: {part!r} cannot be the name of a file")
    return parts


def make_ext2(files: Mapping[str, bytes], size: int, *, block_size: int = 1024, volume_name: str = "") -> bytes:
    """An image of `size` bytes with these files, by path; directories come by themselves. Raises UsageError."""
    builder = _Builder(size, block_size, volume_name)
    root = builder.add(None, DIRECTORY)
    root.children["lost+found"] = builder.add(root, DIRECTORY)
    for path, content in files.items():
        *folders, name = _parts(path)
        folder = root
        for part in folders:
            if part not in folder.children:
                folder.children[part] = builder.add(folder, DIRECTORY)
            folder = folder.children[part]
        if folder.kind != DIRECTORY or name in folder.children:
            raise UsageError(f"ext2: {path}: the name is taken")
        folder.children[name] = builder.add(folder, FILE, content)
    return builder.finish()
