"""virt-arm64: a Cortex-A53 at the addresses of QEMU's `virt` machine."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.pci import PciFunction
from e2kdisk.devices.virtio.blk import VirtioBlk
from e2kdisk.devices.virtio.pci import VirtioPci
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Timing
from e2kdisk.machine.boards.mmio_board import MmioBoard
from e2kdisk.machine.boards.pci_host import PciHost, PciMap
from e2kdisk.machine.boards.tree import Tree, blob, cells
from e2kdisk.machine.chips.gicv2 import SPI, Gic, GicDistributor, GicInterface
from e2kdisk.machine.chips.pl011 import Pl011
from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.cpu.unicorn_arm64 import Arm64Cpu

FLASH = (0x0000_0000, 0x0400_0000)
"""Two banks: firmware in the first; U-Boot looks for its environment in the second."""
FLASH_SIZE = 0x0400_0000
GIC_DISTRIBUTOR = 0x0800_0000
GIC_INTERFACE = 0x0801_0000
UART = 0x0900_0000
VIRTIO = 0x0A00_0000
VIRTIO_STRIDE = 0x200
RAM = 0x4000_0000
PCI = PciMap(
    config=(0x40_1000_0000, 0x1000_0000),
    memory=(0x1000_0000, 0x2EFF_0000),
    high_memory=(0x80_0000_0000, 1 << 32),
    io=0x3EFF_0000,
)

UART_SPI = 1
PCI_SPI = 3
"""The first of four."""
VIRTIO_SPI = 16
COUNTER_HZ = 62_500_000
NS_PER_TICK = 1_000_000_000 // COUNTER_HZ
TREE_ROOM = 0x10000

IRQ_LEVEL_HIGH = 4

# PSCI functions (ARM DEN 0022, 5)
PSCI_VERSION = 0x8400_0000
PSCI_CPU_OFF = 0x8400_0002
PSCI_MIGRATE_INFO_TYPE = 0x8400_0006
PSCI_SYSTEM_OFF = 0x8400_0008
PSCI_SYSTEM_RESET = 0x8400_0009
PSCI_FEATURES = 0x8400_000A
PSCI_KNOWN = (PSCI_VERSION, PSCI_CPU_OFF, PSCI_MIGRATE_INFO_TYPE, PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_FEATURES)
PSCI_NOT_SUPPORTED = (1 << 64) - 1
MIGRATION_NOT_REQUIRED = 2

CLOCK_PHANDLE = 1
GIC_PHANDLE = 2


class VirtArm64(MmioBoard):
    """Firmware runs from flash at 0, the device tree is at the start of RAM."""

    NAME = "virt-arm64"
    DESCRIPTION = "64-bit Arm, Cortex-A53, at the addresses of QEMU's virt machine"
    CPUS: ClassVar[tuple[str, ...]] = ("arm64",)
    INTERFACES = ("virtio", "virtio-pci")
    SLOTS = 32

    def __init__(self, ram_size: int, timing: Timing, cpu: str = "", quirks: Collection[str] = ()) -> None:
        super().__init__(ram_size, cpu, quirks)
        self.cpu = Arm64Cpu()
        self.irq_chip = self._gic = Gic(IrqLine(self.cpu.set_irq))
        uart = Pl011(self._gic.line(SPI + UART_SPI), "uart0")
        self.add_chip(GIC_DISTRIBUTOR, GicDistributor(self._gic, "gicd"))
        self.add_chip(GIC_INTERFACE, GicInterface(self._gic, "gicc"))
        self.add_chip(UART, uart)
        self.serial_ports = (uart,)
        self.pci = PciHost(self.bus, PCI, [self._gic.line(SPI + PCI_SPI + wire) for wire in range(4)])
        self.pci.pci.on_message = self.store_message
        self.chips.append(self.pci.bridge)
        self.cpu.on_hypercall = self._psci
        self.cpu.on_counter = lambda: timing.read_ns() // NS_PER_TICK

    def slot_base(self, slot: int) -> int:
        """Board.slot_base."""
        return VIRTIO + VIRTIO_STRIDE * slot

    def slot_irq(self, slot: int) -> IrqLine:
        """Board.slot_irq."""
        return self._gic.line(SPI + VIRTIO_SPI + slot)

    def plug(self, controller: Controller, place: int | None = None) -> int:
        """Board.plug: its slot, of PCI functions on the PCI bus."""
        if not isinstance(controller, PciFunction):
            return super().plug(controller, place)
        slot, line = self.pci.plug(controller, place)
        memory = self.wiring.memory(controller.name, self.cpu.memory)
        controller.connect(memory, self.wiring.irq(controller.name, line))
        self.controllers.append(controller)
        return slot

    def plug_disk(self, device: VirtioBlk, interface: str, *, legacy: bool) -> None:
        """MmioBoard.plug_disk: also over PCI. There is nothing that takes messages, so interrupts go by the pin."""
        if interface == "virtio-pci":
            self.plug(VirtioPci(device, transitional=legacy, vectors=0))
        else:
            super().plug_disk(device, interface, legacy=legacy)

    def map_memory(self) -> None:
        """Board.map_memory."""
        if len(self.bios) > FLASH_SIZE:
            raise UsageError(f"firmware of {len(self.bios)} bytes does not fit into {FLASH_SIZE} bytes of flash")
        self.fill_slots(VIRTIO_STRIDE)
        self.map_rom(FLASH[0], self.bios, FLASH_SIZE)
        self.map_rom(FLASH[1], b"", FLASH_SIZE)
        self.map_ram(RAM, self.ram)

    def start(self) -> dict[str, int]:
        """Board.start: firmware finds the device tree at the start of RAM by itself; x0 tells it, too."""
        self.put(RAM, self.device_tree())
        return {"pc": FLASH[0], "x0": RAM}

    def _psci(self) -> Reason | None:
        cpu = self.cpu
        function = cpu.read_register("x0") & 0xFFFF_FFFF
        result = PSCI_NOT_SUPPORTED
        match function:
            case 0x8400_0008:
                return Reason.POWER_OFF
            case 0x8400_0009:
                return Reason.RESET
            case 0x8400_0002:
                return Reason.POWER_OFF  # the only CPU
            case 0x8400_0000:
                result = 1 << 16  # version 1.0
            case 0x8400_0006:
                result = MIGRATION_NOT_REQUIRED
            case 0x8400_000A:
                result = 0 if cpu.read_register("x1") & 0xFFFF_FFFF in PSCI_KNOWN else PSCI_NOT_SUPPORTED
        cpu.write_register("x0", result)
        return None

    def device_tree(self) -> bytes:
        """Board.device_tree."""
        uart = f"pl011@{UART:x}"
        tree: Tree = {
            "#address-cells": 2,
            "#size-cells": 2,
            "compatible": ["e2kdisk,virt-arm64", "linux,dummy-virt"],
            "model": "e2kdisk virt-arm64",
            "interrupt-parent": GIC_PHANDLE,
            "chosen": {"stdout-path": f"/{uart}"},
            "aliases": {"serial0": f"/{uart}"},
            f"memory@{RAM:x}": {"device_type": "memory", "reg": cells(RAM, self.ram.view.nbytes)},
            "cpus": {
                "#address-cells": 1,
                "#size-cells": 0,
                "cpu@0": {"device_type": "cpu", "compatible": "arm,cortex-a53", "reg": 0, "enable-method": "psci"},
            },
            "psci": {"compatible": ["arm,psci-1.0", "arm,psci-0.2"], "method": "hvc"},
            "timer": {
                "compatible": "arm,armv8-timer",
                "always-on": None,
                "interrupts": [word for ppi in (13, 14, 11, 10) for word in (1, ppi, 0x104)],
            },
            "apb-pclk": {
                "compatible": "fixed-clock",
                "#clock-cells": 0,
                "clock-frequency": 24_000_000,
                "clock-output-names": "clk24mhz",
                "phandle": CLOCK_PHANDLE,
            },
            f"intc@{GIC_DISTRIBUTOR:x}": {
                "compatible": "arm,cortex-a15-gic",
                "interrupt-controller": None,
                "#interrupt-cells": 3,
                "#address-cells": 2,
                "#size-cells": 2,
                "reg": cells(GIC_DISTRIBUTOR, 0x10000, GIC_INTERFACE, 0x10000),
                "phandle": GIC_PHANDLE,
            },
            uart: {
                "compatible": ["arm,pl011", "arm,primecell"],
                "reg": cells(UART, 0x1000),
                "interrupts": [0, UART_SPI, IRQ_LEVEL_HIGH],
                "clock-names": ["uartclk", "apb_pclk"],
                "clocks": [CLOCK_PHANDLE, CLOCK_PHANDLE],
            },
            **{
                f"virtio_mmio@{self.slot_base(slot):x}": {
                    "compatible": "virtio,mmio",
                    "reg": cells(self.slot_base(slot), VIRTIO_STRIDE),
                    "interrupts": [0, VIRTIO_SPI + slot, IRQ_LEVEL_HIGH],
                    "dma-coherent": None,
                }
                for slot in sorted(self.slots)
            },
            **self.pci.node([[0, PCI_SPI + wire, IRQ_LEVEL_HIGH] for wire in range(4)], GIC_PHANDLE),
        }
        return blob(tree, TREE_ROOM)
