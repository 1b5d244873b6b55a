"""A drive's state as plain data: what it is doing, between any two register accesses, and what commands have set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from e2kdisk.devices.ata.commands import COMMANDS
from e2kdisk.devices.ata.task_file import Translation
from e2kdisk.devices.ata.transfer import SECTOR, Transfer

if TYPE_CHECKING:
    from e2kdisk.devices.ata.device import AtaDevice

UDMA_MODE_5 = 0x45
"""A transfer mode as SET FEATURES names it (ATA8-ACS 7.45.8)."""


@dataclass(slots=True)
class Settings:
    """What commands set and a software reset keeps."""

    translation: Translation
    multiple: int = 0
    """Sectors in a DRQ block of the MULTIPLE commands; 0 until SET MULTIPLE MODE."""
    transfer_mode: int = UDMA_MODE_5
    reverts: bool = False
    """Whether the next software reset restores the settings (SET FEATURES 66h, CCh)."""
    standby: bool = False
    smart_enabled: bool = True
    smart_autosave: bool = True
    self_tests: list[int] = field(default_factory=list)
    """Sub-commands of the last off-line routines, oldest first."""


def save(drive: AtaDevice) -> dict[str, Any]:
    """Versioned; no step may be waiting for the disk, a parked request may."""
    if drive.step and not drive.stopped:
        raise RuntimeError(f"{drive.channel.name}: save() with a request in flight; drain the scheduler first")
    transfer = drive.transfer
    return {
        "version": 1,
        "kind": drive.kind.value,
        "task_file": drive.task_file.save(),
        "status": drive.status,
        "error": drive.error,
        "extended_error": drive.extended_error,
        "interrupt_pending": drive.interrupt_pending,
        "command": drive.command.opcode,
        "stopped": drive.stopped,
        "transfer": asdict(transfer),
        "settings": asdict(drive.settings),
        "write_cache": drive.disk.write_cache,
        "kept": drive.kept.hex(),
        # What the data port can still reach; a parked write needs all of its block again.
        "buffer": drive.buffer[: transfer.end + transfer.buffered * SECTOR].hex(),
    }


def load(drive: AtaDevice, state: dict[str, Any]) -> None:
    """Restore what save() gave. Raises ValueError for the state of another kind or version."""
    if (state["version"], state["kind"]) != (1, drive.kind.value):
        raise ValueError(f"{drive.channel.name}: state of kind {state['kind']} version {state['version']}")
    drive.cancel()
    drive.task_file.load(state["task_file"])
    drive.status = state["status"]
    drive.error = state["error"]
    drive.extended_error = state["extended_error"]
    drive.interrupt_pending = state["interrupt_pending"]
    drive.command = COMMANDS[state["command"]]
    drive.stopped = state["stopped"]
    segments = state["transfer"]["segments"]
    if segments is not None:
        segments = [(address, length) for address, length in segments]
    drive.transfer = Transfer(**state["transfer"] | {"segments": segments})
    translation = Translation(**state["settings"]["translation"])
    drive.settings = Settings(**state["settings"] | {"translation": translation})
    drive.disk.write_cache = state["write_cache"]
    drive.kept[:] = bytes.fromhex(state["kept"])
    buffer = bytes.fromhex(state["buffer"])
    drive.buffer[: len(buffer)] = buffer
    drive.step = drive.transfer.step if drive.stopped else ""
