"""What a host can do wrong with an ATA channel; a member is (text, section of the specification)."""

from __future__ import annotations

from e2kdisk.devices.guest_error import Mistake


class AtaMistake(Mistake):
    """Each is ignored, or ends the command with the state that the specification names."""

    COMMAND = "no such command", "ATA8-ACS 7.1.1"
    BUSY = "a command is written while BSY or DRQ is set", "ATA/ATAPI-6 7.4.5"
    REGISTER = "a register is written while BSY or DRQ is set", "ATA/ATAPI-6 7.1"
    NO_DATA = "the data port is used without DRQ", "ATA/ATAPI-6 7.5"
    NO_DEVICE = "a command for a device that is not there", "ATA/ATAPI-6 9.16.1"
    DMA_SHORT = "the PRD table is shorter than the transfer", "SFF-8038i 3.1"
    DMA_TABLE = "the PRD table is not in RAM", "SFF-8038i 1.2"
    DMA_ADDRESS = "a PRD names memory that is not RAM", "SFF-8038i 1.2"
    DMA_DIRECTION = "the bus master's direction is not the command's", "SFF-8038i 2.1"
