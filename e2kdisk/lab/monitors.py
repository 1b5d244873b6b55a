"""Monitors: contracts between a controller and a guest's driver that must hold in every run, whatever is decided.

They read the stream of events, so they know what the guest can know and nothing of how a controller works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2kdisk.lab.events import Event
from e2kdisk.lab.witness import SECTOR_BYTES, Version

if TYPE_CHECKING:
    from e2kdisk.lab.rig import Drive, Rig

USED_ELEMENT_BYTES = 8
ERROR_STATUS = 1
"""Any request status but 0 is an error."""


class Monitor:
    """Watches one run; a subclass calls broken() when its contract is."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def broken(self, what: str) -> None:
        """The contract is broken: the run has failed."""
        self.rig.violation(f"{type(self).__name__}: {what}")

    def event(self, event: Event) -> None:
        """Look at one event."""
        raise NotImplementedError


class FlushIsDurable(Monitor):
    """A FLUSH ends when the writes that had ended before it began are durable; without a cache, so does a write."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._begun: dict[tuple[str, object], tuple[int, list[Version]]] = {}

    def event(self, event: Event) -> None:
        """Monitor.event."""
        if event.kind not in ("submit", "request"):
            return
        drive = self.rig.drive_of(event)
        if drive is None:
            return
        kind, key = str(event.fields["type"]), (event.source, event.fields.get("head", event.fields.get("drive")))
        if event.kind == "submit":
            if "FLUSH" in kind:
                self._begun[key] = drive.volume.completed, drive.witness.completed()
            return
        begun = self._begun.pop(key, None)
        if event.fields["status"]:
            return
        if begun is not None:
            self._must_be_durable(drive, *begun)
        elif not drive.disk.write_cache:
            start = event.fields["sector"]
            assert isinstance(start, int)
            versions = [version for version in drive.witness.completed() if version.offset == start * SECTOR_BYTES]
            self._must_be_durable(drive, max((version.mark for version in versions), default=0), versions)

    def _must_be_durable(self, drive: Drive, completed: int, versions: list[Version]) -> None:
        drive.witness.promise(versions)
        if versions and drive.volume.flushed < completed:
            missing = completed - drive.volume.flushed
            self.broken(
                f"{drive.name}: the guest was told that all is durable, but {missing} changes of the file are not"
            )


class NothingAfterReset(Monitor):
    """After a reset a controller leaves guest memory and the interrupt alone until it is given a new request."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._silent: set[str] = set()

    def event(self, event: Event) -> None:
        """Monitor.event."""
        if event.kind == "reset" and "drives" not in event.fields:
            self._silent.add(event.source)
        elif event.source in self._silent:
            if event.kind == "submit":
                self._silent.discard(event.source)
            elif (
                event.kind in ("ring", "message")
                or (event.kind == "dma" and event.fields["direction"] == "to guest")
                or (event.kind == "interrupt" and event.fields["level"])
            ):
                self.broken(f"{event.source}: {event.kind} after its reset")


class UsedOnce(Monitor):
    """Each head comes back once, after its data and its status; the index counts what came back (VIRTIO 1.2 2.7.8)."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._open: dict[tuple[str, object], bool] = {}
        """Heads that the device has; whether their status is in memory."""
        self._status: dict[tuple[str, object], tuple[str, object]] = {}

    def event(self, event: Event) -> None:
        """Monitor.event."""
        match event.kind:
            case "submit" if "status_at" in event.fields:
                key = event.source, event.fields["head"]
                if key in self._open:
                    self.broken(f"{event.source}: took head {key[1]} twice")
                self._open[key] = False
                self._status[event.source, event.fields["status_at"]] = key
            case "dma" if event.fields["direction"] == "to guest":
                key = self._status.get((event.source, event.fields["address"]), ("", None))
                if key in self._open:
                    self._open[key] = True
            case "ring":
                values = event.fields["values"]
                assert isinstance(values, tuple)
                if len(values) == 2:
                    key = event.source, values[0]
                    done = self._open.pop(key, None)
                    if done is None:
                        self.broken(f"{event.source}: gave back head {values[0]}, which it did not have")
                    elif not done:
                        self.broken(f"{event.source}: gave back head {values[0]} before its status")
            case "reset":
                for key in [key for key in self._open if key[0] == event.source]:
                    del self._open[key]


class AnsweredOnce(Monitor):
    """An ATA drive ends each command once, with its data in memory, and none that a reset has ended before."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._open: dict[tuple[str, object], object] = {}
        """Drives that have a command, and the number of the request."""
        self._moved: dict[object, int] = {}
        """Bytes of each of these that are in guest memory."""
        self._sources: set[str] = set()
        """Controllers of such drives."""

    def event(self, event: Event) -> None:
        """Monitor.event."""
        fields = event.fields
        match event.kind:
            case "submit" if "drive" in fields:
                key = event.source, fields["drive"]
                if key in self._open:
                    self.broken(f"{event.source}: drive {key[1]} took a command before the last one had ended")
                self._sources.add(event.source)
                self._open[key] = fields["request"]
                self._moved[fields["request"]] = 0
            case "dma" if fields["direction"] == "to guest" and event.source in self._sources:
                if fields["request"] not in self._moved:
                    self.broken(f"{event.source}: wrote guest memory for no command")
                else:
                    length = fields["length"]
                    assert isinstance(length, int)
                    self._moved[fields["request"]] += length
            case "request" if "drive" in fields:
                self._ends(event)
            case "reset" if "drives" in fields:
                drives = fields["drives"]
                assert isinstance(drives, tuple)
                for place in drives:
                    self._moved.pop(self._open.pop((event.source, place), None), None)

    def _ends(self, event: Event) -> None:
        key = event.source, event.fields["drive"]
        if key not in self._open:
            self.broken(f"{event.source}: drive {key[1]} ended a command that it did not have")
            return
        moved = self._moved.pop(self._open.pop(key))
        kind, length = str(event.fields["type"]), event.fields["bytes"]
        if kind.startswith("READ DMA") and not event.fields["status"] and moved != length:
            self.broken(f"{event.source}: drive {key[1]} ended a read of {length} bytes with {moved} of them in memory")


MONITORS: tuple[type[Monitor], ...] = (FlushIsDurable, NothingAfterReset, UsedOnce, AnsweredOnce)
