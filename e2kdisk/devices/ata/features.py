"""SET FEATURES (ATA8-ACS 7.45): a table of sub-commands, and the limits that IDENTIFY DEVICE tells of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from e2kdisk.devices.ata.task_file import ABRT

if TYPE_CHECKING:
    from e2kdisk.devices.ata.commands import Command
    from e2kdisk.devices.ata.device import AtaDevice

MULTIPLE_MAX = 16
"""Most sectors in a DRQ block of the MULTIPLE commands."""
TRIM_BLOCKS_MAX = 8
"""Most blocks of ranges in a DATA SET MANAGEMENT command."""

PIO_MODE_MAX = 4
MULTIWORD_MODE_MAX = 2
UDMA_MODE_MAX = 5

TRANSFER_MODES = {0b00001: PIO_MODE_MAX, 0b00100: MULTIWORD_MODE_MAX, 0b01000: UDMA_MODE_MAX}
"""The highest mode of each kind, by bits 7:3 of Count (ATA8-ACS 7.45.8): PIO flow control, multiword and Ultra DMA."""


def set_features(drive: AtaDevice, command: Command) -> int | None:
    """The Feature register names what to set."""
    run = SUBCOMMANDS.get(drive.task_file.feature & 0xFF)
    return ABRT if run is None else run(drive)


def _set_transfer_mode(drive: AtaDevice) -> int:
    mode = drive.task_file.count & 0xFF
    if mode in (0x00, 0x01):  # the default PIO mode, with or without IORDY: DMA keeps its mode
        return 0
    highest = TRANSFER_MODES.get(mode >> 3)
    if highest is None or mode & 7 > highest:
        return ABRT
    if mode >> 3 != 0b00001:
        if drive.channel.dma is None:
            return ABRT
        drive.settings.transfer_mode = mode
    return 0


def _write_cache_on(drive: AtaDevice) -> int:
    drive.disk.write_cache = True
    return 0


def _write_cache_off(drive: AtaDevice) -> None:
    drive.disk.write_cache = False
    drive.begin("flush")  # what was cached before must be durable, too


def _reverts(drive: AtaDevice) -> int:
    drive.settings.reverts = True
    return 0


def _keeps(drive: AtaDevice) -> int:
    drive.settings.reverts = False
    return 0


def _accept(drive: AtaDevice) -> int:
    return 0


SUBCOMMANDS: dict[int, Callable[[AtaDevice], int | None]] = {
    0x02: _write_cache_on,
    0x82: _write_cache_off,
    0x03: _set_transfer_mode,
    0x66: _keeps,
    0xCC: _reverts,
    # Hints about power, noise and read-ahead, for mechanics that this drive does not have.
    0x05: _accept,
    0x85: _accept,
    0x42: _accept,
    0xC2: _accept,
    0x55: _accept,
    0xAA: _accept,
}
