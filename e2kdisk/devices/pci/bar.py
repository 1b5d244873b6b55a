"""A base address register: a region of registers that the guest puts where it likes (PCI 3.0 6.2.5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from e2kdisk.devices.controller import RegisterDevice

Space = Literal["memory", "io"]

ADDRESS_BITS = {"memory": 0xFFFFFFF0, "io": 0xFFFFFFFC}
LEAST = {"memory": 16, "io": 4}
"""Bytes: the type is in the bits below."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A range of PCI addresses that somebody answers at."""

    space: Space
    address: int
    size: int
    """Bytes."""
    registers: RegisterDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One region of a function. Raises ValueError for what no register can say."""

    index: int
    """0 to 5; a wide one takes the next as well."""
    size: int
    """Bytes, a power of two."""
    registers: RegisterDevice
    """Answers inside the region: offset 0 is its first byte."""
    space: Space = "memory"
    wide: bool = False
    """64-bit address; memory only."""
    prefetchable: bool = False

    def __post_init__(self) -> None:
        if self.size < LEAST[self.space] or self.size & (self.size - 1) or self.size > 1 << (63 if self.wide else 31):
            raise ValueError(f"BAR{self.index} of {self.size} bytes: not a power of 2 that fits")
        if not 0 <= self.index <= (4 if self.wide else 5):
            raise ValueError(f"BAR{self.index}: no such register")
        if self.space == "io" and (self.wide or self.prefetchable):
            raise ValueError(f"BAR{self.index}: I/O is neither wide nor prefetchable")

    @property
    def width(self) -> int:
        """Bytes of the register, or of both."""
        return 8 if self.wide else 4

    @property
    def type_bits(self) -> int:
        """The constant low bits."""
        return 1 if self.space == "io" else 4 * self.wide | 8 * self.prefetchable

    @property
    def address_mask(self) -> int:
        """The bits that can be set; the number of zeros below tells the guest the size."""
        return -self.size & (1 << 8 * self.width) - 1

    def claim(self, value: int) -> Claim | None:
        """The range for a register value; None while it holds no address.

        Zero is what stands there before firmware has chosen, all ones while it asks for the size.
        """
        address = value & self.address_mask
        if address in (0, self.address_mask):
            return None
        return Claim(self.space, address, self.size, self.registers)
