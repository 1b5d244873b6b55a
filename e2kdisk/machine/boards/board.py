"""What every board is: a CPU, a bus with chips on it, slots for disks, and how firmware starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.wiring import Wiring
from e2kdisk.machine.bus import Bus
from e2kdisk.machine.chips.chip import Chip, SerialPort
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


class Board:
    """One board; a subclass says what is where.

    A controller goes into a slot: plug() connects its memory and interrupt and puts its registers on the bus. After
    the last one, power_on() maps everything and starts the firmware at its entry.
    """

    NAME: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    RAM_BASE: ClassVar[int]
    MIN_RAM: ClassVar[int] = 16 << 20
    SLOTS: ClassVar[int]
    """virtio-mmio slots, filled from the lowest address upwards."""

    cpu: Cpu
    uart: SerialPort
    chips: list[Chip]

    def __init__(self, ram_size: int) -> None:
        if ram_size < self.MIN_RAM or ram_size % PAGE:
            least = self.MIN_RAM >> 20
            raise UsageError(f"{ram_size} bytes of RAM: {self.NAME} needs a multiple of {PAGE}, {least} MiB or more")
        self.ram = GuestRam(ram_size)
        self.bus = Bus()
        self.controllers: list[Controller] = []
        self.wiring = Wiring()
        self.bios = b""
        self.exit_code = 0
        """What the guest gave when it powered off, where the board has a way to say it."""
        self._mapped = False

    # -- to be said by each board -----------------------------------------------------------------

    def slot_base(self, slot: int) -> int:
        """Address of a virtio-mmio slot."""
        raise NotImplementedError

    def slot_irq(self, slot: int) -> IrqLine:
        """Interrupt wire of a virtio-mmio slot."""
        raise NotImplementedError

    def device_tree(self) -> bytes:
        """What the firmware is told of this board."""
        raise NotImplementedError

    def map_memory(self) -> None:
        """Give the CPU its RAM and ROM."""
        raise NotImplementedError

    def start(self) -> dict[str, int]:
        """Place firmware and device tree in memory; the CPU's registers at the entry."""
        raise NotImplementedError

    # -- putting together -------------------------------------------------------------------------

    def plug(self, controller: Controller) -> int:
        """Put a controller into the next free slot; its number."""
        slot = len(self.controllers)
        if slot >= self.SLOTS:
            raise UsageError(f"board {self.NAME} has {self.SLOTS} slots for disks, and all are taken")
        self.bus.add(self.slot_base(slot), controller)
        memory = self.wiring.memory(controller.name, self.cpu.memory)
        controller.connect(memory, self.wiring.irq(controller.name, self.slot_irq(slot)))
        self.controllers.append(controller)
        return slot

    def add_chip(self, base: int, chip: Any) -> None:
        """Put a chip on the bus."""
        self.bus.add(base, chip)
        self.chips.append(chip)

    def power_on(self) -> None:
        """Map everything, the first time; reset the devices, start the CPU at the firmware's entry."""
        if not self._mapped:
            self._mapped = True
            self.map_memory()
            for window in self.bus.windows():
                self.cpu.map_io(window)
        self.bus.reset()
        self.exit_code = 0
        self.cpu.reset({})
        for name, value in self.start().items():
            self.cpu.write_register(name, value)

    def put(self, address: int, data: bytes) -> None:
        """Write to RAM as a boot loader or a ROM would."""
        offset = address - self.RAM_BASE
        if not 0 <= offset <= offset + len(data) <= self.ram.view.nbytes:
            raise UsageError(f"{len(data)} bytes at {address:#x} do not fit into {self.ram.view.nbytes} bytes of RAM")
        self.ram.view[offset : offset + len(data)] = data

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """CPU, chips and controllers as plain data; nothing may be in flight."""
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

    def close(self) -> None:
        """Release the CPU."""
        self.cpu.close()
