"""Scenario: what the laboratory runs again and again; and how it is found by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from e2kdisk.errors import UsageError
from e2kdisk.lab.aftermath import complaints, complaints_at_end
from e2kdisk.lab.checkpoint import Checkpoint
from e2kdisk.lab.decisions import Source
from e2kdisk.lab.events import Event, Listener
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rig import Rig, Run
from e2kdisk.lab.rules import PLAIN, TIMING, Rules


class Scenario:
    """One experiment. A subclass says how its rig is built, what each run does and what must then hold.

    It is made once in each process, with a directory of its own for what it prepares.
    """

    DESCRIPTION: ClassVar[str] = ""
    RULES: ClassVar[Rules] = TIMING
    """What is decided unless the user wants something else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._alive: set[bytes] | None = None
        self.found: list[Pages] = []
        """What the last run, or its power cut, has left of each file."""
        self.rig = self.build()
        self.rig.set_base()

    # -- to be said by each scenario --------------------------------------------------------------

    def build(self) -> Rig:
        """Make the rig and bring the guest to where every run begins."""
        raise NotImplementedError

    def act(self, rig: Rig) -> None:
        """One run: let the guest work; raise AssertionError, or what the machine raises, when it went wrong."""
        raise NotImplementedError

    def revive(self, rig: Rig) -> None:
        """After a power cut, on what was found, with the machine at the base: show that the guest still works."""

    def state(self) -> Sequence[object]:
        """What act() itself holds in the middle of a run and goes on by: all of it, or pruning would be wrong.

        Raises UsageError for a scenario that does not say, which cannot be pruned.
        """
        raise UsageError(f"{type(self).__name__} does not say what its own state is: --prune needs its state()")

    # -- runs -------------------------------------------------------------------------------------

    def run(self, source: Source, rules: Rules = PLAIN, *, listeners: Sequence[Listener] = ()) -> Run:
        """One run, and after a power cut what comes after it; listeners hear of all violations."""
        return self._judge(self.rig.run(self.act, source, rules, listeners=listeners), listeners)

    def resume(
        self, checkpoint: Checkpoint, source: Source | None = None, *, listeners: Sequence[Listener] = ()
    ) -> Run:
        """Rig.resume, and what comes after it. Raises ReplayError."""
        return self._judge(self.rig.resume(checkpoint, self.act, source, listeners=listeners), listeners)

    def _judge(self, run: Run, listeners: Sequence[Listener]) -> Run:
        """Add to a run what the image says at its end."""
        if run.known:
            return run
        heard, ns = len(run.violations), self.rig.events.now_ns()
        if run.cut:
            self._after_cut(run)
        else:
            if not run.violations:
                run.violations += complaints_at_end(self.rig)
            self.found = [drive.volume.content for drive in self.rig.drives]
        for what in run.violations[heard:]:
            for listener in listeners:
                listener(Event(ns, "lab", "violation", {"what": what}))
        return run

    @contextmanager
    def each_content_once(self) -> Iterator[None]:
        """Revive the guest once for each content that power cuts leave: the same one makes the same run again."""
        self._alive = set()
        try:
            yield
        finally:
            self._alive = None

    def _after_cut(self, run: Run) -> None:
        rig = self.rig
        found = self.found = [drive.volume.after_cut() for drive in rig.drives]
        run.left = b"".join(pages.digest() for pages in found)
        run.violations += complaints(rig, found)
        if not run.violations and (self._alive is None or run.left not in self._alive):
            rig.restore(rig.base, found)
            try:
                self.revive(rig)
            except (UsageError, AssertionError, OSError) as error:
                run.violations.append(f"after the power cut: {type(error).__name__}: {error}")
        if not run.violations and self._alive is not None:
            self._alive.add(run.left)

    def close(self) -> None:
        """Free the rig."""
        self.rig.close()


BUILT_IN: Mapping[str, str] = {
    "guest-arm64": "e2kdisk.lab.scenarios:GuestArm64",
    "guest-riscv64": "e2kdisk.lab.scenarios:GuestRiscv64",
    "elbrus-ide-dma": "e2kdisk.lab.scenarios:ElbrusIdeDma",
    "elbrus-ide-pio": "e2kdisk.lab.scenarios:ElbrusIdePio",
    "elbrus-virtio": "e2kdisk.lab.scenarios:ElbrusVirtio",
}
"""Name -> module:class."""


def find_scenario(name: str) -> type[Scenario]:
    """A built-in scenario, or "file.py:Class" of the user's own. Raises UsageError."""
    place = BUILT_IN.get(name, name)
    module_name, colon, class_name = place.rpartition(":")
    if not colon:
        raise UsageError(f"unknown scenario {name!r}; known are {', '.join(BUILT_IN)}, and FILE.py:CLASS for your own")
    try:
        module = _load_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except UsageError:
        raise
    except Exception as error:  # whatever a module of the user's does when it is loaded
        raise UsageError(f"scenario {name}: {module_name}: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Scenario)):
        raise UsageError(f"scenario {name}: {class_name} is not a Scenario in {module_name}")
    missing = [method for method in ("build", "act") if getattr(found, method) is getattr(Scenario, method)]
    if missing:
        raise UsageError(f"scenario {name}: {class_name} has no {missing[0]}()")
    return found


def _load_file(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("e2kdisk_scenario_" + Path(path).stem, os.path.abspath(path))
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise UsageError(f"scenario file {path}: is not there")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up, and so does pickle in another process.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
