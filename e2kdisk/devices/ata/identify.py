"""IDENTIFY DEVICE data (ATA8-ACS 7.16.7): 256 words that tell what a drive is and how it is set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING

from e2kdisk.devices.ata.features import MULTIPLE_MAX, TRIM_BLOCKS_MAX
from e2kdisk.devices.ata.task_file import LBA28_SECTORS_MAX, Translation

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.devices.ata.device import AtaDevice

MODEL = "E2KDISK HARDDISK"
CFA_SIGNATURE = 0x848A
"""Word 0 of a CompactFlash card."""
NAA_IEEE_LOCAL = 0x5_024B44 << 36
"""A World Wide Name: format 5 and a locally administered organization; 36 bits are left for the drive."""

NONEMPTY = 0x4000
"""Words 83, 84, 87 and others: bit 14 set and bit 15 clear say that they hold something."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a drive is called."""

    serial: str
    """At most 20 characters."""
    model: str = MODEL
    """At most 40 characters."""
    firmware: str = "1.0"
    """At most 8 characters."""
    wwn: int = 0
    """64 bits; 0 for one that is made of the serial number."""

    @classmethod
    def of(cls, disk: Disk, number: int = 1) -> Identity:
        """The disk's own serial number, else one from its place among the drives."""
        return cls(disk.serial or f"E2K{number:05}")

    @property
    def world_wide_name(self) -> int:
        """64 bits."""
        digest = hashlib.sha256(self.serial.encode()).digest()
        return self.wwn or NAA_IEEE_LOCAL | int.from_bytes(digest[:8], "big") >> 28


def _text(words: list[int], first: int, count: int, text: str) -> None:
    """ASCII, padded with spaces, the first character in the upper byte (ATA8-ACS 3.2.9)."""
    data = text.encode("ascii", "replace")[: 2 * count].ljust(2 * count)
    words[first : first + count] = [data[at] << 8 | data[at + 1] for at in range(0, 2 * count, 2)]


def _number(words: list[int], first: int, count: int, value: int) -> None:
    """The lowest word first."""
    words[first : first + count] = [value >> 16 * index & 0xFFFF for index in range(count)]


def _modes(words: list[int], transfer_mode: int) -> None:
    """The DMA modes; the upper byte of a word has the bit of the one that is chosen."""
    words[49] |= 1 << 8  # DMA
    kind, mode = transfer_mode >> 3, transfer_mode & 7
    words[63] = 0x07 | (0x100 << mode if kind == 0b00100 else 0)
    words[65] = words[66] = 120  # nanoseconds of a multiword cycle
    words[88] = 0x3F | (0x100 << mode if kind == 0b01000 else 0)
    words[93] = 0x600B  # device 0, passed, 80 conductors


def identify_data(drive: AtaDevice) -> bytes:
    """The 512 bytes for a drive as it is set now."""
    from e2kdisk.devices.ata.commands import Kind

    settings, total, identity = drive.settings, drive.sectors, drive.identity
    native, current = Translation.default(total), settings.translation
    words = [0] * 256
    words[0] = CFA_SIGNATURE if drive.kind is Kind.CFA else 0x0040
    words[1] = min(native.cylinders(total), 16383)
    words[3] = native.heads
    words[6] = native.sectors
    _text(words, 10, 10, identity.serial)
    _text(words, 23, 4, identity.firmware)
    _text(words, 27, 20, identity.model)
    words[47] = 0x8000 | MULTIPLE_MAX
    words[49] = 1 << 13 | 1 << 11 | 1 << 9  # standard standby timers, IORDY, LBA
    words[50] = NONEMPTY
    words[51] = 2 << 8  # PIO timing
    words[53] = 0b111  # words 54-58, 64-70 and 88 are valid
    words[54] = current.cylinders(total)
    words[55] = current.heads
    words[56] = current.sectors
    _number(words, 57, 2, words[54] * current.heads * current.sectors)
    if settings.multiple:
        words[59] = 0x100 | settings.multiple
    _number(words, 60, 2, min(total, LBA28_SECTORS_MAX - 1))
    words[64] = 0b11  # PIO modes 3 and 4
    words[67] = words[68] = 120
    if drive.channel.dma is not None:
        _modes(words, settings.transfer_mode)
        words[105] = TRIM_BLOCKS_MAX
        words[169] = 1  # TRIM
    words[80] = 0x01F0  # ATA-4 to ATA8-ACS
    # NOP, READ BUFFER, WRITE BUFFER, write cache, power management, SMART
    words[82] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 5 | 1 << 3 | 1 << 0
    words[83] = NONEMPTY | 1 << 13 | 1 << 12 | 1 << 10  # FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
    words[84] = NONEMPTY | 1 << 8 | 1 << 6 | 1 << 1 | 1 << 0  # World Wide Name, FUA, self-test, error log
    words[85] = words[82] & ~(1 << 5 | 1) | int(drive.disk.write_cache) << 5 | int(settings.smart_enabled)
    words[86] = words[83] & ~NONEMPTY
    words[87] = words[84]
    _number(words, 100, 4, total)
    exponent = max(drive.disk.physical_block_size // 512, 1).bit_length() - 1
    if exponent:
        words[106] = NONEMPTY | 1 << 13 | exponent  # logical sectors in a physical one
    name = identity.world_wide_name
    words[108:112] = [name >> 48, name >> 32 & 0xFFFF, name >> 16 & 0xFFFF, name & 0xFFFF]
    words[217] = 1  # not rotating
    data = pack("<255H", *words[:255]) + b"\xa5"
    return data + bytes([-sum(data) & 0xFF])
