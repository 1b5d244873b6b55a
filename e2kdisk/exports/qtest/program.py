"""qemu-system-ARCH for programs that drive devices by qtest: from a command line to its end.

Exit status: 0 at a client's quit, at SIGTERM, or when nobody is left to speak; 1 with one line that says why.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.errors import UsageError
from e2kdisk.exports.qtest import chardev, command_line, models
from e2kdisk.exports.qtest.chardev import Line, StdioLine
from e2kdisk.exports.qtest.command_line import Configuration, Told, located
from e2kdisk.exports.qtest.devices import Devices
from e2kdisk.exports.qtest.drives import Drives
from e2kdisk.exports.qtest.emulator import Emulator
from e2kdisk.exports.qtest.models import MachineModel
from e2kdisk.exports.qtest.qmp import QmpSession
from e2kdisk.exports.qtest.server import Server
from e2kdisk.exports.qtest.session import ConsoleSession, QtestLog, QtestSession
from e2kdisk.exports.qtest.wires import Wires
from e2kdisk.machine.machine import Machine


def main(arguments: Sequence[str], program: str) -> int:
    """Run one command line under a program's name. Raises E2kDiskError, OSError."""
    machines = models.machines_of(program)
    if machines is None:
        known = ", ".join(models.PROGRAM + name for name in models.ARCHITECTURES)
        raise UsageError(f"no such emulator here; there are {known}")
    try:
        configuration = command_line.parse(arguments, machines, program)
    except Told as told:
        print(told)  # noqa: T201  (what was asked for)
        return 0
    _open_standard_streams()
    if configuration.ends_with_parent:
        _end_with_parent()
    lines = Lines(configuration)
    with ExitStack() as stack:
        server = stack.enter_context(Server(lines.all))
        log = QtestLog(_log_file(configuration, stack))
        emulator = build(configuration)
        stack.callback(emulator.close)  # before the log's end: wires fall when devices are reset, and that is logged
        lines.connect(emulator, log)
        server.run(emulator)
    return 0


def _open_standard_streams() -> None:
    """Give /dev/null to those that are closed: an image that got such a number would be read, or written, as a line."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent is gone (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))


def build(configuration: Configuration) -> Emulator:
    """Open the drives, put the machine together. Raises E2kDiskError, OSError."""
    model = configuration.machine
    assert model is not None
    drives = Drives(Scheduler(VirtualClock()), model.interface)
    try:
        for option, kind, tree in configuration.blocks:
            with located(option):
                (drives.add_drive if kind == "drive" else drives.add_blockdev)(tree)
        devices = Devices(model, drives, configuration.legacy_mmio)
        for option, tree in configuration.devices:
            with located(option):
                devices.add(tree)
        devices.add_loose()
        wires = Wires()
        machine = _machine(configuration, model, devices, wires)
    except BaseException:
        drives.close()
        raise
    running = not configuration.stopped
    return Emulator(machine, wires, drives, running=running, off_ends=configuration.off_ends)


def _machine(configuration: Configuration, model: MachineModel, devices: Devices, wires: Wires) -> Machine | None:
    if not model.board:
        return None
    with located(f"-bios {configuration.bios}"):
        try:
            bios = Path(configuration.bios).read_bytes() if configuration.bios else b""
        except (OSError, ValueError) as error:
            raise UsageError(getattr(error, "strerror", None) or str(error)) from None
    return Machine(
        model.board,
        bios=bios,
        ram=model.ram if configuration.ram is None else configuration.ram,
        controllers=devices.controllers(),
        virtio_version=1 if configuration.legacy_mmio else 2,
        scheduler=devices.drives.scheduler,
        wiring=wires,
    )


def _log_file(configuration: Configuration, stack: ExitStack) -> TextIO | None:
    """Where -qtest-log writes: the standard error unless it says."""
    if configuration.qtest_log is None:
        return None if configuration.qtest is None else sys.stderr
    if configuration.qtest_log == "none":
        return None
    return stack.enter_context(open(configuration.qtest_log, "w", encoding="utf-8", errors="surrogateescape"))


class Lines:
    """The character devices of a command line, and what is spoken on each."""

    def __init__(self, configuration: Configuration) -> None:
        """Raises UsageError."""
        self._chardevs: dict[str, Line] = {}
        for option, tree in configuration.chardevs:
            with located(option):
                name, line = chardev.make(tree)
                if name in self._chardevs:
                    raise UsageError(f"Duplicate ID '{name}' for chardev")
                self._chardevs[name] = line
        self.all: list[Line] = list(self._chardevs.values())
        self._taken: list[Line] = []
        self._configuration = configuration
        self._qtest = None if configuration.qtest is None else self._find(configuration.qtest, "-qtest")
        self._monitors = [self._find(text, "-qmp") for text in configuration.monitors]
        self._serials = [self._find(text, "-serial") for text in configuration.serials]
        if sum(isinstance(line, StdioLine) for line in self.all) > 1:
            raise UsageError("cannot use stdio by multiple character devices")

    def _find(self, text: str, option: str) -> Line:
        with located(f"{option} {text}"):
            if not text.startswith("chardev:"):
                line = chardev.from_short_form(text)
                self.all.append(line)
                return line
            name = text.removeprefix("chardev:")
            if name not in self._chardevs:
                raise UsageError(f'chardev "{name}" not found')
            line = self._chardevs[name]
            if any(line is other for other in self._taken):
                raise UsageError(f"chardev '{name}' is already in use")
            self._taken.append(line)
            return line

    def connect(self, emulator: Emulator, log: QtestLog) -> None:
        """Put the sessions on their lines, then open all. Raises UsageError."""
        if self._qtest is not None:
            self._qtest.session = QtestSession(emulator, log, self._qtest.send)
        for line in self._monitors:
            line.session = QmpSession(emulator, self._configuration.machines, line.send)
        consoles = () if emulator.machine is None else emulator.machine.consoles
        for line, console in zip(self._serials, consoles, strict=False):
            line.session = ConsoleSession(console, line.send)
        for line in self.all:
            line.open()
