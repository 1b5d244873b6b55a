"""QEMU's devices without a guest: the qtest protocol over the standard streams of a qemu-system program.

The test is the CPU: it reads and writes ports and memory and sees interrupt wires. Debian builds no "qtest"
accelerator, so there is a real CPU, which sleeps in a firmware of two instructions, and the clock is the host's:
what a device does later has to be waited for.
"""

import base64
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from tests import oracles

QUIET = ("-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none", "-qtest-log", "none")


_X86_RESET = b"\xfa\xf4\xeb\xfd\0"
"""cli; hlt; and again if it ever wakes."""
_SLEEPING = {
    "qemu-system-x86_64": bytes(0x10000 - 16)
    + _X86_RESET.ljust(16, b"\0"),  # the reset vector is 16 bytes from the end
    "qemu-system-aarch64": bytes.fromhex("7f2003d5 ffffff17"),  # wfi; b .-4
}
"""Firmware that does nothing, for each program."""


class Qtest:
    """One machine with its CPU asleep; a context manager. Numbers are ints, memory is bytes.

    >>> with Qtest("pc", "-device", "virtio-blk-pci,drive=d", "-drive", "id=d,if=none,file=disk.qcow2") as qemu:
    ...     qemu.outl(0xCF8, 0x80000000)
    ...     hex(qemu.inl(0xCFC))
    '0x12378086'
    """

    def __init__(self, machine: str, *options: str, program: str = "qemu-system-x86_64") -> None:
        oracles.require(oracles.PACKAGE_OF[program])
        self._directory = tempfile.TemporaryDirectory()
        firmware = Path(self._directory.name, "sleep.bin")
        firmware.write_bytes(_SLEEPING[program])
        command = [oracles.find_program(program) or program, "-machine", machine, "-bios", str(firmware)]
        self._process = subprocess.Popen(
            [*command, "-qtest", "stdio", *QUIET, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.irq: dict[int, bool] = {}
        """Wires of the intercepted chip by number: their last level."""
        self.raised: list[int] = []
        """Every rise of such a wire, in order."""

    # -- the protocol -----------------------------------------------------------------------------

    def command(self, *words: str | int) -> str:
        """Send one command; what stands after OK in the answer. Fails the test when there is none."""
        line = " ".join(hex(word) if isinstance(word, int) else word for word in words)
        try:
            stdin = _stream(self._process.stdin)
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"QEMU is gone before {line!r}: {self._errors()}") from None
        for answer in _stream(self._process.stdout):
            kind, _, rest = answer.strip().partition(" ")
            if kind == "IRQ":
                self._interrupt(rest)
            elif kind == "OK":
                return rest
            else:
                raise AssertionError(f"{line!r}: QEMU answers {answer!r}")
        raise AssertionError(f"QEMU ended at {line!r}: {self._errors()}")

    def _interrupt(self, what: str) -> None:
        direction, number = what.split()
        self.irq[int(number)] = direction == "raise"
        if direction == "raise":
            self.raised.append(int(number))

    def _errors(self) -> str:
        self._process.wait(10)
        return _stream(self._process.stderr).read()

    # -- ports and memory ---------------------------------------------------------------------------

    def inb(self, port: int) -> int:
        return int(self.command("inb", port), 0)

    def inw(self, port: int) -> int:
        return int(self.command("inw", port), 0)

    def inl(self, port: int) -> int:
        return int(self.command("inl", port), 0)

    def outb(self, port: int, value: int) -> None:
        self.command("outb", port, value)

    def outw(self, port: int, value: int) -> None:
        self.command("outw", port, value)

    def outl(self, port: int, value: int) -> None:
        self.command("outl", port, value)

    def port_in(self, port: int, size: int) -> int:
        """A port read of 1, 2 or 4 bytes."""
        return int(self.command("in" + _PORT[size], port), 0)

    def port_out(self, port: int, size: int, value: int) -> None:
        """A port write of 1, 2 or 4 bytes."""
        self.command("out" + _PORT[size], port, value)

    def load(self, address: int, size: int) -> int:
        """A memory read of 1, 2, 4 or 8 bytes, as one access."""
        return int(self.command("read" + _MEMORY[size], address), 0)

    def store(self, address: int, size: int, value: int) -> None:
        """A memory write of 1, 2, 4 or 8 bytes, as one access."""
        self.command("write" + _MEMORY[size], address, value)

    def read(self, address: int, length: int) -> bytes:
        """Bytes of memory."""
        return base64.b64decode(self.command("b64read", address, length)) if length else b""

    def write(self, address: int, data: bytes) -> None:
        """Set bytes of memory."""
        if data:
            self.command("b64write", address, len(data), base64.b64encode(data).decode())

    # -- waiting and interrupts ---------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until a condition holds that asks QEMU; fails the test when it does not come."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError("QEMU's device never got there")
            time.sleep(0.0005)

    def intercept(self, path: str, *, outputs: bool = False) -> None:
        """Watch the wires into (or out of) the device with this QOM path or name, "ioapic"; once a machine."""
        self.command("irq_intercept_out" if outputs else "irq_intercept_in", path)

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """End QEMU; twice is once."""
        if self._process.poll() is None:
            self._process.terminate()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _stream(stream).close()
        self._process.wait(20)
        self._directory.cleanup()

    def __enter__(self) -> "Qtest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


_PORT = {1: "b", 2: "w", 4: "l"}
_MEMORY = {1: "b", 2: "w", 4: "l", 8: "q"}


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
