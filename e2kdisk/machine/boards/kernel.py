"""Loading a kernel without firmware: a raw image that begins with its boot info block, or an ELF file for e2k."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from struct import Struct
from typing import NamedTuple

from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.boot_block import ENTRY, SIZE, BootBlock

DEFAULT_BASE = 0x40_0000
"""Where a kernel goes that can lie on any large page (4 MiB)."""

ELF_MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little-endian (System V ABI, figure 4-4)."""
EM_MCST_ELBRUS = 175
PT_LOAD = 1
_HEADER = Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = Struct("<IIQQQQQQ")


class Piece(NamedTuple):
    """Bytes that belong at an address, and how many zeros follow."""

    address: int
    content: bytes
    zeros: int = 0


class Kernel(NamedTuple):
    """What to place in memory and how to enter it: f(0, block)."""

    pieces: tuple[Piece, ...]
    entry: int
    block: int
    """Address of the boot info block; 0 for one of the board's choice."""


def load_kernel(image: bytes, told: BootBlock) -> Kernel:
    """Lay out a kernel, its boot block completed with the banks, serial port and command line that it is told.

    Raises UsageError for what is neither a raw image nor ELF for e2k.
    """
    if image.startswith(ELF_MAGIC):
        return _load_elf(image)
    try:
        block = BootBlock.parse(image[:SIZE])
    except UsageError as error:
        raise UsageError(f"kernel: neither ELF nor an image with a boot block ({error})") from None
    if len(image) <= ENTRY:
        raise UsageError(f"kernel: {len(image)} bytes end before its entry at {ENTRY:#x}")
    base = block.kernel_base or DEFAULT_BASE
    completed = replace(block, banks=told.banks, serial_base=told.serial_base, kernel_base=base)
    if told.cmdline:
        completed = replace(completed, cmdline=told.cmdline)
    return Kernel((Piece(base, completed.pack() + image[SIZE:]),), base + ENTRY, base)


def _load_elf(image: bytes) -> Kernel:
    if len(image) < _HEADER.size:
        raise UsageError("kernel: the ELF header is cut off")
    _, machine, _, entry, table, _, _, _, entry_size, count, *_ = _HEADER.unpack_from(image)
    if machine != EM_MCST_ELBRUS:
        raise UsageError(f"kernel: ELF for machine {machine}; e2k is {EM_MCST_ELBRUS}")
    if entry_size < _SEGMENT.size or table + count * entry_size > len(image):
        raise UsageError(f"kernel: {count} program headers at {table:#x} do not fit into {len(image)} bytes")
    return Kernel(tuple(_segments(image, table, entry_size, count)), entry, 0)


def _segments(image: bytes, table: int, entry_size: int, count: int) -> Iterator[Piece]:
    for number in range(count):
        kind, _, offset, _, address, in_file, in_memory, _ = _SEGMENT.unpack_from(image, table + number * entry_size)
        if kind != PT_LOAD:
            continue
        if offset + in_file > len(image) or in_file > in_memory:
            raise UsageError(f"kernel: segment {number} has {in_file} bytes at {offset:#x}: they are not in the file")
        yield Piece(address, image[offset : offset + in_file], in_memory - in_file)
