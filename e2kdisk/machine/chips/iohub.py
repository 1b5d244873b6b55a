"""The functions of an IOHUB-2 that are not disks: bridges, the one with IOAPIC and reset, serial ports, power.

Identities and registers as Linux/e2k uses them (dts/include/iohub2.dtsi, asm-l/i2c-spi.h, asm/spmc_regs.h). What lies
behind them and concerns no disk (I2C, SPI, parallel port, power button) is absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.pci import Bar, Identity, PciBridge, PciFunction
from e2kdisk.devices.pci.header import BAR0
from e2kdisk.devices.registers import RW, R, Register, RegisterMap
from e2kdisk.machine.chips import ioapic
from e2kdisk.machine.chips.escc import Escc
from e2kdisk.machine.chips.ioapic import IoApic

MCST = 0x1FFF
IOAPIC_DEFAULT = 0xFEC0_0000
IOAPIC_BASE = 0x40
SOFT_RESET_CONTROL = 0x64
SOFT_RESET = 1 << 0

PM_TIMER = 0x40
PM1_ENABLE = 0x48
PM1_CONTROL = 0x4C
PM_TIMER_HZ = 3_579_545
TIMER_32 = 1 << 1
"""Of PM1_EN: the timer has 32 bits instead of 24."""
SLEEP_TYPE_SHIFT, SLEEP_TYPES = 10, 7
SLEEP_ENABLE = 1 << 13
S5 = 5
"""Soft off."""


def pci_bridge() -> PciBridge:
    """The bridge to the IOHUB's own bus, on which nothing is: its functions are on bus 0, as in qemu-e2k."""
    return PciBridge("pci-bridge", Identity(vendor=MCST, device=0x8000, class_code=0x0604, revision=0x10))


def host_bridge() -> PciFunction:
    """The bridge to the CPU."""
    return PciFunction("host-bridge", Identity(vendor=MCST, device=0x8017, class_code=0x0600, revision=2))


class SystemControl(PciFunction):
    """Function 02.1, "I2C/SPI": where the IOAPIC is, and the switch that resets the machine."""

    def __init__(self, on_reset: Callable[[], None], name: str = "i2c-spi") -> None:
        self._on_reset = on_reset
        identity = Identity(vendor=MCST, device=0x8018, class_code=0x0880)
        super().__init__(name, identity, interrupt_pin=1, registers=SYSTEM_CONTROL)

    @property
    def ioapic_base(self) -> int:
        """Address of the IOAPIC."""
        return self.config.get(IOAPIC_BASE, 8)

    def soft_reset(self, value: int) -> None:
        """The register has been written."""
        self.config.set(SOFT_RESET_CONTROL, 4, 0)
        if value & SOFT_RESET:
            self._on_reset()


class IoApicWindow:
    """The addresses among which the IOAPIC lies where function 02.1 says; nothing answers at the others."""

    name = "ioapic"

    def __init__(self, chip: IoApic, control: SystemControl, base: int, size: int) -> None:
        self.size = size
        self._chip = chip
        self._control = control
        self._base = base

    def _place(self, offset: int) -> int:
        return self._base + offset - self._control.ioapic_base

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        place = self._place(offset)
        return self._chip.read(place, size) if 0 <= place < ioapic.SIZE else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        place = self._place(offset)
        if 0 <= place < ioapic.SIZE:
            self._chip.write(place, size, value)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return self._chip.register_name(self._place(offset))

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._chip.reset()


class SerialPorts(PciFunction):
    """Function 02.2: the ESCC behind BAR1, which firmware finds already set."""

    def __init__(self, base: int, name: str = "escc") -> None:
        self.escc = Escc(IrqLine(self.set_intx))
        identity = Identity(vendor=MCST, device=0x8019, class_code=0x0700, prog_if=2, revision=1)
        super().__init__(name, identity, interrupt_pin=1, bars=[Bar(index=1, size=0x1000, registers=self.escc)])
        self.config.preset(BAR0 + 4, 4, base)

    def reset(self) -> None:
        """PciFunction.reset, and that of the chip."""
        super().reset()
        self.escc.reset()

    def save(self) -> dict[str, object]:
        """Controller.save."""
        return super().save() | {"escc": self.escc.save()}

    def load(self, state: dict[str, Any]) -> None:
        """Controller.load."""
        super().load(state)
        self.escc.load(state["escc"])


class PowerControl(PciFunction):
    """Function 0c.0, SPMC: a timer, and soft off."""

    def __init__(self, read_ns: Callable[[], int], on_off: Callable[[], None], name: str = "spmc") -> None:
        self._read_ns = read_ns
        self._on_off = on_off
        identity = Identity(vendor=MCST, device=0x800E, class_code=0x0880)
        super().__init__(name, identity, interrupt_pin=1, registers=POWER_CONTROL)

    def read_config(self, offset: int, size: int) -> int:
        """Read configuration space, in which the timer runs."""
        if offset < PM_TIMER + 4 and offset + size > PM_TIMER:
            self.config.set(PM_TIMER, 4, self.read_timer())
        return super().read_config(offset, size)

    def read_timer(self) -> int:
        """Ticks of 3.58 MHz; they wrap."""
        bits = 32 if self.config.get(PM1_ENABLE, 4) & TIMER_32 else 24
        return self._read_ns() * PM_TIMER_HZ // 1_000_000_000 & (1 << bits) - 1

    def control(self, value: int) -> None:
        """PM1_CNT has been written: off, if it says to go to S5. Other states are as good as waiting for nothing."""
        if value & SLEEP_ENABLE:
            self.config.set(PM1_CONTROL, 4, value & ~SLEEP_ENABLE)
            if value >> SLEEP_TYPE_SHIFT & SLEEP_TYPES == S5:
                self._on_off()


def _reg(offset: int, name: str, meaning: str, section: str, **more: Any) -> Register[Any]:
    access = RW if more.get("stored") or more.get("cleared") else R
    return Register(offset=offset, name=name, access=access, meaning=meaning, section=f"Linux/e2k {section}", **more)


_ALL = 0xFFFF_FFFF

SYSTEM_CONTROL: RegisterMap[SystemControl] = RegisterMap(
    "i2c-spi",
    _reg(IOAPIC_BASE, "IOAPICBase", "where the IOAPIC is", "io_apic.c", reset=IOAPIC_DEFAULT, stored=0xFFFF_F000),
    _reg(IOAPIC_BASE + 4, "IOAPICBaseUpper", "its upper half", "io_apic.c", stored=_ALL),
    _reg(0x60, "ResetControl", "what a reset resets: here always all", "i2c-spi.h", stored=0x8000_00BC),
    _reg(
        SOFT_RESET_CONTROL,
        "SoftReset",
        "bit 0: reset",
        "i2c-spi.h",
        stored=1,
        write=SystemControl.soft_reset,
    ),
    _reg(0x68, "SoftResetDuration", "without effect", "i2c-spi.h", stored=0x00FF_FFFF),
)

POWER_CONTROL: RegisterMap[PowerControl] = RegisterMap(
    "spmc",
    _reg(PM_TIMER, "PM_TMR", "time in ticks of 3.579545 MHz", "spmc_regs.h"),
    _reg(0x44, "PM1_STS", "events; bit 1: on mains", "spmc_regs.h", reset=0b10, cleared=0x8115),
    _reg(PM1_ENABLE, "PM1_EN", "events that interrupt; bit 1: timer of 32 bits", "spmc_regs.h", stored=0x117),
    _reg(
        PM1_CONTROL,
        "PM1_CNT",
        "| 13 go to sleep | 12..10 how: 5 is off | 0 interrupts |",
        "spmc_regs.h",
        stored=SLEEP_ENABLE | SLEEP_TYPES << SLEEP_TYPE_SHIFT | 1,
        write=PowerControl.control,
    ),
    _reg(0x50, "ATNSUS_CNT", "without effect", "spmc_regs.h", stored=_ALL),
    _reg(0x54, "PURST_CNT", "without effect", "spmc_regs.h", stored=_ALL),
    _reg(0x58, "USB_CNTRL", "without effect", "spmc_regs.h", stored=_ALL),
)
