"""Experiment: the images and machines of one test, and what a report of its failure shows of them.

This module is imported with the pytest plug-in by every test run, so what is heavy is imported when it is used.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from e2kdisk.errors import UsageError

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.lab.board_bus import BoardBus
    from e2kdisk.lab.event_log import EventLog
    from e2kdisk.lab.limited import LimitedMachine

Keep = Literal["never", "failed", "always"]
TRANSCRIPT_LINES = 100
"""Of each console in a report."""
TRACE_EVENTS = 40
CHUNK = 1 << 20


class Experiment:
    """What one test uses; finish() ends it."""

    def __init__(
        self, directory: Path, *, most_instructions: int | None = None, runs: bool = True, keep: Keep = "failed"
    ) -> None:
        """runs: its machines may run; else the test takes the place of their CPUs."""
        self.directory = directory
        self.trace: EventLog | None = None
        """Of every machine made from now on."""
        self._most_instructions = most_instructions
        self._runs = runs
        self._keep = keep
        self._images: list[Path] = []
        self._disks: list[Disk] = []
        self._machines: list[LimitedMachine] = []
        self._numbers = count()

    def image(
        self,
        size: int | None = None,
        *,
        format: str = "qcow2",
        backing: str | os.PathLike[str] | None = None,
        fill: int | bytes | None = None,
        name: str = "",
        **options: Any,
    ) -> Path:
        """A new image in the test's directory; see make_image. name is that of the file."""
        path = self.directory / (name or f"disk{next(self._numbers)}.{format}")
        self._images.append(path)
        return make_image(path, size, format=format, backing=backing, fill=fill, **options)

    def drive(self, size: int | None = None, *, format: str = "qcow2", **options: Any) -> Disk:
        """An open disk on a new image; arguments are image()'s. All of a test share a scheduler, so a machine's can."""
        from e2kdisk.block.open import open_disk
        from e2kdisk.block.policy import OpenPolicy

        image = self.image(size, format=format, **options)
        scheduler = self._disks[0].scheduler if self._disks else None
        disk = open_disk(image, format=format, scheduler=scheduler, policy=OpenPolicy.permissive())
        self._disks.append(disk)
        return disk

    def bus(self, board: str = "virt-arm64", **options: Any) -> BoardBus:
        """The addresses of a new machine, whose CPU does not run; arguments are machine()'s."""
        from e2kdisk.lab.board_bus import BoardBus

        return BoardBus(self.machine(board, runs=False, **options))

    def machine(self, board: str = "virt-arm64", **options: Any) -> LimitedMachine:
        """A new machine; arguments are Machine's. Raises what Machine raises."""
        from e2kdisk.block.policy import OpenPolicy
        from e2kdisk.lab.limited import LimitedMachine

        # A test's images are its own, and their backing files are in a directory that it shares with others.
        options = {"policy": OpenPolicy.permissive(), "trace": self.trace, "runs": self._runs} | options
        machine = LimitedMachine(board, most_instructions=self._most_instructions, **options)
        self._machines.append(machine)
        return machine

    def start_trace(self) -> EventLog:
        """Record what machines do from now on."""
        from e2kdisk.lab.event_log import EventLog

        self.trace = EventLog()
        return self.trace

    def release(self, machine: LimitedMachine) -> None:
        """Close a machine that the test does not see."""
        self._machines.remove(machine)
        machine.close()

    def sections(self) -> list[tuple[str, str]]:
        """Title and text of what a report of a failure shows."""
        shown = []
        for number, machine in enumerate(self._machines):
            said = machine.console.transcript.replace("\r\n", "\n").replace("\r", "")
            lines = said.splitlines()[-TRANSCRIPT_LINES:]
            title = f"console of machine {number} ({machine.board.NAME}, {machine.instructions} instructions)"
            shown.append((title, "\n".join(lines) or "(nothing)"))
        if self.trace is not None and self.trace.recent:
            shown.append(("last events", self.trace.tail(TRACE_EVENTS)))
        return shown

    def kept_images(self, *, failed: bool) -> list[Path]:
        """The images that stay after finish()."""
        stay = self._keep == "always" or (self._keep == "failed" and failed)
        return [path for path in self._images if path.exists()] if stay else []

    def finish(self, *, failed: bool) -> None:
        """Close the machines and remove the images that are not to be kept. Raises what closing raises."""
        kept = self.kept_images(failed=failed)
        with ExitStack() as stack:  # last in, first out, and all of them, whatever one raises
            for path in self._images:
                if path not in kept:
                    stack.callback(path.unlink, missing_ok=True)
            for disk in self._disks:
                stack.callback(disk.close)
            for machine in self._machines:
                stack.callback(machine.close)


def make_image(
    path: Path,
    size: int | None = None,
    *,
    format: str = "qcow2",
    backing: str | os.PathLike[str] | None = None,
    fill: int | bytes | None = None,
    **options: Any,
) -> Path:
    """Make an image file: qcow2 or raw, of `size` bytes or as long as its backing file.

    fill is a byte for the whole disk, or the bytes that it begins with; options are those of e2kdisk.create. Raises
    UsageError, ImageError, OSError.
    """
    if format == "qcow2":
        from e2kdisk.qcow2.create import create

        if backing is not None:
            backing = os.path.abspath(backing)
            options = {"backing_format": _format_of(backing)} | options
        create(path, size, backing_file=backing, **options)
    elif format == "raw" and size is not None and backing is None and not options:
        with path.open("wb") as file:
            file.truncate(size)
    else:
        raise UsageError(f"{path.name}: an image is qcow2, or raw with a size, no backing file and no options")
    if fill is not None:
        _fill(path, format, fill)
    return path


def _fill(path: Path, format: str, fill: int | bytes) -> None:
    from e2kdisk.block.open import open_disk
    from e2kdisk.block.policy import OpenPolicy

    with open_disk(path, format=format, policy=OpenPolicy.permissive()) as disk:
        if isinstance(fill, bytes):
            disk.pwrite(0, fill)
            return
        for offset in range(0, disk.size, CHUNK):
            disk.pwrite(offset, bytes([fill]) * min(CHUNK, disk.size - offset))


def _format_of(path: str) -> str:
    # Its first bytes are believed here: it is an image of the tests' own.
    with open(path, "rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
