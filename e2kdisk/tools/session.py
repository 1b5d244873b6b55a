"""One run of a machine for a user: who types, where the output goes, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from e2kdisk.errors import E2kDiskError
from e2kdisk.machine.machine import Machine, StopReason
from e2kdisk.tools.script import Expect, PowerOff, Send, Sleep, Step, Vm
from e2kdisk.tools.terminal import ESCAPE_HELP, EscapeKeys, Key, raw_mode

HINT = "e2kdisk: the console is yours; Ctrl-A x ends it, Ctrl-A h lists the other keys\n"
READ_SIZE = 4096
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """Runs a machine and shows its console; typed or scripted input comes from the methods that run it."""

    def __init__(self, machine: Machine, max_instructions: int | None = None) -> None:
        self.machine = machine
        self._limit = max_instructions
        self._shown = bytearray()
        self._signal = 0
        machine.console.on_output = self._shown.extend

    # -- running ----------------------------------------------------------------------------------

    def typed(self, fd: int) -> None:
        """Run with what comes from a file descriptor, a terminal or not, until the guest ends. Raises E2kDiskError."""
        with self._interruptible():
            if os.isatty(fd):
                keys = EscapeKeys()
                with raw_mode(fd):
                    _tell(HINT)
                    self.machine.interactive = True
                    self._run(lambda: self._take_keys(fd, keys))
            else:
                self.machine.interactive = True
                self._run(lambda: self._take_piped(fd))

    def scripted(self, steps: Sequence[Step], name: str) -> None:
        """Run as a script tells until it ends or the guest does. Raises E2kDiskError when an expect is not met."""
        seen = 0
        with self._interruptible():
            for step in steps:
                match step:
                    case Expect():
                        seen = self._expect(step, seen, f"{name}, line {step.line}")
                    case Send():
                        self.machine.console.send(step.data)
                    case Sleep():
                        self._wait(lambda: False, step.seconds)
                    case PowerOff():
                        why = self._wait(lambda: False, step.seconds)
                        if not self.machine.power_off:
                            raise E2kDiskError(f"{name}, line {step.line}: the guest has not powered off: {why}")
                    case Vm():
                        try:
                            getattr(self.machine, step.action)(step.name)
                        except E2kDiskError as error:
                            raise E2kDiskError(f"{name}, line {step.line}: {error}") from error
                        seen = len(self.machine.console.transcript)

    def _run(self, ended: Callable[[], bool]) -> None:
        """Run until ended() says so or the guest ends by itself."""
        with self._showing():
            stop = self.machine.run(until=lambda: self._look_around() or ended())
        self._check_guest()
        if stop not in (StopReason.POWER_OFF, StopReason.HALTED, StopReason.CONDITION):
            raise E2kDiskError(stop.value)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> str:
        """Run until a condition holds and return "", or say why it does not."""
        with self._showing():
            try:
                why = self.machine.run_until(lambda: self._look_around() or condition(), seconds)
            except TimeoutError:
                return f"not within {seconds:g} s"
        self._check_guest()
        return why

    def _check_guest(self) -> None:
        if self.machine.fault is not None:
            raise E2kDiskError(f"the guest cannot go on: {self.machine.fault}")
        if self.machine.board.exit_code:
            raise E2kDiskError(f"the guest powered off with code {self.machine.board.exit_code}")

    def _expect(self, step: Expect, seen: int, where: str) -> int:
        """Wait for a pattern in the output from `seen` on; the place after it."""
        console = self.machine.console
        ends: list[int] = []
        looked_at = -1

        def found() -> bool:
            nonlocal looked_at
            text = console.transcript
            if len(text) != looked_at:
                looked_at = len(text)
                match = step.pattern.search(text, seen)
                if match is not None:
                    ends.append(match.end())
            return bool(ends)

        why = "" if found() else self._wait(found, step.seconds)
        if not ends:
            lines = console.transcript.split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            tail = f"; the last line is {last[-60:]!r}" if last else "; the console is empty"
            raise E2kDiskError(f"{where}: expected {step.pattern.pattern!r}: {why}{tail}")
        return ends[0]

    # -- between two slices -----------------------------------------------------------------------

    def _look_around(self) -> bool:
        """Show what was printed; ends the run when the user or a limit wants it. Never true."""
        self._show()
        self._obey_signal()
        if self._limit is not None and self.machine.instructions >= self._limit:
            raise E2kDiskError(f"the limit of {self._limit} instructions is reached (--max-instructions)")
        return False

    def _take_keys(self, fd: int, keys: EscapeKeys) -> bool:
        """Give what is typed to the guest; true when the user wants to end."""
        if not _readable(fd):
            return False
        typed = os.read(fd, READ_SIZE)
        if not typed:
            return True  # the terminal is gone
        for part in keys.feed(typed):
            if isinstance(part, bytes):
                self.machine.console.send(part)
            elif part is Key.QUIT:
                return True
            elif part is Key.RESET:
                _tell("\ne2kdisk: reset\n")
                self.machine.reset()
            else:
                _tell("\n" + ESCAPE_HELP)
        return False

    def _take_piped(self, fd: int) -> bool:
        """Give what is piped in to the guest as fast as it reads; never true: the guest decides when it is done."""
        if self.machine.interactive and not self.machine.console.waiting and _readable(fd):
            try:
                typed = os.read(fd, READ_SIZE)
            except OSError:
                typed = b""  # closed: nothing comes from there
            self.machine.console.send(typed)
            # From the end on a guest that waits for input waits for ever, and the run ends by itself.
            self.machine.interactive = bool(typed)
        return False

    # -- output and signals -----------------------------------------------------------------------

    def _show(self) -> None:
        if self._shown:
            data = bytes(self._shown)
            self._shown.clear()
            show(data)

    @contextmanager
    def _showing(self) -> Generator[None, None, None]:
        try:
            yield
        finally:
            self._show()

    @contextmanager
    def _interruptible(self) -> Generator[None, None, None]:
        """A signal that ends us waits for the end of a slice, so that no request is half done; the next does not."""

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal:
                self._obey_signal()
            self._signal = number

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _obey_signal(self) -> None:
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal:
            raise SystemExit(128 + self._signal)


def show(data: bytes) -> None:
    """Write bytes to the standard output now, after what print() has put there."""
    if sys.stdout is None:
        return
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


def _tell(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _readable(fd: int) -> bool:
    try:
        return bool(select.select([fd], [], [], 0)[0])
    except OSError:
        return True  # reading it says what is wrong
