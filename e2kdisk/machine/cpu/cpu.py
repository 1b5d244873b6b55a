"""What a machine asks of a CPU, whoever emulates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from e2kdisk.devices.memory import RamMemory


class Reason(Enum):
    """Why run() came back."""

    BUDGET = "budget"
    """The instructions allowed are used up, or there is something for the machine to do between two slices."""
    WFI = "wfi"
    """The guest waits for an interrupt; pc is past the instruction."""
    STOPPED = "stopped"
    """Somebody called stop()."""
    POWER_OFF = "power off"
    RESET = "reset"
    FAULT = "fault"
    """The guest did what this machine cannot carry out; see Cpu.fault."""


@dataclass(frozen=True)
class Fault:
    """What went wrong in the guest, for the one line that ends its run."""

    what: str
    pc: int
    instruction: str
    """Disassembled, or "" where pc points nowhere."""
    address: int | None = None
    """The memory address that was touched, if it was a memory access."""

    def __str__(self) -> str:
        where = "" if self.address is None else f" at {self.address:#x}"
        code = f": {self.instruction}" if self.instruction else ""
        return f"{self.what}{where}, pc {self.pc:#x}{code}"


class IoWindow(Protocol):
    """A range of physical addresses whose loads and stores go to devices."""

    base: int
    size: int

    def read(self, offset: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes at an offset from base."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """A store of 1, 2, 4 or 8 bytes at an offset from base."""
        ...


class Ram(Protocol):
    """Host memory that the guest sees as its RAM."""

    view: memoryview
    address: int
    """Where the host's mapping starts."""


class Cpu(Protocol):
    """One processor with its physical address space."""

    memory: RamMemory
    """Guest RAM as devices see it; their writes invalidate translated code by themselves."""
    fault: Fault | None
    """Set when run() returned FAULT."""
    on_hypercall: Callable[[], Reason | None] | None
    """Called for the guest's firmware call; reads and writes registers; a reason ends the run."""
    takes_interrupts: bool
    """Whether an interrupt input can end the guest's waiting; else a guest that waits has come to its end."""
    on_counter: Callable[[], int] | None
    """Gives the value of the guest's system counter; None leaves it to the emulator's own idea of time."""

    # -- address space ----------------------------------------------------------------------------

    def map_ram(self, base: int, ram: Ram) -> None:
        """Readable, writable, executable memory."""
        ...

    def map_rom(self, base: int, content: bytes, size: int) -> None:
        """Memory that ignores stores: content, then zeros up to size."""
        ...

    def map_io(self, window: IoWindow) -> None:
        """Registers; base and size are multiples of a page."""
        ...

    def invalidate(self, start: int, end: int) -> None:
        """Forget translated code of a physical range that somebody else than the guest has written."""
        ...

    # -- running ----------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[int, Reason]:
        """Run at most `budget` instructions; how many have run (exactly), and why it ended."""
        ...

    def executed(self) -> int:
        """Instructions of the current run() so far, for callers inside it; else 0."""
        ...

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """End the run that is calling this (from a device or a hook) after this instruction, with this reason."""
        ...

    def take_stop_reason(self) -> Reason | None:
        """What stop() was given outside run(), once: a guest need not run for a device to switch it off."""
        ...

    def kick(self) -> None:
        """Make run() return after this instruction with BUDGET; from any thread; lost if the guest is not running."""
        ...

    def set_irq(self, level: bool, line: int = 0) -> None:
        """Drive an interrupt input; what the lines mean is the architecture's."""
        ...

    def irq_pending(self) -> bool:
        """Whether an interrupt input is driven that the CPU has not been told to ignore."""
        ...

    def reset(self, registers: dict[str, int]) -> None:
        """Power-on state of everything in the CPU, then these registers; memory stays."""
        ...

    # -- state ------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Address of the next instruction; inside a device access, of the one that makes it."""
        ...

    def read_register(self, name: str) -> int:
        """Value of a register by its lower-case architectural name."""
        ...

    def write_register(self, name: str, value: int) -> None:
        """Set a register by its lower-case architectural name."""
        ...

    def disassemble(self, address: int) -> str:
        """The instruction at an address as text, "" if there is no memory there."""
        ...

    def save(self) -> dict[str, object]:
        """Registers as plain data; not during run()."""
        ...

    def load(self, state: dict[str, object]) -> None:
        """Restore what save() gave."""
        ...

    def close(self) -> None:
        """Release the emulator; memory that was mapped stays with its owner."""
        ...
