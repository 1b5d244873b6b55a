"""Rig: one machine with its disks in memory, put back to the same base for each run.

A run begins at the base with formats freshly opened, so it is a function of its decisions: that is also how one comes
back to any point inside a run, with its requests in flight, in another process or on another day (see checkpoint).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.engine import AutoEngine
from e2kdisk.block.disk import Disk
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import UsageError
from e2kdisk.lab.checkpoint import Checkpoint, Return
from e2kdisk.lab.decisions import Decision, Decisions, Natural, ReplayError, Source
from e2kdisk.lab.events import POLLS, Event, EventStream, Listener
from e2kdisk.lab.following import FollowingScheduler
from e2kdisk.lab.limited import LimitedMachine
from e2kdisk.lab.monitors import MONITORS, Monitor
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import PLAIN, Rules
from e2kdisk.lab.search import Known
from e2kdisk.lab.volume import Traffic, VolumeNode
from e2kdisk.lab.wires import LabWiring
from e2kdisk.lab.witness import WitnessNode
from e2kdisk.machine.boards.board import Placed
from e2kdisk.machine.state import MachineState

MOST_ERRORS = 100
"""Requests of one run whose own failure is put up with: a ring has no more entries in any scenario."""


@dataclass(slots=True)
class Drive:
    """One disk of a rig, from the file up."""

    name: str
    options: OpenOptions
    volume: VolumeNode
    witness: WitnessNode
    disk: Disk


@dataclass(frozen=True, slots=True)
class Base:
    """Where runs begin; plain data, so it goes to other processes."""

    state: MachineState
    volumes: list[Pages]


@dataclass(slots=True)
class Run:
    """What one run was and how it ended."""

    decisions: list[Decision]
    hash: str
    """Of its events."""
    events: int
    violations: list[str] = field(default_factory=list)
    cut: bool = False
    """It ended with a power cut."""
    known: bool = False
    """It came to a state that another run has been in, and was given up there: nothing is judged."""
    left: bytes = b""
    """Digest of what the cut left on the disks."""

    @property
    def failed(self) -> bool:
        """Whether something that must hold did not."""
        return bool(self.violations)


class Rig:
    """A machine for many runs."""

    def __init__(
        self,
        board: str,
        bios: bytes | str | os.PathLike[str],
        images: Sequence[str | os.PathLike[str]] = (),
        *,
        ram: int = 64 << 20,
        format: str | None = None,
        plug: Callable[[Sequence[Disk]], Iterable[Placed]] | None = None,
        **machine: Any,
    ) -> None:
        """Build it; images are read once and never written. Further arguments are Machine's.

        The board puts controllers in front of the disks, unless `plug` makes others of them.
        """
        self.events = EventStream()
        self.scheduler = FollowingScheduler(VirtualClock(), self.events)
        self.decisions = Decisions(Natural())
        self.running = False
        self.violations: list[str] = []
        self.monitors: list[Monitor] = []
        self.on_cut: Callable[[], None] = lambda: None
        self.traffic = Traffic(self.scheduler, lambda: self.machine.time.now_ns() if self.running else 0)
        self.traffic.begin(PLAIN, self.decisions)
        self.traffic.on_event = lambda kind, fields: self.events.event(
            "file", kind, **fields, request=self.events.current
        )
        self.traffic.on_cut = self._cut
        self._opener = Opener(AutoEngine(self.scheduler), OpenPolicy.permissive())
        self.drives = [self._make_drive(number, os.fspath(path), format) for number, path in enumerate(images)]
        disks = [drive.disk for drive in self.drives]
        self.machine = LimitedMachine(
            board,
            bios=bios,
            ram=ram,
            **({"drives": disks} if plug is None else {"controllers": plug(disks)}),
            trace=self.events,
            scheduler=self.scheduler,
            wiring=LabWiring(self),
            **machine,
        )
        # The disassembly of each access would cost more than the run; where it was made is enough for the hash.
        self.machine.board.bus.where = lambda: {"pc": self.machine.cpu.pc}
        self.events.on_polling = self._skip_waiting
        named = {id(drive.disk): drive for drive in self.drives}
        self._behind = {
            (controller.name, place): named[id(disk)]
            for controller in self.machine.board.controllers
            for place, disk in controller.disks.items()
        }
        self.base: Base

    def _make_drive(self, number: int, path: str, format: str | None) -> Drive:
        name = f"disk{number}"
        volume = VolumeNode(self.traffic, name, Pages.of_file(path))
        volume.note = partial(self._decided, name)
        options = OpenOptions(path, format=format)
        witness = self._watch(volume, options)
        return Drive(name, options, volume, witness, Disk(witness))

    def _decided(self, name: str, what: str, **fields: object) -> None:
        """A format has decided something."""
        self.events.event("format", what, file=name, **fields, request=self.events.current)

    def _watch(self, volume: VolumeNode, options: OpenOptions) -> WitnessNode:
        """The format in a file, freshly opened, with a witness above it."""
        node = self.scheduler.run(self._opener.open_format(volume, options))
        return WitnessNode(node, lambda: volume.completed)

    def drive_of(self, event: Event) -> Drive | None:
        """The drive behind the controller that an event comes from."""
        place = event.fields.get("drive", 0)
        return self._behind.get((event.source, place)) if isinstance(place, int) else None

    # -- base -------------------------------------------------------------------------------------

    def set_base(self) -> Base:
        """Let runs begin here: finish what is in flight, write everything out, and start from that."""
        state = self.machine.save()
        for drive in self.drives:
            drive.disk.sync()
            self.scheduler.run(drive.disk.node.close())
        self.base = Base(state, [drive.volume.content.copy() for drive in self.drives])
        self.restore(self.base)
        return self.base

    def restore(self, base: Base, volumes: Sequence[Pages] | None = None) -> None:
        """Go back to a base, with other contents of the files if they are given. Raises ImageError for bad ones."""
        self.running = False
        self.traffic.begin(PLAIN, self.decisions)
        for drive, content in zip(self.drives, base.volumes if volumes is None else volumes, strict=True):
            drive.volume.restart(content)
            drive.witness = self._watch(drive.volume, drive.options)
            drive.disk.replace(drive.witness)
        self.machine.load(base.state)

    # -- runs -------------------------------------------------------------------------------------

    def run(
        self,
        act: Callable[[Rig], None],
        source: Source | None = None,
        rules: Rules = PLAIN,
        *,
        listeners: Sequence[Listener] = (),
    ) -> Run:
        """Make one run from the base: act() drives the guest, what monitors find and what act() raises are violations.

        After a power cut act() ends early, whatever it then raises is part of the cut.
        """
        self.restore(self.base)
        self.violations = []
        self.events.begin()
        self.decisions = Decisions(Natural() if source is None else source)
        self.decisions.on_decision = lambda made: self.events.event("decision", made.name, choice=made.choice)
        self.traffic.begin(rules, self.decisions)
        self.traffic.calls = 0
        self.monitors = [monitor(self) for monitor in MONITORS]
        self.events.listeners = [*(monitor.event for monitor in self.monitors), *listeners]
        known = False
        self.running = True
        try:
            act(self)
            if not self.traffic.is_cut:
                self.machine.scheduler.drain()
        except ReplayError:
            raise
        except Known:
            known = True
        except Exception as error:  # whatever our own code raises while a guest runs is a mistake of ours, too
            if not self.traffic.is_cut:
                self.violation(f"{type(error).__name__}: {error}")
        finally:
            self.running = False
            self.events.listeners = list(listeners)  # the contracts end with the run
        cut = self.traffic.is_cut
        if not cut:
            self.traffic.begin(PLAIN, Decisions(Natural()) if known else self.decisions)
        self._end_requests()
        self.events.listeners = []
        return Run(self.decisions.made, self.events.hash, self.events.events, self.violations, cut, known)

    def checkpoint(self) -> Checkpoint:
        """Where the run is that goes on now: for act(), or for a listener. Raises UsageError outside of a run."""
        if not self.running:
            raise UsageError("a checkpoint is a place inside a run, and none goes on")
        return Checkpoint(
            self.base,
            self.traffic.rules,
            tuple(self.decisions.made),
            deepcopy(self.decisions.source),
            self.events.events,
            self.events.hash,
            len(self.scheduler.tasks),
            self.machine.time.now_ns(),
        )

    def resume(
        self,
        checkpoint: Checkpoint,
        act: Callable[[Rig], None],
        source: Source | None = None,
        *,
        listeners: Sequence[Listener] = (),
    ) -> Run:
        """Go back to a checkpoint and on to the end of its run, with the decisions to come, or those of a source.

        Costs as much as the run up to there did. Raises ReplayError if it was another run's.
        """
        way = Return(checkpoint, self.events, deepcopy(checkpoint.source) if source is None else source)
        own, self.base = self.base, checkpoint.base
        try:
            run = self.run(act, way.source, checkpoint.rules, listeners=[*listeners, way.event])
        finally:
            self.base = own
        way.verify()
        return run

    def _end_requests(self) -> None:
        """End what is in flight, so that the next run can begin; after a cut every call fails, so this ends.

        The scheduler raises one lost error at a time; the first tells enough.
        """
        for attempt in range(MOST_ERRORS):
            try:
                self.machine.scheduler.drain()
                return
            except Exception as error:
                if attempt == 0:
                    self.violation(f"{type(error).__name__}: {error}")

    def violation(self, what: str) -> None:
        """Something that must hold does not: the run goes on, and has failed."""
        self.violations.append(what)
        self.events.event("lab", "violation", what=what)

    def _skip_waiting(self, polls: int) -> None:
        """The guest polls: nothing happens before the next timer, so neither does the laboratory wait for it.

        Without a timer it waits for input: who runs the machine may have seen what it ran it for.
        """
        timer_ns = self.scheduler.next_timer_ns()
        if not self.running:
            return
        if self.traffic.waiting:
            self.machine.cpu.kick()
        elif timer_ns is not None:
            self.machine.time.skip_to(timer_ns)
        elif polls % POLLS == 0:
            self.machine.cpu.kick()

    def _cut(self) -> None:
        self.machine.stop()
        self.on_cut()

    def close(self) -> None:
        """Free the machine."""
        self.running = False
        self.traffic.begin(PLAIN, self.decisions)
        self.machine.close()
