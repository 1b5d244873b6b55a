"""What every board is: a CPU, a bus with chips on it, places for disks, and how firmware starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from e2kdisk.block.disk import Disk
from e2kdisk.devices.controller import Controller
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.wiring import Wiring
from e2kdisk.machine.bus import Bus, Window
from e2kdisk.machine.chips.chip import InterruptChip, SerialPort
from e2kdisk.machine.cpu.cpu import Cpu
from e2kdisk.machine.ram import GuestRam

PAGE = 0x1000


class Timing(Protocol):
    """Where a board gets its time from."""

    def read_ns(self) -> int:
        """The time for a guest that reads it."""
        ...

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Callable[[], None]:
        """Call back at a time; returns what cancels it."""
        ...


class RamBank(NamedTuple):
    """Where a piece of some RAM is in the address space; bytes."""

    base: int
    ram: GuestRam
    offset: int
    size: int


class Drive(NamedTuple):
    """A disk and the kind of controller that it is for."""

    disk: Disk
    interface: str
    """One of the board's INTERFACES, "" for the first."""


class Placed(NamedTuple):
    """A controller that somebody else has put together."""

    controller: Any
    place: int | None = None
    """Its slot, None for the next free one."""


class Board:
    """One board; a subclass says what is where.

    plug_disks() puts controllers in front of disks, plug() any other controller into the next free place. After the
    last one, power_on() maps everything and starts the firmware at its entry.
    """

    NAME: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    CPUS: ClassVar[tuple[str, ...]]
    """What it can be had with; the first one unless said."""
    QUIRKS: ClassVar[dict[str, str]] = {}
    """Named deviations that can be asked for, and what each one does."""
    INTERFACES: ClassVar[tuple[str, ...]]
    """Kinds of disk controllers; the first one unless a drive says."""
    MIN_RAM: ClassVar[int] = 16 << 20
    IO_PORTS: ClassVar[int | None] = None
    """Where in the physical address space the 64 KiB of I/O ports are, on boards that have such a space."""
    LOADS_KERNELS: ClassVar[bool] = False
    """Whether it can start a kernel by itself, without firmware."""

    cpu: Cpu
    irq_chip: InterruptChip
    """Where every interrupt goes first."""
    serial_ports: tuple[SerialPort, ...]
    chips: list[Any]
    """Everything with a state but CPU, RAM and controllers; each has a name, a trace, save() and load()."""
    ns_per_instruction = 10
    """How fast time passes under the virtual clock."""

    def __init__(self, ram_size: int, cpu: str, quirks: Collection[str]) -> None:
        """Check what can be had. Raises UsageError."""
        if ram_size < self.MIN_RAM or ram_size % PAGE:
            least = self.MIN_RAM >> 20
            raise UsageError(f"{ram_size} bytes of RAM: {self.NAME} needs a multiple of {PAGE}, {least} MiB or more")
        if cpu and cpu not in self.CPUS:
            raise UsageError(f"board {self.NAME} has no CPU {cpu!r}; it has {' or '.join(self.CPUS)}")
        for quirk in quirks:
            if quirk not in self.QUIRKS:
                known = f"it has {', '.join(self.QUIRKS)}" if self.QUIRKS else "it has none"
                raise UsageError(f"board {self.NAME} has no quirk {quirk!r}; {known}")
        self.cpu_name = cpu or self.CPUS[0]
        self.quirks = frozenset(quirks)
        self.ram = GuestRam(ram_size)
        self.bus = Bus()
        self.chips = []
        self.controllers: list[Controller] = []
        self.wiring = Wiring()
        self.bios = b""
        self.kernel = b""
        self.cmdline = ""
        """Of the kernel."""
        self.exit_code = 0
        """What the guest gave when it powered off, where the board has a way to say it."""
        self.roms: dict[int, tuple[bytes, int]] = {}
        """Address -> content of what is only read, and its size with the zeros that follow."""
        self.ram_banks: list[RamBank] = []
        """What map_ram() has mapped."""
        self._mapped = False

    @classmethod
    def interface(cls, name: str) -> str:
        """The kind of controller of this name, "" for the one that drives get unless they say. Raises UsageError."""
        if name and name not in cls.INTERFACES:
            raise UsageError(f"if={name}: board {cls.NAME} has no such controller; it has {', '.join(cls.INTERFACES)}")
        return name or cls.INTERFACES[0]

    # -- to be said by each board -----------------------------------------------------------------

    def plug(self, controller: Any, place: int | None = None) -> int:
        """Put a controller into a slot, the next free one unless said; its number. Raises UsageError."""
        raise NotImplementedError

    def plug_disks(self, drives: Sequence[Drive], *, virtio_version: int = 2) -> None:
        """Put controllers in front of disks, called once. Raises UsageError for what this board has not."""
        raise NotImplementedError

    def map_memory(self) -> None:
        """Give the CPU its RAM and ROM."""
        raise NotImplementedError

    def start(self) -> dict[str, int]:
        """Place firmware in memory, and what it is told; the CPU's registers at the entry."""
        raise NotImplementedError

    # -- what they share --------------------------------------------------------------------------

    def add_chip(self, base: int, chip: Any) -> None:
        """Put a chip on the bus."""
        self.bus.add(base, chip)
        self.chips.append(chip)

    def map_ram(self, base: int, ram: GuestRam, offset: int = 0, size: int | None = None) -> None:
        """Give the CPU some RAM, or a piece of it."""
        bank = RamBank(base, ram, offset, ram.view.nbytes - offset if size is None else size)
        self.ram_banks.append(bank)
        self.cpu.map_ram(base, ram.part(bank.offset, bank.size))

    def map_rom(self, base: int, content: bytes, size: int) -> None:
        """Give the CPU memory that ignores stores: content, then zeros."""
        self.roms[base] = content, size
        self.cpu.map_rom(base, content, size)

    def store_message(self, address: int, data: int) -> None:
        """A message-signalled interrupt that no chip takes: a store to RAM, where a guest that polls may want it."""
        if (room := self.cpu.memory.target(address, 4)) is not None:
            room[:] = data.to_bytes(4, "little")
            self.cpu.memory.written(address, room)
            self.cpu.memory.publish()

    def map_window(self, window: Window) -> None:
        """Give the CPU a range of registers."""
        self.cpu.map_io(window)

    def reset_devices(self) -> None:
        """The reset line of everything but the CPU."""
        self.bus.reset()

    def power_on(self) -> None:
        """Map everything, the first time; reset the devices, start the CPU at the firmware's entry."""
        if not self._mapped:
            self._mapped = True
            self.map_memory()
            for window in self.bus.windows():
                self.map_window(window)
        self.reset_devices()
        self.exit_code = 0
        self.cpu.reset({})
        for name, value in self.start().items():
            self.cpu.write_register(name, value)

    def put(self, address: int, data: bytes) -> None:
        """Write to RAM as a boot loader or a ROM would. Raises UsageError where there is not enough of it."""
        self._room(address, len(data))[:] = data

    def clear(self, address: int, size: int) -> None:
        """Write zeros to RAM. Raises UsageError where there is not enough of it."""
        room = self._room(address, size)  # first: a wild size must not become that many zeros
        room[:] = bytes(size)

    def _room(self, address: int, size: int) -> memoryview:
        room = self.cpu.memory.target(address, size)
        if room is None:
            raise UsageError(f"{size} bytes at {address:#x} do not fit into {self.ram.view.nbytes} bytes of RAM")
        return room

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """CPU, chips and controllers as plain data; nothing may be in flight.

        Raises UsageError if controllers that the caller has made are called the same.
        """
        names = [controller.name for controller in self.controllers]
        if len(set(names)) < len(names):
            raise UsageError(f"two controllers have the same name, so the machine cannot be saved: {', '.join(names)}")
        return {
            "cpu": self.cpu.save(),
            "chips": {chip.name: chip.save() for chip in self.chips},
            "controllers": {controller.name: controller.save() for controller in self.controllers},
            "exit_code": self.exit_code,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what save() gave into a board that was put together in the same way. Raises UsageError."""
        for kind, present in (("chips", self.chips), ("controllers", self.controllers)):
            if list(state[kind]) != (names := [device.name for device in present]):
                raise UsageError(f"the saved machine has the {kind} {list(state[kind])}, this one has {names}")
        # Lines last: what a controller drives must find the interrupt controller as it was.
        self.cpu.load(state["cpu"])
        for chip in self.chips:
            chip.load(state["chips"][chip.name])
        for controller in self.controllers:
            controller.load(state["controllers"][controller.name])
        self.exit_code = state["exit_code"]

    def _rams(self) -> list[GuestRam]:
        return list(dict.fromkeys(bank.ram for bank in self.ram_banks))

    def save_ram(self) -> list[dict[int, bytes]]:
        """What is not zero in each RAM: offset in bytes -> content."""
        return [ram.save() for ram in self._rams()]

    def load_ram(self, state: list[dict[int, bytes]]) -> None:
        """Restore what save_ram() gave; the CPU forgets the code that was there."""
        for ram, runs in zip(self._rams(), state, strict=True):
            for start, end in ram.load(runs):
                for bank in self.ram_banks:
                    low, high = max(start, bank.offset), min(end, bank.offset + bank.size)
                    if bank.ram is ram and low < high:
                        self.cpu.invalidate(bank.base + low - bank.offset, bank.base + high - bank.offset)

    def close(self) -> None:
        """Release the CPU."""
        self.cpu.close()
