"""MSI-X: a table of messages in a region, one for each reason to interrupt (PCI 3.0 6.8.2).

    0x000  address low | address high | data | vector control     one entry of 16 bytes a vector
    0x800  pending bits, one a vector                             set while a masked vector waits

A message that cannot go now (vector or function masked, bus mastering off) stays pending and goes as soon as it can:
masking delays interrupts and never loses one.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from e2kdisk.devices.pci.bar import Bar
from e2kdisk.devices.pci.capability import MSIX, Capability
from e2kdisk.devices.registers import RW, R, Register, RegisterMap

ENTRY = Struct("<QII")
"""address, data, vector control (PCI 3.0 6.8.2.6 to 6.8.2.9)."""
MASKED = 1
"""Of the vector control."""
PENDING = 0x800
"""Where the pending bits are, unless the table reaches further."""
LEAST_REGION = 0x1000
VECTORS_MAX = 2048

# Message control (PCI 3.0 6.8.2.3)
ENABLE = 1 << 15
FUNCTION_MASK = 1 << 14

_FIELDS = ("address", "address high", "data", "control")
_STORED = bytes.fromhex("fcffffff ffffffff ffffffff 01000000")
"""The bits of an entry that exist: addresses are of dwords, all of the control but the mask is reserved."""


class Msix:
    """Table and pending bits of one function: a RegisterDevice for its region, and the capability beside it."""

    def __init__(
        self,
        name: str,
        vectors: int,
        *,
        deliver: Callable[[int, int], None],
        on_control: Callable[[], None],
    ) -> None:
        """Deliver takes (address, data) of a message; on_control hears that MSI-X was switched on or off."""
        if not 1 <= vectors <= VECTORS_MAX:
            raise ValueError(f"{name}: {vectors} MSI-X vectors")
        self.name = name
        self.vectors = vectors
        self._deliver = deliver
        self._on_control = on_control
        self._pending_at = max(PENDING, 1 << (16 * vectors - 1).bit_length())
        self.size = max(LEAST_REGION, 2 * self._pending_at)
        self.enabled = False
        self._function_masked = False
        self._may_send = False
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset: every vector masked and empty."""
        self._table = bytearray(ENTRY.pack(0, 0, MASKED) * self.vectors)
        self.pending = 0
        """Bit n: vector n waits."""

    def bar(self, index: int) -> Bar:
        """A region of its own for the table."""
        return Bar(index=index, size=self.size, registers=self)

    def capability(self, index: int) -> Capability:
        """The capability that says that table and pending bits are in the region of this BAR."""

        def register(offset: int, name: str, meaning: str, width: int, reset: int, **more: Any) -> Register[Any]:
            access = RW if "stored" in more else R
            section = "PCI 3.0 6.8.2"
            return Register(
                offset=offset,
                name=f"MSI-X {name}",
                access=access,
                width=width,
                reset=reset,
                meaning=meaning,
                section=section,
                **more,
            )

        return Capability(
            MSIX,
            RegisterMap(
                "MSI-X",
                register(
                    2,
                    "control",
                    "vectors - 1, function mask, enable",
                    2,
                    self.vectors - 1,
                    stored=ENABLE | FUNCTION_MASK,
                    write=lambda function, value: self.set_control(value),
                ),
                register(4, "table", "its BAR and offset", 4, index),
                register(8, "pending", "their BAR and offset", 4, self._pending_at | index),
            ),
        )

    # -- sending ----------------------------------------------------------------------------------

    def set_control(self, value: int) -> None:
        """The message control register has changed."""
        self.enabled = bool(value & ENABLE)
        self._function_masked = bool(value & FUNCTION_MASK)
        self._on_control()
        self._send_pending()

    def allow(self, bus_master: bool) -> None:
        """Whether the function may write memory: a message is a write (PCI 3.0 6.8.2)."""
        self._may_send = bus_master
        self._send_pending()

    def notify(self, vector: int) -> None:
        """Send the message of a vector, now or when it is no longer masked; there may be no such vector."""
        if vector < self.vectors:
            self.pending |= 1 << vector
            self._send_pending()

    def forget(self) -> None:
        """The device was reset: what was pending is of the past."""
        self.pending = 0

    def _send_pending(self) -> None:
        if not self.pending or not self.enabled or self._function_masked or not self._may_send:
            return
        left = self.pending
        while left:
            bit = left & -left
            left ^= bit
            address, data, control = ENTRY.unpack_from(self._table, ENTRY.size * (bit.bit_length() - 1))
            if not control & MASKED:
                self.pending &= ~bit
                self._deliver(address, data)

    # -- RegisterDevice ---------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read: table and pending bits at any width, zeros elsewhere."""
        if offset >= self._pending_at:
            return self.pending >> 8 * (offset - self._pending_at) & (1 << 8 * size) - 1
        return int.from_bytes(self._table[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write: the table; an entry that is unmasked and waits is sent at once."""
        for index in range(offset, min(offset + size, len(self._table))):
            self._table[index] = value & _STORED[index % ENTRY.size]
            value >>= 8
        self._send_pending()

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        if offset >= self._pending_at:
            return "pending"
        if offset >= len(self._table):
            return ""
        return f"vector {offset // ENTRY.size} {_FIELDS[offset % ENTRY.size // 4]}"

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """Table and pending bits; the message control is in configuration space."""
        return {"version": 1, "table": self._table.hex(), "pending": self.pending}

    def load(self, state: dict[str, Any], control: int, *, bus_master: bool) -> None:
        """Restore what save() gave, and what the registers of the function say; sends what was pending and may go."""
        table = bytes.fromhex(state["table"])
        if state["version"] != 1 or len(table) != len(self._table):
            raise ValueError(f"{self.name}: MSI-X state of another device or version")
        self._may_send = False
        self.reset()
        self.write(0, len(table), int.from_bytes(table, "little"))
        self.pending = state["pending"] & (1 << self.vectors) - 1
        self.set_control(control)
        self.allow(bus_master)
