"""Declared registers: decoding, trace names, documentation and fuzz shapes come from one table.

A table names what a driver can touch and which function of the device answers; the device has the state. The
same table serves a bus (one access is one register) and a configuration space (a structure read at any width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

D = TypeVar("D")
"""The device whose registers these are."""


class Access(Enum):
    """What a driver may do with a register."""

    R = "read"
    W = "write"
    RW = "read, write"


R = Access.R
W = Access.W
RW = Access.RW


@dataclass(frozen=True, slots=True, kw_only=True)
class Register(Generic[D]):
    """One register. Without `read` it always holds its reset value; without `write` stores are ignored."""

    offset: int
    name: str
    access: Access
    width: int = 4
    """Bytes."""
    reset: int = 0
    meaning: str
    """One line for the documentation, in the specification's words as far as they are short."""
    section: str
    """Where the specification defines it."""
    read: Callable[[D], int] | None = None
    write: Callable[[D, int], None] | None = None
    stored: int = 0
    """For memory-like registers (PCI configuration space): the bits that a store changes; `write` hears of it after."""
    cleared: int = 0
    """There: the bits that storing a one clears."""


class RegisterMap(Generic[D]):
    """The registers of one device; a mistake in the table is found when the module is imported."""

    def __init__(self, name: str, *registers: Register[D]) -> None:
        self.name = name
        self.registers = tuple(sorted(registers, key=lambda register: register.offset))
        self.at: dict[int, Register[D]] = {register.offset: register for register in self.registers}
        """Decodes the offset of an access; one dictionary lookup."""
        self.size = 0
        """Bytes up to the end of the last register."""
        for register in self.registers:
            if register.offset < self.size:
                raise ValueError(f"{name}: register {register.name} overlaps the one before it")
            self.size = register.offset + register.width

    def __iter__(self) -> Iterator[Register[D]]:
        return iter(self.registers)

    def covering(self, offset: int) -> Register[D] | None:
        """The register that the byte at this offset belongs to."""
        for register in self.registers:
            if register.offset <= offset < register.offset + register.width:
                return register
        return None

    def name_of(self, offset: int) -> str:
        """The name for traces: "capacity", "capacity+4" inside a wide register, "" where there is none."""
        register = self.covering(offset)
        if register is None:
            return ""
        inside = offset - register.offset
        return f"{register.name}+{inside}" if inside else register.name

    def image(self, device: D) -> bytearray:
        """All registers as the little-endian structure that they are in memory; holes are zero."""
        image = bytearray(self.size)
        for register in self.registers:
            value = register.reset if register.read is None else register.read(device)
            image[register.offset : register.offset + register.width] = value.to_bytes(register.width, "little")
        return image

    def document(self) -> str:
        """The table as Markdown, for the documentation."""
        lines = ["| offset | register | bytes | access | meaning | defined in |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {register.offset:#05x} | {register.name} | {register.width} | {register.access.value} "
            f"| {register.meaning} | {register.section} |"
            for register in self.registers
        ]
        return "\n".join(lines)
