"""The 256 bytes of a function's configuration space: each bit is constant, stored, or cleared by a one (PCI 3.0 6.1).

What the bits mean is in tables: the header, capabilities, a device's own registers.
"""

from __future__ import annotations

from typing import Any

from e2kdisk.devices.registers import Register, RegisterMap

SIZE = 256
"""Bytes."""


class ConfigSpace:
    """Bytes with a rule for each bit; built once from tables, then read and written at any width."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.data = bytearray(SIZE)
        """What a read gives; the function itself may change any of it."""
        self._reset = bytearray(SIZE)
        self._stored = bytearray(SIZE)
        self._cleared = bytearray(SIZE)
        self._at: list[tuple[int, Register[Any]] | None] = [None] * SIZE

    def add(self, table: RegisterMap[Any], at: int = 0) -> None:
        """Lay a table over the space: its registers begin at `at`; their `read` gives the value at reset.

        Raises ValueError where something is already.
        """
        image = table.image(self._owner)
        for register in table:
            start, end = at + register.offset, at + register.offset + register.width
            if end > SIZE or any(self._at[start:end]):
                raise ValueError(f"{table.name}: no room for {register.name} at {start:#x}")
            self._at[start:end] = [(start, register)] * register.width
            self._reset[start:end] = image[register.offset : register.offset + register.width]
            self.permit(start, register.width, stored=register.stored, cleared=register.cleared)
        self.data[:] = self._reset

    def permit(self, offset: int, width: int, *, stored: int, cleared: int = 0) -> None:
        """Say which bits a store changes, and which ones a one clears; for what differs between functions."""
        self._stored[offset : offset + width] = stored.to_bytes(width, "little")
        self._cleared[offset : offset + width] = cleared.to_bytes(width, "little")

    def preset(self, offset: int, width: int, value: int) -> None:
        """Set the value of bytes now and after every reset."""
        self._reset[offset : offset + width] = self.data[offset : offset + width] = value.to_bytes(width, "little")

    def is_free(self, start: int, end: int) -> bool:
        """Whether no register is there."""
        return end <= SIZE and not any(self._at[start:end])

    def reset(self) -> None:
        """Every register to its value at power-on; nobody is told."""
        self.data[:] = self._reset

    # -- access -----------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Bytes from an offset on; past the end there are ones."""
        found = self.data[offset : offset + size]
        return int.from_bytes(found if len(found) == size else found.ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Change the bits that may change, then tell the registers that were touched, in order."""
        end = min(offset + size, SIZE)
        for index in range(offset, end):
            new, stored = value & 0xFF, self._stored[index]
            value >>= 8
            self.data[index] = (self.data[index] & ~stored | new & stored) & ~(new & self._cleared[index])
        # All bytes are in place before anybody hears: one store may touch two registers of one meaning.
        for place in dict.fromkeys(self._at[offset:end]):
            if place is not None and place[1].write is not None:
                start, register = place
                place[1].write(self._owner, self.get(start, register.width))

    def get(self, offset: int, width: int) -> int:
        """A register's value, for the function itself."""
        return int.from_bytes(self.data[offset : offset + width], "little")

    def set(self, offset: int, width: int, value: int) -> None:
        """Change a register as the function itself, whatever a driver may do with it."""
        self.data[offset : offset + width] = value.to_bytes(width, "little")

    def name_of(self, offset: int) -> str:
        """The register's name for traces, "" if there is none."""
        place = self._at[offset] if 0 <= offset < SIZE else None
        if place is None:
            return ""
        start, register = place
        return f"{register.name}+{offset - start}" if offset > start else register.name

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> str:
        """The bytes as hexadecimal text."""
        return self.data.hex()

    def load(self, state: str) -> None:
        """Restore the bits that a driver or the function can have changed; ids stay what they are. Tells nobody."""
        saved = bytes.fromhex(state)
        if len(saved) != SIZE:
            raise ValueError(f"configuration space of {len(saved)} bytes")
        for index in range(SIZE):
            kept = self._stored[index]
            self.data[index] = self._reset[index] & ~kept | saved[index] & kept
            self.data[index] = self.data[index] & ~self._cleared[index] | saved[index] & self._cleared[index]
