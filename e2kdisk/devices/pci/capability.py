"""A capability: registers linked into the list that starts at the header's pointer (PCI 3.0 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from e2kdisk.devices.registers import R, Register, RegisterMap

MSIX = 0x11
VENDOR_SPECIFIC = 0x09


@dataclass(frozen=True, slots=True)
class Capability:
    """One capability: its id and what follows the two bytes of id and next pointer."""

    id: int
    registers: RegisterMap[Any]
    """Offsets count from the id byte, so the first register is at 2 or later."""

    def linked(self, following: int) -> RegisterMap[Any]:
        """The whole capability with the pointer to the next one, 0 for the last."""
        name = self.registers.name
        return RegisterMap(
            name,
            _byte(0, f"{name} ID", self.id, "which capability this is"),
            _byte(1, f"{name} Next", following, "where the next one is, 0 for none"),
            *self.registers,
        )


def _byte(offset: int, name: str, value: int, meaning: str) -> Register[Any]:
    return Register(offset=offset, name=name, width=1, access=R, reset=value, meaning=meaning, section="PCI 3.0 6.7")
