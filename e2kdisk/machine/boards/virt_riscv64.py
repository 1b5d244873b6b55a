"""virt-riscv64: one RV64GC hart at the addresses of QEMU's `virt` machine."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import ClassVar

from e2kdisk.devices.irq import IrqLine
from e2kdisk.machine.boards.board import Timing
from e2kdisk.machine.boards.mmio_board import MmioBoard
from e2kdisk.machine.boards.tree import Tree, blob, cells
from e2kdisk.machine.bus import Stub
from e2kdisk.machine.chips import sifive_test
from e2kdisk.machine.chips.clint import NS_PER_TICK, Clint
from e2kdisk.machine.chips.plic import SOURCES, Plic
from e2kdisk.machine.chips.sifive_test import SifiveTest
from e2kdisk.machine.chips.uart16550 import Uart16550
from e2kdisk.machine.cpu import unicorn_riscv64 as riscv
from e2kdisk.machine.cpu.cpu import Reason

TEST = 0x0010_0000
CLINT = 0x0200_0000
PLIC = 0x0C00_0000
UART = 0x1000_0000
VIRTIO = 0x1000_1000
VIRTIO_STRIDE = 0x1000
VIRTIO_REGISTERS = 0x200
FLASH = 0x2000_0000
FLASH_SIZE = 0x0400_0000
PCI_CONFIG = 0x3000_0000
PCI_CONFIG_SIZE = 0x1000_0000
RAM = 0x8000_0000

UART_SOURCE = 10
VIRTIO_SOURCE = 1
TREE_ROOM = 0x10000
TREE_BELOW = 3 << 30
"""The device tree stays below this many bytes from the start of RAM: 32-bit pointers reach it."""

CPU_INTC_PHANDLE = 1
PLIC_PHANDLE = 2
TEST_PHANDLE = 3


class VirtRiscv64(MmioBoard):
    """Firmware is loaded to the start of RAM; a0 = hart, a1 = device tree near the end of RAM."""

    NAME = "virt-riscv64"
    DESCRIPTION = "64-bit RISC-V, one hart, at the addresses of QEMU's virt machine"
    CPUS: ClassVar[tuple[str, ...]] = ("riscv64",)
    SLOTS = 8

    def __init__(self, ram_size: int, timing: Timing, cpu: str = "", quirks: Collection[str] = ()) -> None:
        super().__init__(ram_size, cpu, quirks)
        self.cpu = riscv.Riscv64Cpu()
        wires = {
            line: IrqLine(partial(self._drive, line))
            for line in (riscv.SOFTWARE, riscv.TIMER, riscv.EXTERNAL, riscv.SUPERVISOR_EXTERNAL)
        }
        self.irq_chip = self._plic = Plic((wires[riscv.EXTERNAL], wires[riscv.SUPERVISOR_EXTERNAL]))
        uart = Uart16550(self._plic.line(UART_SOURCE), "uart0")
        self.add_chip(TEST, SifiveTest(self._finish))
        self.add_chip(CLINT, Clint(timing.read_ns, timing.call_at, wires[riscv.TIMER], wires[riscv.SOFTWARE]))
        self.add_chip(PLIC, self._plic)
        self.add_chip(UART, uart)
        self.serial_ports = (uart,)
        self.bus.add(FLASH, Stub("flash", FLASH_SIZE))
        self.bus.add(PCI_CONFIG, Stub("pci-config", PCI_CONFIG_SIZE))

    def _drive(self, line: int, level: bool) -> None:
        self.cpu.set_irq(level, line)

    def _finish(self, word: int, code: int) -> None:
        self.exit_code = code if word == sifive_test.FAIL else 0
        self.cpu.stop(Reason.RESET if word == sifive_test.RESET else Reason.POWER_OFF)

    def slot_base(self, slot: int) -> int:
        """Board.slot_base."""
        return VIRTIO + VIRTIO_STRIDE * slot

    def slot_irq(self, slot: int) -> IrqLine:
        """Board.slot_irq."""
        return self._plic.line(VIRTIO_SOURCE + slot)

    def map_memory(self) -> None:
        """Board.map_memory."""
        self.fill_slots(VIRTIO_REGISTERS)
        self.map_ram(RAM, self.ram)

    def start(self) -> dict[str, int]:
        """Board.start."""
        self.put(RAM, self.bios)
        # Near the end, where no firmware and none of U-Boot's load addresses is.
        tree = RAM + (min(self.ram.view.nbytes, TREE_BELOW) - TREE_ROOM & -(2 << 20))
        self.put(tree, self.device_tree())
        return {"pc": RAM, "a0": 0, "a1": tree}

    def device_tree(self) -> bytes:
        """Board.device_tree."""
        uart = f"serial@{UART:x}"
        tree: Tree = {
            "#address-cells": 2,
            "#size-cells": 2,
            "compatible": ["e2kdisk,virt-riscv64", "riscv-virtio"],
            "model": "e2kdisk virt-riscv64",
            "chosen": {"stdout-path": f"/soc/{uart}"},
            f"memory@{RAM:x}": {"device_type": "memory", "reg": cells(RAM, self.ram.view.nbytes)},
            "cpus": {
                "#address-cells": 1,
                "#size-cells": 0,
                "timebase-frequency": 1_000_000_000 // NS_PER_TICK,
                "cpu@0": {
                    "device_type": "cpu",
                    "compatible": "riscv",
                    "reg": 0,
                    "status": "okay",
                    "riscv,isa": "rv64imafdc_zicsr_zifencei",
                    "mmu-type": "riscv,sv39",
                    "interrupt-controller": {
                        "compatible": "riscv,cpu-intc",
                        "interrupt-controller": None,
                        "#interrupt-cells": 1,
                        "phandle": CPU_INTC_PHANDLE,
                    },
                },
            },
            "poweroff": {
                "compatible": "syscon-poweroff",
                "regmap": TEST_PHANDLE,
                "offset": 0,
                "value": sifive_test.PASS,
            },
            "reboot": {"compatible": "syscon-reboot", "regmap": TEST_PHANDLE, "offset": 0, "value": sifive_test.RESET},
            "soc": {
                "compatible": "simple-bus",
                "#address-cells": 2,
                "#size-cells": 2,
                "ranges": None,
                uart: {
                    "compatible": "ns16550a",
                    "reg": cells(UART, 0x100),
                    "clock-frequency": 3_686_400,
                    "interrupts": UART_SOURCE,
                    "interrupt-parent": PLIC_PHANDLE,
                },
                f"test@{TEST:x}": {
                    "compatible": ["sifive,test1", "sifive,test0", "syscon"],
                    "reg": cells(TEST, 0x1000),
                    "phandle": TEST_PHANDLE,
                },
                f"clint@{CLINT:x}": {
                    "compatible": ["sifive,clint0", "riscv,clint0"],
                    "reg": cells(CLINT, 0x10000),
                    "interrupts-extended": [CPU_INTC_PHANDLE, riscv.SOFTWARE, CPU_INTC_PHANDLE, riscv.TIMER],
                },
                f"plic@{PLIC:x}": {
                    "compatible": ["sifive,plic-1.0.0", "riscv,plic0"],
                    "reg": cells(PLIC, 0x60_0000),
                    "interrupt-controller": None,
                    "#interrupt-cells": 1,
                    "#address-cells": 0,
                    "riscv,ndev": SOURCES,
                    "interrupts-extended": [
                        *(CPU_INTC_PHANDLE, riscv.EXTERNAL),
                        *(CPU_INTC_PHANDLE, riscv.SUPERVISOR_EXTERNAL),
                    ],
                    "phandle": PLIC_PHANDLE,
                },
                **{
                    f"virtio_mmio@{self.slot_base(slot):x}": {
                        "compatible": "virtio,mmio",
                        "reg": cells(self.slot_base(slot), VIRTIO_REGISTERS),
                        "interrupts": VIRTIO_SOURCE + slot,
                        "interrupt-parent": PLIC_PHANDLE,
                    }
                    for slot in sorted(self.slots)
                },
            },
        }
        return blob(tree, TREE_ROOM)
