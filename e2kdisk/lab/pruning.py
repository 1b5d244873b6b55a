"""Exhaustive exploration with pruning: runs that come to the same state of machine, disks and test go on as one.

What the next step can depend on is in the fingerprint: guest memory, CPU, chips, controllers, formats with their
suspended coroutines, calls in flight, files, monitors, time, and what the scenario itself holds (Scenario.state).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.devices.pci.window import PciWindow
from e2kdisk.lab.decisions import Decisions, Natural
from e2kdisk.lab.events import EventStream
from e2kdisk.lab.explore import Found, local_scenario
from e2kdisk.lab.fingerprint import Fingerprint, Leaf, digest
from e2kdisk.lab.record import Record
from e2kdisk.lab.rules import Rules
from e2kdisk.lab.search import Choose, Known, Search, search
from e2kdisk.lab.volume import ORDER_DECISION, Traffic, VolumeNode
from e2kdisk.lab.witness import WitnessNode
from e2kdisk.machine.bus import Bus
from e2kdisk.machine.machine import Machine
from e2kdisk.machine.ram import GuestRam

COUNTING = ("VolumeNode._call", "FollowingScheduler._follow")
"""Coroutines that know numbers of events."""

if TYPE_CHECKING:
    from e2kdisk.lab.rig import Drive, Rig


class Searching:
    """A Source that asks a search, and shows it the state where the choice is made."""

    def __init__(self, choose: Choose, rig: Rig, test: Callable[[], Sequence[object]], *, cuts: bool) -> None:
        self._choose = choose
        self._rig = rig
        self._test = test
        self._cuts = cuts

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick. Raises Known."""
        # Which call comes first is said by the calls in flight, whatever the order in which they came.
        what = "" if name.startswith(ORDER_DECISION) else name
        return self._choose(options, lambda: state_of(self._rig, what, *self._test(), cuts=self._cuts))


def state_of(rig: Rig, *more: object, cuts: bool) -> bytes:
    """The fingerprint of a rig in a run; with power cuts, what is not durable is part of it."""
    machine = rig.machine
    leaves: list[tuple[type, Leaf]] = [
        # What these hold is named below, or is no part of what can happen.
        (Scheduler, _nothing),
        (EventStream, _nothing),
        (Decisions, _nothing),
        (Traffic, _nothing),
        (PciWindow, _nothing),  # which region it found last; where regions are is in the functions
        (Machine, _nothing),
        (Bus, _nothing),
        (GuestRam, _nothing),
        (type(rig), _nothing),
        (type(machine.board), _nothing),
        (type(machine.cpu), lambda cpu: [_registers(cpu)]),
        (VolumeNode, _file_with_cuts if cuts else _file),
        (WitnessNode, _witness),
    ]
    return Fingerprint(leaves, COUNTING).of(
        more,
        machine.time.now_ns(),
        digest(machine.board.ram.view),
        machine.cpu,
        machine.board.chips,
        machine.board.controllers,
        [console.save() for console in machine.consoles],
        [_drive(drive) for drive in rig.drives],
        sorted(rig.traffic.waiting, key=lambda call: call.name),
        (rig.traffic.faults, rig.traffic.is_cut, rig.violations),
        rig.scheduler.next_timer_ns(),
        rig.monitors,
    )


def _nothing(thing: object) -> Sequence[object]:
    return ()


def _registers(cpu: Any) -> object:
    # A saved Unicorn CPU has addresses of the host in it, which differ between equal states.
    names = getattr(cpu, "REGISTERS", None)
    return cpu.save() if names is None else [(name, cpu.read_register(name)) for name in names]


def _file(volume: VolumeNode) -> Sequence[object]:
    in_flight = [change for change in volume.undurable if not change.completed]
    return volume.content.digest(), volume.completed, volume.flushed, in_flight


def _file_with_cuts(volume: VolumeNode) -> Sequence[object]:
    return *_file(volume), volume.durable.digest(), volume.undurable


def _drive(drive: Drive) -> Sequence[object]:
    # When the changes of a write were complete is looked at only where a write must be durable by itself.
    marks = [] if drive.disk.write_cache else [version.mark for version in drive.witness.versions]
    return drive.name, drive.disk, drive.volume, drive.witness, marks


def _witness(witness: WitnessNode) -> Sequence[object]:
    """Which write was over before which began is what judgements are made of, not when."""
    versions = witness.versions
    return [
        witness.node,
        [
            (
                (version.offset, version.length, version.data, version.failed, version.durable, version.ended is None),
                [at for at, other in enumerate(versions) if other.ended is not None and other.ended < version.began],
            )
            for version in versions
        ],
    ]


@dataclass(slots=True)
class FoundStates(Found):
    """What an exploration of all states has shown."""

    search: Search = field(default_factory=Search)

    def summary(self) -> str:
        """Found.summary."""
        every = ", every order there is" if self.complete else ""
        return f"{len(self.search.states)} states stand for {self.search.orders} runs{every}"


def explore_states(
    name: str,
    rules: Rules,
    *,
    most: int = 100_000,
    tell: Callable[[Found], None] = lambda found: None,
    stop_after: int = 1,
) -> FoundStates:
    """Follow every state once, at most so many; Found.complete says if all. In this process.

    Raises UsageError for a scenario that does not say what its own state is.
    """
    scenario, found = local_scenario(name), FoundStates()
    scenario.state()

    def run(choose: Choose) -> None:
        made = scenario.run(Searching(choose, scenario.rig, scenario.state, cuts=rules.power_cut), rules)
        found.runs += 1
        found.cuts += made.cut
        found.decisions += len(made.decisions)
        if made.known:
            raise Known
        found.hashes.add(made.hash)
        if made.failed and len(found.failures) < stop_after:
            found.failures.append(Record(name, rules, made.decisions, made.hash, made.violations))
        tell(found)

    scenario.run(Natural(), rules)  # what the first run of a machine leaves in it is no part of any state
    found.search = search(run, most)
    found.complete = found.search.complete
    return found
