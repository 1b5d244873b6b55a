"""The registers of a channel as tables (ATA/ATAPI-6 7); what they do is in channel.AtaChannel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from e2kdisk.devices.registers import RW, Register, RegisterMap

if TYPE_CHECKING:
    from e2kdisk.devices.ata.channel import AtaChannel


def _register(
    offset: int,
    name: str,
    meaning: str,
    section: str,
    read: Callable[[AtaChannel], int],
    write: Callable[[AtaChannel, int], None],
) -> Register[AtaChannel]:
    return Register(
        offset=offset, name=name, access=RW, width=1, meaning=meaning, section=section, read=read, write=write
    )


def _parameter(offset: int, name: str, attribute: str, meaning: str, section: str) -> Register[AtaChannel]:
    """One of the registers with two bytes."""
    return _register(
        offset,
        name,
        meaning,
        section,
        lambda channel: channel.read_register(attribute),
        lambda channel, value: channel.write_register(attribute, value),
    )


COMMAND_BLOCK: RegisterMap[AtaChannel] = RegisterMap(
    "ATA command block",
    _register(
        0,
        "Data",
        "the data port, 16 or 32 bits wide",
        "ATA/ATAPI-6 7.5",
        lambda channel: channel.read_byte_of_data(),
        lambda channel, value: None,
    ),
    _register(
        1,
        "Error/Features",
        "read: why the command failed; write: its parameter",
        "ATA/ATAPI-6 7.9, 7.10",
        lambda channel: channel.read_error(),
        lambda channel, value: channel.write_register("feature", value),
    ),
    _parameter(2, "Sector Count", "count", "sectors, 0 for the most", "ATA/ATAPI-6 7.14"),
    _parameter(3, "LBA Low", "lba_low", "bits 7:0 and 31:24, or the sector of a track", "ATA/ATAPI-6 7.13"),
    _parameter(4, "LBA Mid", "lba_mid", "bits 15:8 and 39:32, or the low byte of the cylinder", "ATA/ATAPI-6 7.12"),
    _parameter(5, "LBA High", "lba_high", "bits 23:16 and 47:40, or the high byte of the cylinder", "ATA/ATAPI-6 7.11"),
    _register(
        6,
        "Device",
        "bit 6 LBA, bit 4 device 1, bits 3:0 head or bits 27:24",
        "ATA/ATAPI-6 7.7",
        lambda channel: channel.read_device(),
        lambda channel, value: channel.write_device(value),
    ),
    _register(
        7,
        "Status/Command",
        "read: status, acknowledges the interrupt; write: begins a command",
        "ATA/ATAPI-6 7.15, 7.4",
        lambda channel: channel.read_status(),
        lambda channel, value: channel.write_command(value),
    ),
)

CONTROL_BLOCK: RegisterMap[AtaChannel] = RegisterMap(
    "ATA control block",
    _register(
        0,
        "Alternate Status/Device Control",
        "read: status; write: bit 7 HOB, bit 2 SRST, bit 1 nIEN",
        "ATA/ATAPI-6 7.3, 7.8",
        lambda channel: channel.read_alternate_status(),
        lambda channel, value: channel.write_device_control(value),
    ),
)
