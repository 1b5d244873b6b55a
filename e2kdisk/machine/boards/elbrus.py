"""elbrus: the address map of qemu-e2k's machine and of Linux/e2k, with the disk controllers that an IOHUB-2 has.

    0x0_0000_0000  RAM, up to 2 GiB; what is more from 0x4_0000_0000 on
    0x0_8000_0000  PCI memory: bus address A is at A (quirk qemu-offset: at 0x8000_0000 + A); ESCC at its + 0x1000
    0x0_fec0_0000  IOAPIC, where function 02.1 says; 0x0_fee0_0000 local APIC
    0x1_0000_0000  16 MiB of RAM with the firmware: entered at its first byte, boot info block in its last page
    0x1_0100_0000  I/O ports: an e2k CPU reaches them by MAS mode 6 only, an arm64 one as memory
    0x1_1000_0000  SIC registers
    0x2_0000_0000  PCI configuration space

Interrupts: pin of the IOAPIC -> local APIC -> the CPU's one input. An arm64 guest takes the vector from the APIC's
register VECT and ends it by EOI; an e2k guest polls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, cast

from e2kdisk.devices.ata import PciIde
from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.pci import ConfigPorts, Ecam, PciBus, PciFunction, WiredOr, swizzle
from e2kdisk.devices.pci.header import COMMAND, INTERRUPT_LINE, IO_SPACE
from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.pci import VirtioPci
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Board, Drive, Timing
from e2kdisk.machine.boards.boot_block import SIZE as BOOT_BLOCK_SIZE
from e2kdisk.machine.boards.boot_block import Bank, BootBlock
from e2kdisk.machine.boards.kernel import load_kernel
from e2kdisk.machine.bus import Window
from e2kdisk.machine.chips import iohub, lapic
from e2kdisk.machine.chips.ioapic import IoApic
from e2kdisk.machine.chips.lapic import LocalApic
from e2kdisk.machine.chips.sic import Sic
from e2kdisk.machine.cpu.cpu import Cpu, Reason
from e2kdisk.machine.cpu.e2k.adapter import E2kCpu
from e2kdisk.machine.ram import GuestRam

LOW_RAM_LIMIT = 0x8000_0000
HIGH_RAM = 0x4_0000_0000
PCI_MEMORY = 0x8000_0000
PCI_MEMORY_SIZE = 0x7EC0_0000
SERIAL = PCI_MEMORY + 0x1000
IOAPIC_AREA = iohub.IOAPIC_DEFAULT
LAPIC = 0xFEE0_0000
FIRMWARE = 0x1_0000_0000
FIRMWARE_SIZE = 16 << 20
BOOT_BLOCK = FIRMWARE + FIRMWARE_SIZE - BOOT_BLOCK_SIZE
PORTS = 0x1_0100_0000
SIC = 0x1_1000_0000
PCI_CONFIG = 0x2_0000_0000

FIRST_DEVICE, DEVICES = 3, 32
"""Device numbers for disk controllers; qemu-e2k has nothing from 3 on, either."""
SPMC_DEVICE = 0x0C
SERIAL_PIN, SPMC_PIN, SYSTEM_CONTROL_PIN = 3, 1, 15
IDE_PIN, IDE_LEGACY_PINS = 11, (14, 15)
INTX_PINS = (19, 16, 17, 18)
"""IOAPIC pin of each of the four wires that other functions share (qemu-e2k hw/pci-host/iohub.c)."""
NS_PER_TICK = 16
"""Of an arm64 guest's system counter."""
NS_PER_WIDE_INSTRUCTION = 500
"""2 MHz, about what the executor reaches: virtual seconds are not much shorter than those of the user."""


class Elbrus(Board):
    """Firmware runs from RAM of its own; disks are PCI functions."""

    NAME = "elbrus"
    DESCRIPTION = "Elbrus at the addresses of qemu-e2k's machine, with disks"
    CPUS = ("e2k", "arm64")
    IO_PORTS = PORTS
    LOADS_KERNELS = True
    INTERFACES = ("ide", "virtio")
    QUIRKS: ClassVar[dict[str, str]] = {
        "qemu-offset": "PCI bus address A is seen at 0x80000000 + A, as in qemu-e2k, instead of at A"
    }

    def __init__(self, ram_size: int, timing: Timing, cpu: str = "", quirks: Collection[str] = ()) -> None:
        super().__init__(ram_size, cpu, quirks)
        self.cpu = self._make_cpu(timing)
        self.firmware = GuestRam(FIRMWARE_SIZE)
        window_base = 0 if "qemu-offset" in self.quirks else PCI_MEMORY
        self.pci = PciBus(memory=(window_base, PCI_MEMORY_SIZE))
        self.config_ports = ConfigPorts(self.pci)
        self.lapic = LocalApic(IrqLine(self.cpu.set_irq))
        self.ioapic = IoApic(self.lapic.accept)
        self.lapic.on_end = self.ioapic.end
        self.irq_chip = self.ioapic
        self._shared = [WiredOr(self.ioapic.line(pin)) for pin in INTX_PINS]
        self.sic = Sic()
        self.control = iohub.SystemControl(lambda: self.cpu.stop(Reason.RESET))
        self.serial = iohub.SerialPorts(window_base + SERIAL - PCI_MEMORY)
        self.power = iohub.PowerControl(timing.read_ns, lambda: self.cpu.stop(Reason.POWER_OFF))
        self.serial_ports = self.serial.escc.channels

        self.pci.on_message = self._message
        self.pci.io.add_fixed(ConfigPorts.PORT, self.config_ports)
        self.pci.memory.add_fixed(window_base + SERIAL - PCI_MEMORY, self.serial.escc)
        self._add_part(0x00, 0, iohub.pci_bridge())
        self._add_part(0x01, 0, iohub.host_bridge())
        self._add_part(0x02, 1, self.control, SYSTEM_CONTROL_PIN)
        self._add_part(0x02, 2, self.serial, SERIAL_PIN)
        self._add_part(SPMC_DEVICE, 0, self.power, SPMC_PIN)

        self.bus.add(PCI_MEMORY, self.pci.memory)
        self.bus.add(IOAPIC_AREA, iohub.IoApicWindow(self.ioapic, self.control, IOAPIC_AREA, LAPIC - IOAPIC_AREA))
        self.chips += self.ioapic, self.config_ports
        self.add_chip(LAPIC, self.lapic)
        self.bus.add(PORTS, self.pci.io)
        self.add_chip(SIC, self.sic)
        self.bus.add(PCI_CONFIG, Ecam(self.pci))

    def _make_cpu(self, timing: Timing) -> Cpu:
        if self.cpu_name == "e2k":
            self.ns_per_instruction = NS_PER_WIDE_INSTRUCTION
            return E2kCpu()
        from e2kdisk.machine.cpu.unicorn_arm64 import Arm64Cpu

        cpu = Arm64Cpu()
        cpu.on_counter = lambda: timing.read_ns() // NS_PER_TICK
        return cpu

    # -- PCI --------------------------------------------------------------------------------------

    def _add_part(self, device: int, number: int, function: PciFunction, pin: int = 0) -> None:
        """Put a function of the chipset on the bus, its interrupt on a pin of the IOAPIC."""
        devfn = device << 3 | number
        self.pci.add(devfn, function)
        function.config.preset(INTERRUPT_LINE, 1, pin)
        function.connect(self.cpu.memory, self.ioapic.line(pin) if pin else IrqLine())
        self.chips.append(function)

    def plug(self, controller: Any, place: int | None = None) -> int:
        """Board.plug: a PCI function; its device number."""
        if not isinstance(controller, PciFunction):
            raise UsageError(f"board {self.NAME} takes PCI functions, which {controller.name} is not")
        taken = {devfn >> 3 for devfn in self.pci.functions}
        free = [device for device in range(FIRST_DEVICE, DEVICES) if device not in taken]
        if not free:
            raise UsageError(f"board {self.NAME} has {DEVICES - FIRST_DEVICE - 1} slots for disks, and all are taken")
        if place is not None and place not in free:
            raise UsageError(f"board {self.NAME} has no free slot {place} for {controller.name}")
        device = free[0] if place is None else place
        devfn = device << 3
        wire = swizzle(devfn, controller.interrupt_pin or 1)
        pin, line = INTX_PINS[wire], self._shared[wire].line()
        name, wiring = controller.name, self.wiring
        if isinstance(controller, PciIde):
            pin, line = IDE_PIN, self.ioapic.line(IDE_PIN)
            controller.connect_legacy(*(wiring.irq(name, self.ioapic.line(pin)) for pin in IDE_LEGACY_PINS))
            # As firmware would leave it: programs for the legacy ports know nothing of PCI.
            controller.config.preset(COMMAND, 2, IO_SPACE)
        self.pci.add(devfn, controller)
        # As firmware would leave it, too, for guests that have no device tree.
        controller.config.preset(INTERRUPT_LINE, 1, pin)
        controller.connect(wiring.memory(name, self.cpu.memory), wiring.irq(name, line))
        self.controllers.append(cast("Controller", controller))
        return device

    def plug_disks(self, drives: Sequence[Drive], *, virtio_version: int = 2) -> None:
        """Board.plug_disks: one IDE controller for up to four disks, and a virtio one for each."""
        ide = [drive.disk for drive in drives if drive.interface == "ide"]
        if ide:
            self.plug(PciIde(ide))
        for number, drive in enumerate(drives):
            if drive.interface == "virtio":
                device = VirtioBlk(drive.disk)
                device.name = f"virtio-blk{number}"
                self.plug(VirtioPci(device))

    def _message(self, address: int, data: int) -> None:
        """A message-signalled interrupt: a store to the local APIC, or to RAM."""
        if LAPIC <= address < LAPIC + lapic.SIZE:
            self.lapic.accept(data & 0xFF)
        else:
            self.store_message(address, data)

    # -- memory and start -------------------------------------------------------------------------

    @property
    def banks(self) -> tuple[Bank, ...]:
        """Where RAM is."""
        size = self.ram.view.nbytes
        low = min(size, LOW_RAM_LIMIT)
        return (Bank(0, low), Bank(HIGH_RAM, size - low)) if size > low else (Bank(0, low),)

    def map_memory(self) -> None:
        """Board.map_memory."""
        if len(self.bios) > FIRMWARE_SIZE - BOOT_BLOCK_SIZE:
            room = FIRMWARE_SIZE - BOOT_BLOCK_SIZE
            raise UsageError(f"firmware of {len(self.bios)} bytes does not fit into {room} bytes")
        offset = 0
        for bank in self.banks:
            self.map_ram(bank.base, self.ram, offset, bank.size)
            offset += bank.size
        self.map_ram(FIRMWARE, self.firmware)

    def map_window(self, window: Window) -> None:
        """Board.map_window: an e2k CPU has a space of its own for I/O ports."""
        if window.base == PORTS and isinstance(self.cpu, E2kCpu):
            self.cpu.map_ports(window)
        else:
            self.cpu.map_io(window)

    def reset_devices(self) -> None:
        """Board.reset_devices."""
        super().reset_devices()
        self.config_ports.reset()

    def start(self) -> dict[str, int]:
        """Board.start: firmware is called as it calls a kernel, f(0, boot info block); so is a kernel in its place."""
        block = BootBlock(cmdline=self.cmdline, banks=self.banks, serial_base=SERIAL, board_name=b"e2kdisk elbrus")
        self.put(FIRMWARE, self.bios)
        self.put(BOOT_BLOCK, block.pack())
        entry, block_at = FIRMWARE, BOOT_BLOCK
        if self.kernel:
            kernel = load_kernel(self.kernel, block)
            for piece in kernel.pieces:
                self.put(piece.address, piece.content)
                self.clear(piece.address + len(piece.content), piece.zeros)
            entry, block_at = kernel.entry, kernel.block or BOOT_BLOCK
        first, second = ("r0", "r1") if self.cpu_name == "e2k" else ("x0", "x1")
        return {"pc": entry, first: 0, second: block_at}
