"""The command table: every opcode a drive knows, with what it needs and the function that begins it.

A handler gives bits of the Error register (0: done without error), or None when the command goes on by itself:
through the data port, by DMA, or after the disk has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING

from e2kdisk.devices.ata import features, smart
from e2kdisk.devices.ata.identify import identify_data
from e2kdisk.devices.ata.task_file import ABRT, IDNF, LBA28_SECTORS_MAX, Translation
from e2kdisk.devices.ata.transfer import SECTOR

if TYPE_CHECKING:
    from e2kdisk.devices.ata.device import AtaDevice


class Kind(Flag):
    """What a drive is; a command table entry names those that have the command."""

    DISK = auto()
    CFA = auto()
    ANY = DISK | CFA


class Protocol(Enum):
    """How a command moves data (ATA8-APT 9)."""

    NON_DATA = "non-data"
    PIO_IN = "PIO in"
    PIO_OUT = "PIO out"
    DMA = "DMA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command."""

    opcode: int
    name: str
    run: Callable[[AtaDevice, Command], int | None]
    protocol: Protocol
    section: str
    kinds: Kind = Kind.ANY
    wide: bool = False
    """A 48-bit command: uses both bytes of each register."""
    media: bool = False
    """Names sectors, the first of which must exist; after an error the registers name the first one that failed."""
    modifies: bool = False
    """Is refused by a read-only disk."""
    multiple: bool = False
    """Its DRQ blocks are as long as SET MULTIPLE MODE said."""
    fua: bool = False
    """Its data is durable when it completes."""
    dsc: bool = True
    """Sets DSC when it completes without error."""
    resets: bool = False
    """May be written while BSY or DRQ is set, and ends what goes on."""


# -- media ------------------------------------------------------------------------------------------


def read_pio(drive: AtaDevice, command: Command) -> None:
    """READ SECTOR(S), READ MULTIPLE."""
    drive.begin("fill")


def write_pio(drive: AtaDevice, command: Command) -> None:
    """WRITE SECTOR(S), WRITE MULTIPLE."""
    drive.ask_block()


def _whole(drive: AtaDevice) -> int:
    """Bits of the Error register unless all sectors are there: what is not cut into blocks is done or not done."""
    return IDNF if drive.transfer.lba + drive.transfer.left > drive.sectors else 0


def read_dma(drive: AtaDevice, command: Command) -> int | None:
    """READ DMA."""
    error = _whole(drive)
    if error == 0:
        drive.request_dma("read_dma", drive.transfer.left * SECTOR)
    return error or None


def write_dma(drive: AtaDevice, command: Command) -> int | None:
    """WRITE DMA."""
    error = _whole(drive)
    if error == 0:
        drive.request_dma("write_dma", drive.transfer.left * SECTOR)
    return error or None


def verify(drive: AtaDevice, command: Command) -> int | None:
    """READ VERIFY SECTOR(S)."""
    error = _whole(drive)
    if error == 0:
        drive.begin("verify")
    return error or None


def erase(drive: AtaDevice, command: Command) -> int | None:
    """CFA ERASE SECTORS."""
    error = _whole(drive)
    if error == 0:
        drive.begin("erase")
    return error or None


def flush(drive: AtaDevice, command: Command) -> None:
    """FLUSH CACHE."""
    drive.begin("flush")


def data_set_management(drive: AtaDevice, command: Command) -> int | None:
    """DATA SET MANAGEMENT: TRIM is its one function."""
    blocks = drive.task_file.count
    if drive.task_file.feature & 0xFF != 1 or not 1 <= blocks <= features.TRIM_BLOCKS_MAX:
        return ABRT
    drive.request_dma("trim", blocks * SECTOR)
    return None


def translate_sector(drive: AtaDevice, command: Command) -> None:
    """CFA TRANSLATE SECTOR: the address in both forms, and that the sector was never erased."""
    registers = drive.task_file
    block = bytearray(SECTOR)
    block[0:4] = (registers.lba_high & 0xFF, registers.lba_mid & 0xFF, registers.device, registers.lba_low & 0xFF)
    block[4:7] = (drive.transfer.lba & 0xFFFFFF).to_bytes(3, "big")
    block[0x1A] = 1  # hot count: how often the sector has been rewritten, at least once
    drive.send(bytes(block))


def read_native_max(drive: AtaDevice, command: Command) -> int:
    """READ NATIVE MAX ADDRESS: the last sector, as far as the registers can name it."""
    last = drive.sectors - 1
    if last < 0:
        return ABRT
    if not command.wide:
        last = min(last, LBA28_SECTORS_MAX - 1)
    drive.task_file.set_address(last, command.wide, drive.settings.translation)
    return 0


# -- the drive itself -------------------------------------------------------------------------------


def nop(drive: AtaDevice, command: Command) -> int:
    """NOP always aborts (ATA8-ACS 7.20); other values of Feature are for queued commands."""
    return ABRT


def accept(drive: AtaDevice, command: Command) -> int:
    """Commands with nothing left to do for this drive: there are no heads, and that a sector exists is known."""
    return 0


def device_reset(drive: AtaDevice, command: Command) -> None:
    """DEVICE RESET: ends what goes on and shows the signature, without an interrupt.

    The specification has it for packet devices only; a disk that obeys is a disk that can be unstuck.
    """
    drive.reset()


def diagnose(drive: AtaDevice, command: Command) -> None:
    """EXECUTE DEVICE DIAGNOSTIC: both drives of the channel do it, device 0 answers for both."""
    drive.channel.diagnose()


def initialize_parameters(drive: AtaDevice, command: Command) -> int:
    """INITIALIZE DEVICE PARAMETERS: another translation of cylinder, head and sector."""
    sectors = drive.task_file.count & 0xFF
    if sectors == 0:
        return ABRT
    drive.settings.translation = Translation((drive.task_file.device & 0x0F) + 1, sectors)
    return 0


def identify(drive: AtaDevice, command: Command) -> None:
    """IDENTIFY DEVICE."""
    drive.send(identify_data(drive))


def set_multiple(drive: AtaDevice, command: Command) -> int:
    """SET MULTIPLE MODE: a power of two up to the limit, or 0 to switch the MULTIPLE commands off."""
    count = drive.task_file.count & 0xFF
    if count & (count - 1) or count > features.MULTIPLE_MAX:
        return ABRT
    drive.settings.multiple = count
    return 0


def read_buffer(drive: AtaDevice, command: Command) -> None:
    """READ BUFFER."""
    drive.send(bytes(drive.kept))


def write_buffer(drive: AtaDevice, command: Command) -> None:
    """WRITE BUFFER."""
    drive.take("keep")


def idle(drive: AtaDevice, command: Command) -> int:
    """IDLE, IDLE IMMEDIATE."""
    drive.settings.standby = False
    return 0


def standby(drive: AtaDevice, command: Command) -> int:
    """STANDBY, STANDBY IMMEDIATE, SLEEP: this drive wakes from each by the next command that needs the medium."""
    drive.settings.standby = True
    return 0


def check_power(drive: AtaDevice, command: Command) -> int:
    """CHECK POWER MODE."""
    drive.task_file.count = 0x00 if drive.settings.standby else 0xFF
    return 0


def extended_error(drive: AtaDevice, command: Command) -> None:
    """CFA REQUEST EXTENDED ERROR CODE: the Error register has the code, the command itself succeeds."""
    codes = {0: 0x00, ABRT: 0x20, IDNF: 0x2F}
    code = codes.get(drive.extended_error, 0x11)
    drive.complete()
    drive.error = code


# -- the table --------------------------------------------------------------------------------------

_ENTRIES: list[Command] = []


def _add(
    opcodes: int | tuple[int, ...],
    name: str,
    run: Callable[[AtaDevice, Command], int | None],
    section: str,
    protocol: Protocol = Protocol.NON_DATA,
    **flags: bool | Kind,
) -> None:
    for opcode in (opcodes,) if isinstance(opcodes, int) else opcodes:
        _ENTRIES.append(
            Command(opcode=opcode, name=name, run=run, section=section, protocol=protocol, **flags)  # type: ignore[arg-type]
        )


_IN, _OUT, _DMA = Protocol.PIO_IN, Protocol.PIO_OUT, Protocol.DMA

# The second opcode of a pair is the form without retries, obsolete since ATA-5.
_add((0x20, 0x21), "READ SECTOR(S)", read_pio, "ATA8-ACS 7.34", _IN, media=True)
_add(0x24, "READ SECTOR(S) EXT", read_pio, "ATA8-ACS 7.35", _IN, media=True, wide=True)
_add(0xC4, "READ MULTIPLE", read_pio, "ATA8-ACS 7.30", _IN, media=True, multiple=True)
_add(0x29, "READ MULTIPLE EXT", read_pio, "ATA8-ACS 7.31", _IN, media=True, multiple=True, wide=True)
_add((0xC8, 0xC9), "READ DMA", read_dma, "ATA8-ACS 7.25", _DMA, media=True)
_add(0x25, "READ DMA EXT", read_dma, "ATA8-ACS 7.26", _DMA, media=True, wide=True)
_add((0x40, 0x41), "READ VERIFY SECTOR(S)", verify, "ATA8-ACS 7.38", media=True)
_add(0x42, "READ VERIFY SECTOR(S) EXT", verify, "ATA8-ACS 7.39", media=True, wide=True)

_add((0x30, 0x31), "WRITE SECTOR(S)", write_pio, "ATA8-ACS 7.66", _OUT, media=True, modifies=True)
_add(0x34, "WRITE SECTOR(S) EXT", write_pio, "ATA8-ACS 7.67", _OUT, media=True, modifies=True, wide=True)
_add(0x3C, "WRITE VERIFY", write_pio, "ATA-3 7.51", _OUT, media=True, modifies=True, fua=True)
_add(0xC5, "WRITE MULTIPLE", write_pio, "ATA8-ACS 7.62", _OUT, media=True, modifies=True, multiple=True)
_add(0x39, "WRITE MULTIPLE EXT", write_pio, "ATA8-ACS 7.63", _OUT, media=True, modifies=True, multiple=True, wide=True)
_add(
    0xCE,
    "WRITE MULTIPLE FUA EXT",
    write_pio,
    "ATA8-ACS 7.64",
    _OUT,
    media=True,
    modifies=True,
    multiple=True,
    wide=True,
    fua=True,
)
_add((0xCA, 0xCB), "WRITE DMA", write_dma, "ATA8-ACS 7.57", _DMA, media=True, modifies=True)
_add(0x35, "WRITE DMA EXT", write_dma, "ATA8-ACS 7.58", _DMA, media=True, modifies=True, wide=True)
_add(0x3D, "WRITE DMA FUA EXT", write_dma, "ATA8-ACS 7.59", _DMA, media=True, modifies=True, wide=True, fua=True)
_add((0xE7, 0xEA), "FLUSH CACHE", flush, "ATA8-ACS 7.13")
_add(0x06, "DATA SET MANAGEMENT", data_set_management, "ATA8-ACS2 7.10", _DMA, modifies=True)

_add(tuple(range(0x10, 0x20)), "RECALIBRATE", accept, "ATA-3 7.17")
_add(tuple(range(0x70, 0x80)), "SEEK", accept, "ATA/ATAPI-6 8.35", media=True)
_add(0xF8, "READ NATIVE MAX ADDRESS", read_native_max, "ATA8-ACS 7.32")
_add(0x27, "READ NATIVE MAX ADDRESS EXT", read_native_max, "ATA8-ACS 7.33", wide=True)

_add(0x00, "NOP", nop, "ATA8-ACS 7.20")
_add(0x08, "DEVICE RESET", device_reset, "ATA8-ACS 7.7", resets=True)
_add(0x90, "EXECUTE DEVICE DIAGNOSTIC", diagnose, "ATA8-ACS 7.9")
_add(0x91, "INITIALIZE DEVICE PARAMETERS", initialize_parameters, "ATA/ATAPI-5 8.16")
_add(0xEC, "IDENTIFY DEVICE", identify, "ATA8-ACS 7.16", _IN)
_add(0xEF, "SET FEATURES", features.set_features, "ATA8-ACS 7.45")
_add(0xC6, "SET MULTIPLE MODE", set_multiple, "ATA8-ACS 7.50")
_add(0xE4, "READ BUFFER", read_buffer, "ATA8-ACS 7.24", _IN)
_add(0xE8, "WRITE BUFFER", write_buffer, "ATA8-ACS 7.56", _OUT)
_add(0xB0, "SMART", smart.smart, "ATA8-ACS 7.53")
# Firmware sends it to every drive; without the Security feature set there is nothing to freeze.
_add(0xF5, "SECURITY FREEZE LOCK", accept, "ATA8-ACS 7.41")

_add((0xE1, 0x95), "IDLE IMMEDIATE", idle, "ATA8-ACS 7.18", dsc=False)
_add((0xE3, 0x97), "IDLE", idle, "ATA8-ACS 7.17", dsc=False)
_add((0xE0, 0x94), "STANDBY IMMEDIATE", standby, "ATA8-ACS 7.55", dsc=False)
_add((0xE2, 0x96), "STANDBY", standby, "ATA8-ACS 7.54", dsc=False)
_add((0xE6, 0x99), "SLEEP", standby, "ATA8-ACS 7.52", dsc=False)
_add((0xE5, 0x98), "CHECK POWER MODE", check_power, "ATA8-ACS 7.5")

_add(0x03, "CFA REQUEST EXTENDED ERROR", extended_error, "ATA8-ACS 7.2", kinds=Kind.CFA)
_add(
    0x38, "CFA WRITE SECTORS WITHOUT ERASE", write_pio, "ATA8-ACS 7.4", _OUT, kinds=Kind.CFA, media=True, modifies=True
)
_add(
    0xCD,
    "CFA WRITE MULTIPLE WITHOUT ERASE",
    write_pio,
    "ATA8-ACS 7.3",
    _OUT,
    kinds=Kind.CFA,
    media=True,
    modifies=True,
    multiple=True,
)
_add(0x87, "CFA TRANSLATE SECTOR", translate_sector, "ATA8-ACS 7.6", _IN, kinds=Kind.CFA, media=True)
_add(0xC0, "CFA ERASE SECTORS", erase, "ATA/ATAPI-6 8.2", kinds=Kind.CFA, media=True, modifies=True)

COMMANDS: dict[int, Command] = {command.opcode: command for command in _ENTRIES}
assert len(COMMANDS) == len(_ENTRIES), "an opcode twice"
