"""Devices without a guest: the qtest protocol over the standard streams of a qemu-system program, or over sockets.

The test is the CPU: it reads and writes ports and memory and sees interrupt wires. Debian builds no "qtest"
accelerator, so there is a real CPU, which sleeps in a firmware of two instructions, and the clock is the host's:
what a device does later has to be waited for. Our own program, called by the same names, is spoken to in the same way.
"""

import base64
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests import oracles

QUIET = ("-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none", "-qtest-log", "none")


_X86_RESET = b"\xfa\xf4\xeb\xfd\0"
"""cli; hlt; and again if it ever wakes."""
_SLEEPING = {
    "qemu-system-x86_64": bytes(0x10000 - 16)
    + _X86_RESET.ljust(16, b"\0"),  # the reset vector is 16 bytes from the end
    "qemu-system-aarch64": bytes.fromhex("7f2003d5 ffffff17"),  # wfi; b .-4
    "qemu-system-riscv64": bytes.fromhex("73005010 6ff0dfff"),  # wfi; j .-4
}
"""Firmware that does nothing, for each program."""


class Client:
    """What a test says and hears on a qtest line; a context manager. Numbers are ints, memory is bytes."""

    process: subprocess.Popen[str]
    sink: IO[str]
    source: IO[str]
    irq: dict[int, bool]
    """Wires of the intercepted chip by number: their last level."""
    raised: list[int]
    """Every rise of such a wire, in order."""

    def _start(self, command: list[str], **options: Any) -> None:
        self.irq, self.raised = {}, []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)

    # -- the protocol -----------------------------------------------------------------------------

    def command(self, *words: str | int) -> str:
        """Send one command; what stands after OK in the answer. Fails the test when there is none."""
        line = " ".join(hex(word) if isinstance(word, int) else word for word in words)
        kind, _, rest = self.ask(line).partition(" ")
        if kind != "OK":
            raise AssertionError(f"{line!r}: QEMU answers {kind} {rest!r}")
        return rest

    def ask(self, line: str) -> str:
        """Send one line; the answer, whatever it is."""
        try:
            self.sink.write(line + "\n")
            self.sink.flush()
        except BrokenPipeError:
            raise AssertionError(f"QEMU is gone before {line!r}: {self.errors()}") from None
        for answer in self.source:
            kind, _, rest = answer.rstrip("\n").partition(" ")
            if kind != "IRQ":
                return answer.rstrip("\n")
            self._interrupt(rest)
        raise AssertionError(f"QEMU ended at {line!r}: {self.errors()}")

    def _interrupt(self, what: str) -> None:
        direction, number = what.split()
        self.irq[int(number)] = direction == "raise"
        if direction == "raise":
            self.raised.append(int(number))

    def errors(self) -> str:
        """What it has said at its end."""
        self.process.wait(10)
        return _stream(self.process.stderr).read()

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
        if self.process.poll() is None:
            self.process.terminate()
        for stream in (self.sink, self.source, _stream(self.process.stderr)):
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Qtest(Client):
    """One machine with its CPU asleep, over the standard streams.

    >>> with Qtest("pc", "-device", "virtio-blk-pci,drive=d", "-drive", "id=d,if=none,file=disk.qcow2") as qemu:
    ...     qemu.outl(0xCF8, 0x80000000)
    ...     hex(qemu.inl(0xCFC))
    '0x12378086'
    """

    def __init__(self, machine: str, *options: str, program: str | Path = "qemu-system-x86_64") -> None:
        """`program` is one of Debian's, or the path of another one."""
        self._directory = tempfile.TemporaryDirectory()
        command = [str(program)]
        if isinstance(program, str):
            oracles.require(oracles.PACKAGE_OF[program])
            firmware = Path(self._directory.name, "sleep.bin")
            firmware.write_bytes(_SLEEPING[program])
            command = [oracles.find_program(program) or program, "-bios", str(firmware)]
        command += ["-machine", machine, "-qtest", "stdio", *QUIET, *options]
        self._start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.sink, self.source = _stream(self.process.stdin), _stream(self.process.stdout)

    def close(self) -> None:
        """End QEMU; twice is once."""
        super().close()
        self._directory.cleanup()


class LibQtest(Client):
    """One machine started as QEMU's libqtest does it: the test listens on two sockets, QEMU connects; QMP is there."""

    def __init__(self, directory: Path, program: str | Path, *options: str) -> None:
        """Sockets are made in the directory."""
        listeners = [_listen(directory / name) for name in ("qtest.sock", "qtest.qmp")]
        command = [str(program), "-qtest", f"unix:{directory}/qtest.sock", "-qtest-log", "/dev/null"]
        command += ["-chardev", f"socket,path={directory}/qtest.qmp,id=char0", "-mon", "chardev=char0,mode=control"]
        if isinstance(program, str):  # Debian's has no such accelerator
            oracles.require(oracles.PACKAGE_OF[program])
            (directory / "sleep.bin").write_bytes(_SLEEPING[program])
            options = (*options, "-bios", str(directory / "sleep.bin"))
        else:
            options = (*options, "-audio", "none", "-accel", "qtest")
        self._start([*command, "-display", "none", *options])
        self._sockets = []
        for listener in listeners:
            with listener:
                while True:
                    with suppress(TimeoutError):
                        self._sockets.append(listener.accept()[0])
                        break
                    if self.process.poll() is not None:
                        raise AssertionError(f"QEMU does not come: {self.errors()}")
        (directory / "qtest.sock").unlink()
        (directory / "qtest.qmp").unlink()
        for connection in self._sockets:
            connection.settimeout(20)
        self.sink, self.source = self._sockets[0].makefile("w"), self._sockets[0].makefile("r")
        self._monitor = self._sockets[1].makefile("rw")
        self.events: list[dict[str, Any]] = []
        """What QMP has told without being asked."""
        self.greeting = json.loads(self._monitor.readline())

    def qmp(self, command: str, /, **arguments: Any) -> Any:
        """One QMP command; what it returns, or the error's text."""
        message = {"execute": command} | ({"arguments": arguments} if arguments else {})
        answer = self.say(json.dumps(message))
        return answer["return"] if "return" in answer else answer["error"]["desc"]

    def say(self, text: str) -> dict[str, Any]:
        """Send any text on the QMP line; the next answer."""
        self._monitor.write(text + "\n")
        self._monitor.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """The next answer; events are kept."""
        for line in self._monitor:
            message: dict[str, Any] = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)
        raise AssertionError(f"QEMU has ended: {self.errors()}")

    def close(self) -> None:
        """End QEMU; twice is once."""
        super().close()
        self._monitor.close()
        for connection in self._sockets:
            connection.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(0.2)
    return listener


_PORT = {1: "b", 2: "w", 4: "l"}
_MEMORY = {1: "b", 2: "w", 4: "l", 8: "q"}


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
