"""The guest's serial console for programs: send text, expect a pattern, within a time limit in the guest's time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from e2kdisk.errors import E2kDiskError

TAIL = 1000
"""Characters of the transcript that an error shows."""


class ConsoleError(E2kDiskError):
    """What was expected did not come: says what, why not, and the end of what came instead."""

    def __init__(self, expected: str, why: str, transcript: str) -> None:
        tail = transcript[-TAIL:]
        super().__init__(f"console: expected {expected!r}, but {why}; the output ends with {tail!r}")
        self.expected = expected
        self.why = why
        self.transcript = transcript


class ConsoleTimeout(ConsoleError):
    """The time limit passed."""


class Driver(Protocol):
    """What runs the guest while the console waits."""

    def run_until(self, condition: Callable[[], bool], timeout: float) -> str:
        """Run until the condition holds ("") or cannot be waited for any longer: why, in words ("" only if met).

        Raises TimeoutError when `timeout` seconds of the guest's time have passed.
        """
        ...


class Console:
    """One end of the serial line; the UART's other end is in the guest."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._output = bytearray()
        self._input = bytearray()
        self._seen = 0
        """Characters of the transcript that expect() has gone past."""
        self._decoded = ""
        self._decoded_bytes = 0
        self.on_output: Callable[[bytes], None] | None = None
        """Called with what the guest sends, as it comes: an interactive terminal."""

    # -- SerialLine: the UART's side --------------------------------------------------------------

    def put(self, byte: int) -> None:
        """SerialLine.put."""
        self._output.append(byte)
        if self.on_output is not None:
            self.on_output(bytes((byte,)))

    def take(self, limit: int) -> bytes:
        """SerialLine.take: what the UART has no room for stays here."""
        if not self._input:
            return b""
        taken = bytes(self._input[:limit])
        del self._input[:limit]
        return taken

    def save(self) -> dict[str, object]:
        """Both directions as plain data: what the guest has sent, and what it has not read yet."""
        return {"output": bytes(self._output), "seen": self._seen, "input": bytes(self._input)}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        self._output[:] = state["output"]
        self._input[:] = state["input"]
        self._seen = state["seen"]
        self._decoded, self._decoded_bytes = "", 0

    # -- the program's side -----------------------------------------------------------------------

    @property
    def transcript(self) -> str:
        """Everything that the guest has sent since the console was made."""
        if self._decoded_bytes < len(self._output):
            # Latin-1: one character a byte, so that places in the text are places in the output.
            self._decoded += self._output[self._decoded_bytes :].decode("latin-1")
            self._decoded_bytes = len(self._output)
        return self._decoded

    @property
    def waiting(self) -> int:
        """Bytes sent to the guest that it has not read yet."""
        return len(self._input)

    def send(self, text: str | bytes) -> None:
        """Type text; the guest reads it as fast as it likes. A line ends with "\\r" or "\\n" as the guest wants it."""
        self._input += text.encode("latin-1") if isinstance(text, str) else text

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60.0) -> re.Match[str]:
        """Run the guest until the pattern occurs in its output after what was last expected, and go past it.

        `timeout` is in seconds of the guest's time. Raises ConsoleTimeout, or ConsoleError if the guest ends before.
        """
        compiled = re.compile(pattern) if isinstance(pattern, str) else pattern
        found: list[re.Match[str]] = []
        looked_at = -1

        def matches() -> bool:
            nonlocal looked_at
            if looked_at == len(self._output):
                return False
            looked_at = len(self._output)
            match = compiled.search(self.transcript, self._seen)
            if match:
                found.append(match)
            return match is not None

        try:
            why = "" if matches() else self._driver.run_until(matches, timeout)
        except TimeoutError:
            raise ConsoleTimeout(compiled.pattern, f"not within {timeout:g} s", self.transcript) from None
        if not found:
            raise ConsoleError(compiled.pattern, why, self.transcript)
        self._seen = found[0].end()
        return found[0]

    def command(self, text: str, prompt: str = "=> ", timeout: float = 60.0) -> str:
        """Type a command and Enter, wait for the next prompt; what came in between, without the echo."""
        self.send(text + "\n")
        start = self._seen
        end = self.expect(r"(?:^|[\r\n])" + re.escape(prompt), timeout).start()
        answer = self.transcript[start:end].replace("\r\n", "\n").replace("\r", "")
        echo, _, rest = answer.partition("\n")
        return rest if text.strip() in echo else answer
