"""The bus master of a PCI IDE controller (SFF-8038i): a table of physical regions and who says when it is done.

    command  0   bit 0 START, bit 3 to memory      status  2   bit 0 Active, 1 Error, 2 Interrupt
    table    4   PRDs of 8 bytes: | address 32 | size 15:1, 0 for 64 KiB | ... bit 31: last |

How a table ends a transfer: with it, Active is cleared and the drive interrupts; before it, Active is cleared and the
drive does not interrupt; after it, the drive interrupts and Active stays until START is cleared.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from e2kdisk.devices.ata.dma import DmaEnd
from e2kdisk.devices.ata.mistakes import AtaMistake
from e2kdisk.devices.guest_error import GuestError
from e2kdisk.devices.registers import RW, Register, RegisterMap
from e2kdisk.devices.scatter import Segment

if TYPE_CHECKING:
    from e2kdisk.devices.ata.channel import AtaChannel

# Command (SFF-8038i 2.1)
START = 0x01
TO_MEMORY = 0x08

# Status (SFF-8038i 2.2)
ACTIVE = 0x01
ERROR = 0x02
INTERRUPT = 0x04
DRIVES_CAPABLE = 0x60
"""Two bits of memory for drivers: device 0 and 1 are set up for DMA."""

PRD = Struct("<II")
TABLE_MAX = 4096
"""Bytes; a table without an end mark ends here."""
REGION_MAX = 0x10000


class BusMaster:
    """One channel's bus master: 8 bytes of registers, and the DmaTransport of the channel's drives."""

    def __init__(self, enabled: Callable[[], bool] = lambda: True) -> None:
        """`enabled` tells whether the function may use the bus at all (the command register's bus master bit)."""
        self.enabled = enabled
        self.channel: AtaChannel
        self._clear()

    def _clear(self) -> None:
        self.command = 0
        self.status = 0
        self.table = 0
        self._start = 0
        self._next = 0
        self._rest: Segment | None = None
        self._ended = False

    def reset(self) -> None:
        """The power-on state; nothing is in flight on the channel."""
        self._clear()

    # -- registers --------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load inside the 8 bytes."""
        value = 0
        for index in range(min(size, 8 - offset)):
            value |= self._byte(offset + index) << 8 * index
        return value

    def _byte(self, offset: int) -> int:
        if offset >= 4:
            return self.table >> 8 * (offset - 4) & 0xFF
        register = REGISTERS.at.get(offset)
        return register.read(self) if register is not None and register.read is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A store inside the 8 bytes."""
        for index in range(min(size, 8 - offset)):
            at, byte = offset + index, value >> 8 * index & 0xFF
            if at >= 4:
                shift = 8 * (at - 4)
                self.table = (self.table & ~(0xFF << shift) | byte << shift) & 0xFFFFFFFC
            else:
                register = REGISTERS.at.get(at)
                if register is not None and register.write is not None:
                    register.write(self, byte)

    def write_command(self, value: int) -> None:
        """START begins and ends a transfer; a write that keeps it changes nothing that goes on."""
        was, self.command = self.command, value & (START | TO_MEMORY)
        if value & START and not was & START:
            self._start = self._next = self.table
            self._rest = None
            self._ended = False
            self.status |= ACTIVE
            self.kick()
        elif was & START and not value & START:
            self.status &= ~ACTIVE
            self.channel.cancel_dma()

    def write_status(self, value: int) -> None:
        """Error and Interrupt are cleared by writing ones; the drives' bits are memory."""
        self.status = self.status & ~(value & (ERROR | INTERRUPT)) & ~DRIVES_CAPABLE | value & DRIVES_CAPABLE

    def kick(self) -> None:
        """Carry what waits, if START is set and the function may use the bus."""
        if self.prepare():
            self.channel.start_dma()

    def interrupt(self) -> None:
        """INTRQ of the drives has risen."""
        self.status |= INTERRUPT

    # -- DmaTransport -----------------------------------------------------------------------------

    def prepare(self) -> bool:
        """DmaTransport.prepare: START is set, and the function may use the bus."""
        return bool(self.command & START and self.status & ACTIVE) and self.enabled()

    def segments(self, length: int, to_memory: bool) -> list[Segment] | DmaEnd:
        """DmaTransport.segments: as far as the table is needed; the rest of a region is kept."""
        if bool(self.command & TO_MEMORY) != to_memory:
            self.channel.report(GuestError(AtaMistake.DMA_DIRECTION, self.command))
        source = self.channel.memory.source
        found: list[Segment] = []
        left = length
        while left:
            if self._rest is None:
                if self._ended or self._next - self._start >= TABLE_MAX:
                    return DmaEnd.SHORT
                view = source(self._next, PRD.size)
                if view is None:
                    return DmaEnd.FAULT
                address, size = PRD.unpack(view)
                self._next += PRD.size
                self._ended = bool(size >> 31)
                # Bit 0 of address and size is not there: transfers are of words.
                self._rest = address & ~1, size & 0xFFFE or REGION_MAX
            address, size = self._rest
            taken = min(size, left)
            found.append((address, taken))
            left -= taken
            self._rest = (address + taken, size - taken) if taken < size else None
        return found

    def transferred(self) -> None:
        """DmaTransport.transferred: Active stays if the table describes more than the drive has moved."""
        exhausted = self._rest is None and (self._ended or self._next - self._start >= TABLE_MAX)
        if exhausted:
            self.status &= ~ACTIVE

    def abort(self, host_error: bool = False) -> None:
        """DmaTransport.abort."""
        self.status &= ~ACTIVE
        if host_error:
            self.status |= ERROR

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "version": 1,
            "command": self.command,
            "status": self.status,
            "table": self.table,
            "start": self._start,
            "next": self._next,
            "rest": self._rest,
            "ended": self._ended,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave."""
        if state["version"] != 1:
            raise ValueError(f"bus master: state of version {state['version']}")
        self.command = state["command"]
        self.status = state["status"]
        self.table = state["table"]
        self._start = state["start"]
        self._next = state["next"]
        rest = state["rest"]
        self._rest = None if rest is None else (rest[0], rest[1])
        self._ended = state["ended"]


REGISTERS: RegisterMap[BusMaster] = RegisterMap(
    "IDE bus master",
    Register(
        offset=0,
        name="Command",
        access=RW,
        width=1,
        meaning="bit 0 START, bit 3 to memory",
        section="SFF-8038i 2.1",
        read=lambda master: master.command,
        write=BusMaster.write_command,
    ),
    Register(
        offset=2,
        name="Status",
        access=RW,
        width=1,
        meaning="bit 0 Active, 1 Error, 2 Interrupt (both cleared by 1), 5 and 6 drives capable",
        section="SFF-8038i 2.2",
        read=lambda master: master.status,
        write=BusMaster.write_status,
    ),
    Register(
        offset=4,
        name="Descriptor Table Pointer",
        access=RW,
        width=4,
        meaning="address of the PRD table, dword aligned; used from the next START on",
        section="SFF-8038i 2.3",
        read=lambda master: master.table,
    ),
)


class BusMasterBlock:
    """The 16 bytes of registers of two channels as a RegisterDevice (BAR4)."""

    size = 16

    def __init__(self, name: str, masters: tuple[BusMaster, BusMaster]) -> None:
        self.name = name
        self._masters = masters

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        return self._masters[offset >> 3 & 1].read(offset & 7, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        self._masters[offset >> 3 & 1].write(offset & 7, size, value)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        channel = "secondary" if offset & 8 else "primary"
        return f"{channel} bus master {REGISTERS.name_of(offset & 7)}"

    def reset(self) -> None:
        """RegisterDevice.reset: the function resets its masters itself, after its channels."""
