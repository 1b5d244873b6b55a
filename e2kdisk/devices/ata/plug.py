"""Plugging disks into a controller: each becomes a drive with a name of its own."""

from __future__ import annotations

from collections.abc import Sequence

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.devices.ata.device import AtaDevice
from e2kdisk.devices.ata.identify import Identity
from e2kdisk.errors import UsageError


def plugged(name: str, disks: Sequence[Disk | AtaDevice | None]) -> tuple[list[AtaDevice | None], Scheduler]:
    """Drives for disks, None for a place that stays empty, and the scheduler that all of them run on.

    A disk without a serial number gets one from its place. Raises UsageError when the disks have several schedulers.
    """
    drives = [
        AtaDevice(disk, identity=Identity.of(disk, place)) if isinstance(disk, Disk) else disk
        for place, disk in enumerate(disks, 1)
    ]
    schedulers = {drive.disk.scheduler for drive in drives if drive is not None}
    if len(schedulers) > 1:
        raise UsageError(f"{name}: its disks run on several schedulers; open each with the scheduler of the first")
    return drives, schedulers.pop() if schedulers else Scheduler()
