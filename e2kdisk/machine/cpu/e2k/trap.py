"""Why the e2k CPU could not carry out a wide instruction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from e2kdisk.machine.cpu.cpu import Fault


class Trap(Enum):
    """What kind of stop it is."""

    ILLEGAL = "illegal instruction"
    UNSUPPORTED = "unsupported instruction"
    """It may mean something on an Elbrus, but not here: floating point, array access, loop counters, system state."""
    WINDOW_BOUNDS = "register outside the window"
    STACK = "register stack"
    DIVISION = "division"
    UNALIGNED = "unaligned access"
    LOAD = "load where nothing is"
    STORE = "store where nothing is"
    FETCH = "instruction fetch where nothing is"


class GuestTrap(Exception):
    """Ends a wide instruction; inside this package only: run() turns it into an E2kFault."""

    def __init__(self, trap: Trap, what: str = "", address: int | None = None) -> None:
        super().__init__(f"{trap.value}: {what}" if what else trap.value)
        self.trap = trap
        self.address = address


@dataclass(frozen=True)
class E2kFault(Fault):
    """A Fault with the kind of stop and the bytes of the wide instruction."""

    trap: Trap = Trap.ILLEGAL
    code: bytes = b""

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.code.hex()}]" if self.code else super().__str__()
