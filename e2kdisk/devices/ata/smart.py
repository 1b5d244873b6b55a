"""SMART (ATA8-ACS 7.53): a drive in the best of health, which keeps a log of the self-tests it was asked for.

Attribute and threshold structures are vendor specific in the standard; here they are those of SFF-8035i, which is what
programs read.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack_into
from typing import TYPE_CHECKING

from e2kdisk.devices.ata.task_file import ABRT

if TYPE_CHECKING:
    from e2kdisk.devices.ata.commands import Command
    from e2kdisk.devices.ata.device import AtaDevice

PASSES = 0xC24F
"""LBA high and mid: the key of every SMART command, and the answer of a healthy drive."""
SELF_TESTS_KEPT = 21
"""Descriptors in the self-test log (ATA8-ACS A.15)."""

ATTRIBUTES = (
    # id, flags, value now, worst value, raw, threshold
    (0x01, 0x0003, 100, 100, 0, 6),  # raw read error rate
    (0x03, 0x0003, 100, 100, 0, 0),  # spin up time
    (0x04, 0x0002, 100, 100, 0, 20),  # start and stop count
    (0x05, 0x0003, 100, 100, 0, 36),  # sectors reallocated
    (0x09, 0x0003, 100, 100, 1, 0),  # hours of power
    (0x0C, 0x0003, 100, 100, 0, 0),  # power cycles
    (0xBE, 0x0003, 69, 69, 31, 50),  # temperature of the air flow
)


def smart(drive: AtaDevice, command: Command) -> int | None:
    """The Feature register names the sub-command; LBA high and mid carry the key."""
    registers = drive.task_file
    if (registers.lba_high & 0xFF) << 8 | registers.lba_mid & 0xFF != PASSES:
        return ABRT
    name = registers.feature & 0xFF
    run = SUBCOMMANDS.get(name)
    if run is None or (not drive.settings.smart_enabled and name != 0xD8):
        return ABRT
    return run(drive)


def _with_checksum(block: bytearray) -> bytes:
    """All 512 bytes add up to zero (ATA8-ACS 7.53.7)."""
    block[511] = -sum(block[:511]) & 0xFF
    return bytes(block)


def _read_data(drive: AtaDevice) -> None:
    block = bytearray(512)
    pack_into("<H", block, 0, 1)  # revision
    for index, (number, flags, value, worst, raw, _) in enumerate(ATTRIBUTES):
        pack_into("<BHBBQ", block, 2 + 12 * index, number, flags, value, worst, raw)
    block[362] = 0x02 if drive.settings.smart_autosave else 0x00  # off-line data collection was never begun
    block[363] = 0  # the last self-test passed
    pack_into("<H", block, 364, 288)  # seconds for an off-line collection
    block[367] = 0x01 | 0x08 | 0x10  # execute off-line immediate, off-line read scan, self-test
    pack_into("<H", block, 368, 0x0003)  # saves attributes
    block[370] = 1  # error logging
    block[372], block[373] = 2, 54  # minutes for a short and an extended self-test
    drive.send(_with_checksum(block))


def _read_thresholds(drive: AtaDevice) -> None:
    block = bytearray(512)
    pack_into("<H", block, 0, 1)
    for index, (number, *_, threshold) in enumerate(ATTRIBUTES):
        pack_into("<BB", block, 2 + 12 * index, number, threshold)
    drive.send(_with_checksum(block))


def _error_log(drive: AtaDevice) -> bytes:
    block = bytearray(512)
    block[0] = 1  # version; no entries, no errors
    return _with_checksum(block)


def _self_test_log(drive: AtaDevice) -> bytes:
    block = bytearray(512)
    pack_into("<H", block, 0, 1)
    tests = drive.settings.self_tests
    for index, kind in enumerate(tests):
        pack_into("<BBH", block, 2 + 24 * index, kind, 0, 1)  # which test, passed, at which hour of life
    block[508] = len(tests)  # the descriptor written last, from 1
    return _with_checksum(block)


def _directory(drive: AtaDevice) -> bytes:
    block = bytearray(512)
    pack_into("<H", block, 0, 1)
    for log in LOGS:
        if log:
            block[2 * log] = 1  # pages
    return bytes(block)


LOGS: dict[int, Callable[[AtaDevice], bytes]] = {0x00: _directory, 0x01: _error_log, 0x06: _self_test_log}


def _read_log(drive: AtaDevice) -> int | None:
    log = LOGS.get(drive.task_file.lba_low & 0xFF)
    if log is None or drive.task_file.count & 0xFF != 1:
        return ABRT
    drive.send(log(drive))
    return None


def _autosave(drive: AtaDevice) -> int:
    choice = drive.task_file.count & 0xFF
    if choice not in (0x00, 0xF1):
        return ABRT
    drive.settings.smart_autosave = choice == 0xF1
    return 0


def _off_line(drive: AtaDevice) -> int:
    """The routines end at once: short, extended self-test and the collection that leaves no trace in the log."""
    kind = drive.task_file.lba_low & 0xFF
    if kind not in (0x00, 0x01, 0x02):
        return ABRT
    if kind:
        drive.settings.self_tests = [*drive.settings.self_tests, kind][-SELF_TESTS_KEPT:]
    return 0


def _enable(drive: AtaDevice) -> int:
    drive.settings.smart_enabled = True
    return 0


def _disable(drive: AtaDevice) -> int:
    drive.settings.smart_enabled = False
    return 0


def _status(drive: AtaDevice) -> int:
    """The key as it is: no threshold was exceeded."""
    return 0


SUBCOMMANDS: dict[int, Callable[[AtaDevice], int | None]] = {
    0xD0: _read_data,
    0xD1: _read_thresholds,
    0xD2: _autosave,
    0xD3: lambda drive: 0,  # SAVE ATTRIBUTE VALUES: they never change
    0xD4: _off_line,
    0xD5: _read_log,
    0xD8: _enable,
    0xD9: _disable,
    0xDA: _status,
}
