"""One PCI function: its configuration space, regions, interrupt pin, and whether it may use the bus (PCI 3.0 6).

A controller derives from it, gives its regions as Bars, and asks `bus_master` before it touches memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from e2kdisk.devices.controller import Trace
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.devices.pci.bar import Bar, Claim
from e2kdisk.devices.pci.capability import Capability
from e2kdisk.devices.pci.config_space import SIZE, ConfigSpace
from e2kdisk.devices.pci.header import (
    BAR0,
    BUS_MASTER,
    CAPABILITIES_LIST,
    CAPABILITY_POINTER,
    COMMAND,
    FUNCTION_HEADER,
    HEADER_TYPE,
    INTERRUPT_STATUS,
    INTX_DISABLE,
    IO_SPACE,
    MEMORY_SPACE,
    MULTIFUNCTION,
    PROG_IF,
    STATUS,
)
from e2kdisk.devices.registers import RegisterMap

FIRST_CAPABILITY = 0x40
"""Where the header ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a function says it is."""

    vendor: int
    device: int
    class_code: int
    """Class and sub-class, 16 bits: 0x0101 is IDE."""
    prog_if: int = 0
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class Host(Protocol):
    """What a function asks of the bus that it is on."""

    def claims_changed(self) -> None:
        """The ranges of a function have changed."""
        ...

    def message(self, address: int, data: int) -> None:
        """Write 32 bits to an address: a message-signalled interrupt."""
        ...


class PciFunction:
    """A function on a bus. As a RegisterDevice it is its configuration space."""

    size = SIZE
    header: RegisterMap[Any] = FUNCTION_HEADER
    trace: Trace | None = None
    memory: GuestMemory

    def __init__(
        self,
        name: str,
        identity: Identity,
        *,
        interrupt_pin: int = 0,
        bars: Sequence[Bar] = (),
        capabilities: Sequence[Capability] = (),
        registers: RegisterMap[Any] | None = None,
        prog_if_stored: int = 0,
    ) -> None:
        """interrupt_pin is 1 to 4 for INTA to INTD, 0 for none.

        `registers` are the device's own, at their offsets from 0x40 up; capabilities take the room that is left, in
        order. prog_if_stored are the bits of the programming interface that a driver may change. Raises ValueError
        for what does not fit.
        """
        self.name = name
        self.identity = identity
        self.interrupt_pin = interrupt_pin
        self.bars = tuple(bars)
        self.bus: Host | None = None
        self.config = config = ConfigSpace(self)
        config.add(self.header)
        config.permit(PROG_IF, 1, stored=prog_if_stored)
        for bar in self.bars:
            config.permit(BAR0 + 4 * bar.index, bar.width, stored=bar.address_mask)
            config.preset(BAR0 + 4 * bar.index, bar.width, bar.type_bits)
        if registers is not None:
            config.add(registers)
        self.capability_offsets = self._link(capabilities)
        """Where each capability is, in the order given."""
        self._irq = IrqLine()
        self._intx = False

    def _link(self, capabilities: Sequence[Capability]) -> list[int]:
        offsets, start = [], FIRST_CAPABILITY
        for capability in capabilities:
            length = (capability.registers.size + 3) & -4
            while not self.config.is_free(start, start + length):
                start += 4
                if start >= SIZE:
                    raise ValueError(f"{self.name}: no room for {capability.registers.name}")
            offsets.append(start)
            start += length
        for capability, offset, following in zip(capabilities, offsets, [*offsets[1:], 0], strict=False):
            self.config.add(capability.linked(following), offset)
        if offsets:
            self.config.preset(CAPABILITY_POINTER, 1, offsets[0])
            self.config.preset(STATUS, 2, CAPABILITIES_LIST)
        return offsets

    def set_multifunction(self) -> None:
        """Called by the bus: there are other functions in the same slot (PCI 3.0 6.2.1)."""
        self.config.preset(HEADER_TYPE, 1, self.config.get(HEADER_TYPE, 1) | MULTIFUNCTION)

    # -- Controller -------------------------------------------------------------------------------

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Controller.connect: irq is the wire of the interrupt pin."""
        self.memory = memory
        self._irq = irq

    def reset(self) -> None:
        """The bus's reset line (PCI 3.0 4.3.2): registers to their power-on values, no range, no interrupt."""
        self._intx = False
        self._irq.set(False)
        self.config.reset()
        self.command_changed()

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name: of configuration space."""
        return self.config.name_of(offset)

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read: of configuration space."""
        return self.read_config(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write: of configuration space."""
        self.write_config(offset, size, value)

    def read_config(self, offset: int, size: int) -> int:
        """Read configuration space; any width, any alignment."""
        return self.config.read(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write configuration space; any width, any alignment."""
        self.config.write(offset, size, value)

    # -- command and regions ----------------------------------------------------------------------

    @property
    def command(self) -> int:
        """The command register."""
        return self.config.get(COMMAND, 2)

    @property
    def bus_master(self) -> bool:
        """Whether the function may read and write memory; without it no DMA and no message (PCI 3.0 6.2.2)."""
        return bool(self.command & BUS_MASTER)

    def command_changed(self) -> None:
        """The command register has been written."""
        self._drive()
        self.decode_changed()
        self.on_command()

    def on_command(self) -> None:
        """For a subclass: the command register has been written, or reset."""

    def decode_changed(self) -> None:
        """What claims() gives may have changed."""
        if self.bus is not None:
            self.bus.claims_changed()

    def claims(self) -> Iterator[Claim]:
        """The ranges that the function answers at now. A subclass may add fixed ones (legacy ports)."""
        command = self.command
        enabled = {"memory": command & MEMORY_SPACE, "io": command & IO_SPACE}
        for bar in self.bars:
            if enabled[bar.space]:
                claim = bar.claim(self.config.get(BAR0 + 4 * bar.index, bar.width))
                if claim is not None:
                    yield claim

    # -- interrupts -------------------------------------------------------------------------------

    @property
    def intx(self) -> bool:
        """Whether the function wants its pin driven."""
        return self._intx

    def set_intx(self, level: bool) -> None:
        """Drive the interrupt pin; the status bit shows it even while the pin is disabled (PCI 3.0 6.2.2, 6.2.3)."""
        if level != self._intx:
            self._intx = level
            status = self.config.data
            status[STATUS] = status[STATUS] & ~INTERRUPT_STATUS | INTERRUPT_STATUS * level
            self._drive()

    def _drive(self) -> None:
        self._irq.set(self._intx and not self.config.data[COMMAND + 1] & INTX_DISABLE >> 8)

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """Controller.save."""
        return {"version": 1, "function": self.name, "config": self.config.save(), "intx": self._intx}

    def load(self, state: dict[str, Any]) -> None:
        """Controller.load."""
        if (state["version"], state["function"]) != (1, self.name):
            raise ValueError(f"{self.name}: cannot load state {state['function']!r} version {state['version']}")
        self.config.load(state["config"])
        self._intx = False
        self.set_intx(bool(state["intx"]))
        self._drive()
        self.decode_changed()
