"""Checkpoint: a place inside a run, with the requests that are in flight there, as plain data.

    base --decisions--> checkpoint --decisions--> end

A request in flight is a coroutine somewhere inside a format, which cannot be written down, and to submit it once more
would be another run. But a run is a function of its base and its decisions: these two are the state, exactly, and the
way back is the same beginning made once more, from the base and not from the boot. Its price is thus that of the
beginning; the hash of the events there shows that it is the same place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2kdisk.lab.decisions import Continued, Decision, ReplayError, Source

if TYPE_CHECKING:
    from e2kdisk.lab.events import Event, EventStream
    from e2kdisk.lab.rig import Base
    from e2kdisk.lab.rules import Rules


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run is; it can be pickled, and another process with the same scenario can go on from it."""

    base: Base
    """CPU, RAM, devices and clock where the run began, and the files of its disks."""
    rules: Rules
    decisions: tuple[Decision, ...]
    """Made since then."""
    source: Source
    """Of the decisions that are still to come, as it was here."""
    events: int
    """Of the run until here: what the place is known by."""
    hash: str
    """Of these events."""
    in_flight: int
    """Requests and parts of them that wait for a file, a lock or a time."""
    ns: int
    """Of the guest's time."""


class Return:
    """The way back to a checkpoint: the decisions that lead there, and a listener that looks at the place."""

    def __init__(self, checkpoint: Checkpoint, stream: EventStream, source: Source) -> None:
        """`source` decides after the checkpoint."""
        self.source = Continued(checkpoint.decisions, source)
        self._checkpoint = checkpoint
        self._stream = stream
        self._found = ""
        """The hash at the place."""

    def event(self, event: Event) -> None:
        """Listener: an error raised here would be one of the guest's disk, so verify() is asked after the run."""
        # Not ==: what a monitor complains of stands behind the event and is told before it.
        if not self._found and self._stream.events >= self._checkpoint.events:
            self._found = self._stream.hash

    def verify(self) -> None:
        """Raise ReplayError if the run did not come by the checkpoint."""
        if self._checkpoint.events and self._found != self._checkpoint.hash:
            raise ReplayError(
                f"the checkpoint after {self._checkpoint.events} events is not one of this run: "
                "the code or the scenario has changed since"
            )
