"""Scripts that talk to a guest's console: what to wait for, what to type, how long, in the guest's own time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from e2kdisk.errors import UsageError

SYNTAX = """\
script, one step a line, times in seconds of the guest's clock:
  expect REGEX [SECONDS]   wait until the guest has printed it (limit 60)
  send TEXT                type it and press Enter
  sleep SECONDS            let the guest run
  poweroff [SECONDS]       wait until the guest switches itself off (limit 60)
  savevm NAME              keep machine and disks, inside the qcow2 images
  loadvm NAME              bring them back; delvm NAME removes the snapshot
  # ...                    a comment
REGEX is Python's; it goes on after what the expect before has found. In quotes
it may end in a blank or a number: expect "=> " 10. TEXT may have \\xNN, \\t and
\\\\; with \\c at its end Enter is not pressed: send \\x03\\c is Ctrl-C.
"""

DEFAULT_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Expect:
    """Wait until the pattern is on the console."""

    line: int
    pattern: re.Pattern[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Send:
    """Type on the console."""

    line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let the guest run."""

    line: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Wait until the guest switches itself off."""

    line: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Vm:
    """Keep, restore or remove a snapshot of the machine."""

    line: int
    action: str
    """savevm, loadvm or delvm: the method of Machine."""
    name: str


Step = Expect | Send | Sleep | PowerOff | Vm


def load_script(filename: str) -> list[Step]:
    """Read a script file ("-": the standard input). Raises UsageError, with the line where there is one."""
    try:
        with open(0 if filename == "-" else filename, encoding="utf-8", closefd=filename != "-") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text in UTF-8"
        raise UsageError(f"script {filename}: {reason}") from error
    return parse_script(text, filename)


def parse_script(text: str, name: str = "script") -> list[Step]:
    """Parse a script. Raises UsageError that names the line."""
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        try:
            steps.append(_step(number, word, rest.strip()))
        except UsageError as error:
            raise UsageError(f"{name}, line {number}: {error}") from None
    return steps


def _step(number: int, word: str, rest: str) -> Step:
    match word:
        case "expect":
            return _expect(number, rest)
        case "send":
            return Send(number, _typed(rest))
        case "sleep":
            return Sleep(number, _seconds(rest))
        case "poweroff":
            return PowerOff(number, _seconds(rest) if rest else DEFAULT_LIMIT)
        case "savevm" | "loadvm" | "delvm":
            if not rest:
                raise UsageError(f"{word} what? it is written: {word} NAME")
            return Vm(number, word, rest)
        case _:
            known = "expect, send, sleep, poweroff, savevm, loadvm, delvm"
            raise UsageError(f"unknown step {word!r}; known are {known}")


_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_QUOTED = re.compile(rf"""(["'])(?P<regex>.*)\1(?:\s+(?P<seconds>{_NUMBER}))?""")
_PLAIN = re.compile(rf"(?P<regex>.+?)(?:\s+(?P<seconds>{_NUMBER}))?")


def _expect(number: int, rest: str) -> Expect:
    found = (_QUOTED.fullmatch(rest) if rest[:1] in ("'", '"') else None) or _PLAIN.fullmatch(rest)
    if found is None:
        raise UsageError("expect what? it is written: expect REGEX [SECONDS]")
    try:
        pattern = re.compile(found["regex"], re.MULTILINE)
    except re.error as error:
        raise UsageError(f"{found['regex']!r} is not a regular expression: {error}") from None
    if pattern.match(""):
        raise UsageError(f"{found['regex']!r} matches no output at all, so it would not wait")
    return Expect(number, pattern, float(found["seconds"] or DEFAULT_LIMIT))


def _seconds(text: str) -> float:
    if not re.fullmatch(_NUMBER, text, re.ASCII):
        raise UsageError(f"{text!r} is not a number of seconds")
    return float(text)


_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.)|$)")


def _typed(text: str) -> bytes:
    enter = b"\r"
    if re.search(r"(?<!\\)(?:\\\\)*\\c$", text):
        text, enter = text[:-2], b""
    typed, end = b"", 0
    for escape in _ESCAPE.finditer(text):
        typed += text[end : escape.start()].encode()
        if escape[1]:
            typed += bytes.fromhex(escape[1])
        elif escape[2] in _ESCAPES:
            typed += _ESCAPES[escape[2]]
        else:
            raise UsageError(f"{escape[0]!r} is not an escape; a backslash is written twice")
        end = escape.end()
    return typed + text[end:].encode() + enter
