"""The qtest protocol: one line, one answer (QEMU documentation, devel/qtest, "QTest Protocol").

OK ...     done, with what was read
ERR ...    a length that cannot be
FAIL ...   no such command or device, arguments that are none; where QEMU would abort, this answers and goes on
IRQ ...    between answers: a wire that is listened to has changed
"""

from __future__ import annotations

import base64
import re
from binascii import Error as BadBase64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from e2kdisk.errors import E2kDiskError
from e2kdisk.exports.qtest.address_space import PORTS, AddressSpace
from e2kdisk.exports.qtest.clock import SteppedClock
from e2kdisk.exports.qtest.wires import Wires

TRANSFER_MAX = 64 << 20
"""Most bytes of one read or write: an answer has two digits for each."""
FILL_MAX = 1 << 32
REGISTERS_MAX = 1 << 20
"""Most bytes of registers that one command reaches: each access runs a device."""
TIME_MAX = (1 << 63) - 1
BAD_SIZE = "ERR invalid argument size"

_NUMBER = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)


class Refused(Exception):
    """A command that is not carried out; the text is the whole answer."""


@dataclass(slots=True)
class Target:
    """What the commands work on."""

    space: AddressSpace
    wires: Wires
    clock: SteppedClock
    say: Callable[[str], None]
    """Sends a line that is no answer."""


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: the first words after it are numbers, one more may be a text."""

    run: Callable[..., str]
    numbers: int = 0
    text: bool = False
    times: bool = False
    """Numbers are times, which are signed."""


def number(text: str, limit: int = (1 << 64) - 1) -> int:
    """A number in decimal, octal (0...) or hexadecimal (0x...); a negative one wraps. Raises Refused."""
    found = _NUMBER.fullmatch(text)
    # Python refuses to read thousands of decimal digits, and nobody means them.
    if found is None or len(text) > 100:
        raise Refused(f"FAIL {_short(text)!r} is not a number")
    sign, digits = found.groups()
    value = int(digits, 8 if digits[0] == "0" and digits[1:2].isdigit() else 0)
    if value > limit:
        raise Refused(f"FAIL {_short(text)!r} is out of range")
    return -value & limit if sign == "-" else value


def answer(target: Target, line: str) -> str:
    """Carry out one line and return its answer, without the line's end."""
    words = line.split(" ")
    name, arguments = words[0], words[1:]
    verb = VERBS.get((name, bool(arguments and arguments[0]))) or VERBS.get((name, None))
    if verb is None:
        return f"FAIL Unknown command '{name}'"
    if len(arguments) < verb.numbers + verb.text:
        return f"FAIL {name}: {verb.numbers + verb.text} arguments are needed"
    try:
        values = [number(text, TIME_MAX if verb.times else (1 << 64) - 1) for text in arguments[: verb.numbers]]
        return verb.run(target, *values, *arguments[verb.numbers : verb.numbers + verb.text])
    except Refused as refused:
        return str(refused)
    except (E2kDiskError, OSError) as error:  # of a request that nobody else is told of
        return f"FAIL {' '.join(str(error).split())}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


# -- memory -----------------------------------------------------------------------------------------


def _check(target: Target, address: int, length: int, limit: int = TRANSFER_MAX) -> None:
    if length > limit or target.space.registers_in(address, length) > REGISTERS_MAX:
        raise Refused(BAD_SIZE)


def _load(size: int, target: Target, address: int) -> str:
    return f"OK 0x{target.space.load(address, size):016x}"


def _store(size: int, target: Target, address: int, value: int) -> str:
    target.space.store(address, size, value & (1 << 8 * size) - 1)
    return "OK"


def _read(target: Target, address: int, length: int) -> str:
    _check(target, address, length)
    if not length:
        return BAD_SIZE  # QEMU aborts
    return f"OK 0x{target.space.read(address, length).hex()}"


def _write(target: Target, address: int, length: int, digits: str) -> str:
    """Write digits, from the third character on; what is missing is zeros, what is more is lost."""
    if len(digits) < 3:
        return BAD_SIZE
    _check(target, address, length)
    target.space.write(address, _bytes_of(digits[2 : 2 + 2 * length]).ljust(length, b"\0"))
    return "OK"


def _bytes_of(digits: str) -> bytes:
    """Pairs of digits; each that is none counts as -1, as in QEMU, a last one without its pair is lost."""
    digits = digits[: len(digits) & -2]
    try:
        return bytes.fromhex(digits if digits.isalnum() else "-")  # fromhex would skip spaces
    except ValueError:
        values = [int(digit, 16) if digit in _HEX else -1 for digit in digits]
        return bytes((high << 4 | low) & 0xFF for high, low in zip(values[::2], values[1::2], strict=True))


_HEX = frozenset("0123456789abcdefABCDEF")


def _b64read(target: Target, address: int, length: int) -> str:
    _check(target, address, length)
    return f"OK {base64.b64encode(target.space.read(address, length)).decode()}"


def _b64write(target: Target, address: int, length: int, text: str) -> str:
    """Write what a text gives, the length at most; characters that belong to no base64 text do not count."""
    if len(text) < 4:
        return BAD_SIZE
    _check(target, address, length)
    kept = _NOT_BASE64.sub(b"", text.encode("utf-8", "surrogateescape"))
    try:
        data = base64.b64decode(kept[: len(kept) - (len(kept) % 4 == 1)] + b"=" * (-len(kept) % 4))
    except BadBase64:
        return BAD_SIZE
    target.space.write(address, data[:length])
    return "OK"


_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


def _memset(target: Target, address: int, length: int, value: int) -> str:
    _check(target, address, length, FILL_MAX)
    target.space.fill(address, length, value & 0xFF)
    return "OK"


# -- ports ------------------------------------------------------------------------------------------


def _check_port(target: Target, port: int, size: int) -> None:
    if not target.space.has_ports:
        raise Refused("FAIL this machine has no I/O ports")
    if port + size > PORTS:
        raise Refused(f"FAIL there is no port {port:#x}")


def _in(size: int, target: Target, port: int) -> str:
    _check_port(target, port, size)
    return f"OK 0x{target.space.port_in(port, size):04x}"


def _out(size: int, target: Target, port: int, value: int) -> str:
    _check_port(target, port, size)
    target.space.port_out(port, size, value & (1 << 8 * size) - 1)
    return "OK"


# -- interrupts and time ------------------------------------------------------------------------------


def _intercept(watch: Callable[[Wires, str, Callable[[int, bool], None]], str], target: Target, path: str) -> str:
    refused = watch(target.wires, path, lambda number, level: target.say(f"IRQ {_DIRECTION[level]} {number}"))
    return f"FAIL {refused}" if refused else "OK"


_DIRECTION = {True: "raise", False: "lower"}


def _clock_step(target: Target, ns: int) -> str:
    return _moved(target, min(target.clock.now_ns + ns, TIME_MAX))


def _clock_set(target: Target, ns: int) -> str:
    return _moved(target, ns)


def _moved(target: Target, ns: int) -> str:
    return f"OK {target.clock.move_to(ns)}"


_MEMORY = {"b": 1, "w": 2, "l": 4, "q": 8}
_PORT = {"b": 1, "w": 2, "l": 4}

VERBS: dict[tuple[str, bool | None], Verb] = {
    **{("read" + letter, None): Verb(partial(_load, size), 1) for letter, size in _MEMORY.items()},
    **{("write" + letter, None): Verb(partial(_store, size), 2) for letter, size in _MEMORY.items()},
    **{("in" + letter, None): Verb(partial(_in, size), 1) for letter, size in _PORT.items()},
    **{("out" + letter, None): Verb(partial(_out, size), 2) for letter, size in _PORT.items()},
    ("read", None): Verb(_read, 2),
    ("write", None): Verb(_write, 2, text=True),
    ("b64read", None): Verb(_b64read, 2),
    ("b64write", None): Verb(_b64write, 2, text=True),
    ("memset", None): Verb(_memset, 3),
    ("endianness", None): Verb(lambda target: "OK little"),
    ("irq_intercept_in", None): Verb(partial(_intercept, Wires.watch_inputs), text=True),
    ("irq_intercept_out", None): Verb(partial(_intercept, Wires.watch_outputs), text=True),
    ("clock_step", False): Verb(lambda target: f"OK {target.clock.step_to_next_timer()}"),
    ("clock_step", True): Verb(_clock_step, 1, times=True),
    ("clock_set", True): Verb(_clock_set, 1, times=True),
}
"""Command, and whether an argument follows (None: all the same) -> what carries it out."""
