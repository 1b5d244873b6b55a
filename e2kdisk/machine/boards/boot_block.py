"""The boot info block of an Elbrus: one page that a boot loader fills in and a kernel starts with.

A kernel image begins with such a page as a template (its signatures, its size and place); the loader completes it with
the RAM banks, the command line and where the console is, and calls the kernel's entry as f(n, block). Numbers are
little-endian, addresses physical. Source: Linux/e2k, arch/l/include/asm/bootinfo.h (bootblock_struct_t).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from struct import Struct
from typing import NamedTuple

from e2kdisk.errors import UsageError

SIZE = 0x1000
SIGNATURE = 0x8086
END_MARK = 0xAA55
ENTRY = 0x16000
"""Of a kernel image: entry 12 of its trap table, which begins at 0x10000."""
CMDLINE, CMDLINE_SIZE = 0x058, 128
LONG_CMDLINE, LONG_CMDLINE_SIZE = 0x5C3, 512
LONG_CMDLINE_MARK = b"KERNEL_ARGS_STRING_EX\0"
"""In the place of a command line that is too long for it."""
BANKS, NODES, BANKS_PER_NODE = 0x0D8, 8, 4
BUSY_AREAS, MAX_BUSY = 0x2D8, 4
VERSION = 0xF5B


class Bank(NamedTuple):
    """A range of RAM, in bytes."""

    base: int
    size: int


_RANGE = Struct("<QQ")


class _Place(NamedTuple):
    """Where a field lies; text is kept as NUL-terminated bytes."""

    offset: int
    layout: Struct


def _number(offset: int, kind: str) -> _Place:
    return _Place(offset, Struct(f"<{kind}"))


def _text(offset: int, size: int) -> _Place:
    return _Place(offset, Struct(f"{size}s"))


PLACES: dict[str, _Place] = {
    "signature": _number(0x000, "H"),
    "kernel_base": _number(0x008, "Q"),
    "kernel_size": _number(0x010, "Q"),
    "ramdisk_base": _number(0x018, "Q"),
    "ramdisk_size": _number(0x020, "Q"),
    "cpus": _number(0x028, "H"),
    "machine_flags": _number(0x02A, "H"),
    "serial_base": _number(0x038, "Q"),
    "node_map": _number(0x040, "Q"),
    "serial_number": _number(0x048, "Q"),
    "mac": _text(0x050, 6),
    "cmdline_pointer": _number(0x510, "Q"),
    "board_name": _text(0x520, 16),
    "checksum": _number(0x534, "I"),
    "bios_signature": _text(0x538, 8),
    "boot_version": _text(0x540, 128),
    "board_type": _number(0x5C0, "B"),
    "chipset_type": _number(0x5C1, "B"),
    "cpu_type": _number(0x5C2, "B"),
    "device_tree": _number(0xD68, "Q"),
    "boot_uuid": _text(0xD78, 16),
    "version": _number(VERSION, "B"),
    "boot_flags": _number(0xFFC, "H"),
    "end_mark": _number(0xFFE, "H"),
}
"""Fields that are one number or one text; banks, busy areas and the command line have rules of their own."""
BANK_COUNT, BUSY_COUNT, NODE_COUNT = _number(0x007, "B"), _number(0x02C, "H"), _number(0x02E, "H")
VERSION_2_ONLY = {"cmdline_pointer"}
NOT_IN_VERSION_2 = {"bios_signature"}


@dataclass(slots=True)
class BootBlock:
    """The fields that somebody here reads or writes; the others are zero."""

    cmdline: str = ""
    banks: tuple[Bank, ...] = ()
    """Of node 0, four at most."""
    busy: tuple[Bank, ...] = ()
    """RAM that the kernel must leave alone."""
    serial_base: int = 0
    """Address of the console's registers."""
    kernel_base: int = 0
    """Where the kernel must lie; 0: on any large page."""
    kernel_size: int = 0
    ramdisk_base: int = 0
    ramdisk_size: int = 0
    cpus: int = 1
    machine_flags: int = 4
    """1 simulator, 4 IOHUB, 0x20 MSI."""
    node_map: int = 1
    serial_number: int = 0
    mac: bytes = b""
    cmdline_pointer: int = 0
    """Version 2: where a command line of any length is."""
    board_name: bytes = b""
    checksum: int = 0
    bios_signature: bytes = b"E2KBIOS"
    boot_version: bytes = b""
    board_type: int = 0
    chipset_type: int = 0
    cpu_type: int = 7
    """3 e2s, 7 e8c, 8 e1c+, 9 e8c2, 0xb e16c."""
    device_tree: int = 0
    boot_uuid: bytes = b""
    """Of the device that was booted from."""
    version: int = 1
    boot_flags: int = 0
    signature: int = SIGNATURE
    end_mark: int = END_MARK

    def pack(self) -> bytes:
        """The page. Raises UsageError, naming the field, for what does not fit it."""
        if self.version not in (1, 2):
            raise UsageError(f"boot block: version {self.version}: must be 1 or 2")
        page = bytearray(SIZE)
        for name, (offset, layout) in PLACES.items():
            value = getattr(self, name)
            if name in (NOT_IN_VERSION_2 if self.version == 2 else VERSION_2_ONLY):
                continue
            if isinstance(value, bytes) and len(value) > layout.size:
                raise UsageError(f"boot block: {name} of {len(value)} bytes: {layout.size} at most")
            if isinstance(value, int) and not 0 <= value < 1 << 8 * layout.size:
                raise UsageError(f"boot block: {name} {value:#x} does not fit {layout.size} bytes")
            layout.pack_into(page, offset, value)
        _put_ranges(page, BANKS, self.banks, BANKS_PER_NODE, "banks")
        _put_ranges(page, BUSY_AREAS, self.busy, MAX_BUSY, "busy areas")
        for place, value in ((BANK_COUNT, len(self.banks)), (BUSY_COUNT, len(self.busy)), (NODE_COUNT, 1)):
            place.layout.pack_into(page, place.offset, value)
        self._put_cmdline(page)
        return bytes(page)

    def _put_cmdline(self, page: bytearray) -> None:
        text = self.cmdline.encode()
        if b"\0" in text or len(text) >= LONG_CMDLINE_SIZE:
            raise UsageError(f"boot block: command line of {len(text)} bytes: {LONG_CMDLINE_SIZE - 1} at most, no NUL")
        offset = CMDLINE
        if len(text) >= CMDLINE_SIZE:
            page[CMDLINE : CMDLINE + len(LONG_CMDLINE_MARK)] = LONG_CMDLINE_MARK
            offset = LONG_CMDLINE
        page[offset : offset + len(text)] = text

    @classmethod
    def parse(cls, page: bytes) -> BootBlock:
        """Read a page. Raises UsageError when it is none: too short, or without its signatures."""
        if len(page) < SIZE:
            raise UsageError(f"boot block: {len(page)} bytes: a page of {SIZE} is needed")
        found = {name: layout.unpack_from(page, offset)[0] for name, (offset, layout) in PLACES.items()}
        for name, value in {"signature": SIGNATURE, "end_mark": END_MARK}.items():
            if found[name] != value:
                raise UsageError(f"boot block: {name} is {found[name]:#x}, not {value:#x}")
        for field in fields(cls):
            if isinstance(found.get(field.name), bytes) and field.name not in ("mac", "boot_uuid"):
                found[field.name] = found[field.name].split(b"\0")[0]
        cmdline = page[CMDLINE : CMDLINE + CMDLINE_SIZE]
        if cmdline.startswith(LONG_CMDLINE_MARK):
            cmdline = page[LONG_CMDLINE : LONG_CMDLINE + LONG_CMDLINE_SIZE]

        def get(place: _Place) -> int:
            return int(place.layout.unpack_from(page, place.offset)[0])

        return cls(
            cmdline=cmdline.split(b"\0")[0].decode("utf-8", "replace"),
            banks=_get_ranges(page, BANKS, min(get(BANK_COUNT), BANKS_PER_NODE)),
            busy=_get_ranges(page, BUSY_AREAS, min(get(BUSY_COUNT), MAX_BUSY)),
            **found,
        )


def _put_ranges(page: bytearray, offset: int, ranges: Iterable[Bank], most: int, what: str) -> None:
    ranges = tuple(ranges)
    if len(ranges) > most:
        raise UsageError(f"boot block: {len(ranges)} {what}: {most} at most")
    for index, bank in enumerate(ranges):
        if not (0 <= bank.base < 1 << 64 and 0 < bank.size < 1 << 64):
            raise UsageError(f"boot block: {what}: {bank.size:#x} bytes at {bank.base:#x}")
        _RANGE.pack_into(page, offset + index * _RANGE.size, *bank)


def _get_ranges(page: bytes, offset: int, count: int) -> tuple[Bank, ...]:
    return tuple(Bank(*_RANGE.unpack_from(page, offset + index * _RANGE.size)) for index in range(count))


def kernel_image(code: bytes, block: BootBlock | None = None) -> bytes:
    """A raw kernel image: the boot block, and code whose first wide instruction is the entry at +0x16000.

    kernel_size of the block is set. Source: Linux/e2k, arch/e2k/boot/compressed.lds.
    """
    block = block or BootBlock()
    block.kernel_size = ENTRY + len(code)
    return block.pack().ljust(ENTRY, b"\0") + code
