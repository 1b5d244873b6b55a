"""The test finisher of SiFive's boards: the guest ends its own run with a word."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.devices.registers import Register, RegisterMap, W
from e2kdisk.machine.chips.chip import Chip

FAIL = 0x3333
PASS = 0x5555
RESET = 0x7777


class SifiveTest(Chip):
    """Calls back with (word, code) when the guest writes one of the three words."""

    STATE = ()

    def __init__(self, finish: Callable[[int, int], None], name: str = "sifive-test") -> None:
        super().__init__(name, 0x1000)
        self._finish = finish

    def reset(self) -> None:
        """RegisterDevice.reset."""

    def write_finisher(self, value: int) -> None:
        """The low half says what shall happen, the high half is an exit code."""
        if value & 0xFFFF in (FAIL, PASS, RESET):
            self._finish(value & 0xFFFF, value >> 16)


SifiveTest.registers = RegisterMap(
    "sifive-test",
    Register(
        offset=0,
        name="finisher",
        access=W,
        meaning="0x5555 power off, 0x3333 power off with code, 0x7777 reset",
        section="SiFive FU540 test finisher",
        write=SifiveTest.write_finisher,
    ),
)
