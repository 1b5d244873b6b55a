"""A PCI IDE function: two channels at the legacy ports or at BARs, and a bus master (PCI IDE 1.0, SFF-8038i).

    prog-if bit 0, 2   the channel is   command block    control block      interrupt
    0                  legacy           0x1f0 / 0x170    0x3f6 / 0x376      legacy wire
    1                  native           BAR0 / BAR2      BAR1 / BAR3 + 2    INTA

The default is the IDE function of the MCST chipset, whose channels can be switched; a PIIX3 stays in legacy mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from e2kdisk.block.disk import Disk
from e2kdisk.devices.ata.bus_master import BusMaster, BusMasterBlock
from e2kdisk.devices.ata.channel import AtaChannel, ControlBlock
from e2kdisk.devices.ata.device import AtaDevice
from e2kdisk.devices.ata.plug import plugged
from e2kdisk.devices.controller import Trace
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.devices.pci.bar import Bar, Claim
from e2kdisk.devices.pci.function import Identity, PciFunction
from e2kdisk.devices.pci.header import IO_SPACE, PROG_IF
from e2kdisk.devices.registers import RW, Register, RegisterMap
from e2kdisk.errors import UsageError

LEGACY_PORTS = ((0x1F0, 0x3F6), (0x170, 0x376))
"""Command and control block of the channels in legacy mode (PCI IDE 1.0 2.1)."""
NATIVE = (0x01, 0x04)
"""Bits of the programming interface: the channel is in native mode."""
SWITCHABLE = 0x0A
"""The modes of both channels can be changed."""
BUS_MASTER_IDE = 0x80
CONTROL_IN_BAR = 2
"""Where the control block is in its region of 4 bytes (PCI IDE 1.0 2.4)."""

# Register 0x40 of the MCST function
CONTROL = 0x40
RESET = 1 << 6
MASK_NATIVE = 1 << 7
MASK_CHANNEL = (1 << 8, 1 << 9)


def _stored(offset: int, width: int, name: str, meaning: str, section: str, **more: Any) -> Register[PciIde]:
    """A register that keeps all that is written."""
    bits = (1 << 8 * width) - 1
    return Register(
        offset=offset, width=width, name=name, access=RW, meaning=meaning, section=section, stored=bits, **more
    )


MCST_REGISTERS: RegisterMap[PciIde] = RegisterMap(
    "MCST IDE",
    _stored(
        CONTROL,
        2,
        "IdeControl",
        "bits 3:0 Ultra DMA of the four drives, 5:4 prefetch, 6 reset, 7 mask native interrupt, 9:8 mask a channel",
        "Linux asm/l_ide.h",
        write=lambda ide, value: ide.control_written(value),
    ),
    _stored(0x44, 4, "RegisterTiming", "timing of the task file; without effect", "Linux asm/l_ide.h"),
    _stored(0x48, 4, "PioTiming", "PIO mode of the four drives, a byte each; without effect", "Linux asm/l_ide.h"),
    _stored(0x4C, 4, "DmaTiming", "DMA mode of the four drives, a byte each; without effect", "Linux asm/l_ide.h"),
)

PIIX3_REGISTERS: RegisterMap[PciIde] = RegisterMap(
    "PIIX3 IDE",
    _stored(0x40, 2, "IDETIM primary", "timing; bit 15 decode, here always on", "82371SB 2.3.9"),
    _stored(0x42, 2, "IDETIM secondary", "timing; bit 15 decode, here always on", "82371SB 2.3.9"),
    _stored(0x44, 1, "SIDETIM", "timing of devices 1; without effect", "82371SB 2.3.10"),
)


@dataclass(frozen=True, slots=True)
class Chip:
    """What differs between IDE functions."""

    identity: Identity
    registers: RegisterMap[PciIde]
    switchable: bool
    """Has BAR0 to BAR3 and native mode."""


_IDE = 0x0101

CHIPS = {
    "mcst": Chip(
        Identity(vendor=0x1FFF, device=0x800B, class_code=_IDE, prog_if=BUS_MASTER_IDE | SWITCHABLE),
        MCST_REGISTERS,
        switchable=True,
    ),
    "piix3": Chip(
        Identity(vendor=0x8086, device=0x7010, class_code=_IDE, prog_if=BUS_MASTER_IDE),
        PIIX3_REGISTERS,
        switchable=False,
    ),
}


class _ControlRegion:
    """A control block in native mode: one byte in a region of four."""

    size = 4

    def __init__(self, control: ControlBlock) -> None:
        self.name = control.name
        self._control = control

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        ones = (1 << 8 * size) - 1
        if not offset <= CONTROL_IN_BAR < offset + size:
            return ones
        shift = 8 * (CONTROL_IN_BAR - offset)
        return ones & ~(0xFF << shift) | self._control.read(0, 1) << shift

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        if offset <= CONTROL_IN_BAR < offset + size:
            self._control.write(0, 1, value >> 8 * (CONTROL_IN_BAR - offset))

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return self._control.register_name(0) if offset == CONTROL_IN_BAR else ""

    def reset(self) -> None:
        """RegisterDevice.reset: the function resets its channels."""


class PciIde(PciFunction):
    """Up to four disks: primary device 0 and 1, secondary device 0 and 1; None for a place that stays empty."""

    def __init__(self, disks: Sequence[Disk | AtaDevice | None], *, chip: str = "mcst", name: str = "ide0") -> None:
        """`chip` is one of CHIPS. Raises UsageError."""
        if chip not in CHIPS:
            raise UsageError(f"{name}: no IDE chip {chip!r}; known are {', '.join(CHIPS)}")
        if len(disks) > 4:
            raise UsageError(f"{name}: {len(disks)} disks; four is the most")
        self.chip = CHIPS[chip]
        drives, self.scheduler = plugged(name, disks)
        drives += [None] * (4 - len(drives))
        self.masters = BusMaster(lambda: self.bus_master), BusMaster(lambda: self.bus_master)
        primary, secondary = self.masters
        self.channels = (
            AtaChannel(drives[:2], name=name, label="primary", dma=primary),
            AtaChannel(drives[2:], name=name, label="secondary", place=2, dma=secondary),
        )
        bars = [Bar(index=4, size=16, space="io", registers=BusMasterBlock(name, self.masters))]
        for number, (channel, master) in enumerate(zip(self.channels, self.masters, strict=True)):
            master.channel = channel
            if self.chip.switchable:
                control = _ControlRegion(channel.control)
                bars.append(Bar(index=2 * number, size=channel.size, space="io", registers=channel))
                bars.append(Bar(index=2 * number + 1, size=control.size, space="io", registers=control))
        super().__init__(
            name,
            self.chip.identity,
            interrupt_pin=1,
            bars=bars,
            registers=self.chip.registers,
            prog_if_stored=sum(NATIVE) if self.chip.switchable else 0,
        )
        self._legacy_wires = IrqLine(), IrqLine()

    # -- Controller -------------------------------------------------------------------------------

    @property
    def trace(self) -> Trace | None:
        """The channels': all report to the same place."""
        return self.channels[0].trace

    @trace.setter
    def trace(self, trace: Trace | None) -> None:
        for channel in self.channels:
            channel.trace = trace

    @property
    def disks(self) -> dict[int, Disk]:
        """Controller.disks."""
        return self.channels[0].disks | self.channels[1].disks

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """PciFunction.connect: irq is the wire of INTA, for channels in native mode."""
        super().connect(memory, irq)
        for channel, master in zip(self.channels, self.masters, strict=True):
            channel.connect(memory, IrqLine(partial(self._intrq, master)))

    def connect_legacy(self, primary: IrqLine, secondary: IrqLine) -> None:
        """The wires of channels in legacy mode: interrupts 14 and 15 of a PC."""
        self._legacy_wires = primary, secondary

    def reset(self) -> None:
        """PciFunction.reset: what is in flight ends first, unseen."""
        self._reset_channels()
        super().reset()
        self._drive_wires()

    def _reset_channels(self) -> None:
        for channel, master in zip(self.channels, self.masters, strict=True):
            channel.reset()
            master.reset()

    def resume(self) -> None:
        """Make requests again that the error policy has parked."""
        for channel in self.channels:
            channel.resume()

    # -- configuration ----------------------------------------------------------------------------

    def write_config(self, offset: int, size: int, value: int) -> None:
        """PciFunction.write_config: the programming interface moves the channels."""
        super().write_config(offset, size, value)
        if offset <= PROG_IF < offset + size:
            self.decode_changed()
            self._drive_wires()

    def control_written(self, value: int) -> None:
        """Register 0x40 of the MCST function."""
        if value & RESET:
            self._reset_channels()
        self._drive_wires()

    def is_native(self, number: int) -> bool:
        """Whether a channel answers at its BARs and interrupts through the pin."""
        return bool(self.config.get(PROG_IF, 1) & NATIVE[number])

    def on_command(self) -> None:
        """PciFunction.on_command: with the bus master bit, what has waited for it goes on."""
        if self.bus_master:
            for master in self.masters:
                master.kick()

    def claims(self) -> Iterator[Claim]:
        """PciFunction.claims: a channel answers at its BARs or at the legacy ports, never at both."""
        hidden = [bar.registers for bar in self.bars if bar.index < 4 and not self.is_native(bar.index // 2)]
        for claim in super().claims():
            if claim.registers not in hidden:
                yield claim
        if self.command & IO_SPACE:
            for number, (channel, (block, control)) in enumerate(zip(self.channels, LEGACY_PORTS, strict=True)):
                if not self.is_native(number):
                    yield Claim("io", block, channel.size, channel)
                    yield Claim("io", control, channel.control.size, channel.control)

    # -- interrupts -------------------------------------------------------------------------------

    def _intrq(self, master: BusMaster, level: bool) -> None:
        if level:
            master.interrupt()
        self._drive_wires()

    def _drive_wires(self) -> None:
        """Each channel's INTRQ to the wire of its mode, as far as register 0x40 lets it through."""
        masks = self.config.get(CONTROL, 2) if self.chip.switchable else 0
        native = False
        for number, channel in enumerate(self.channels):
            wants = channel.irq.level and not masks & MASK_CHANNEL[number]
            is_native = self.is_native(number)
            self._legacy_wires[number].set(wants and not is_native)
            native |= wants and is_native
        self.set_intx(native and not masks & MASK_NATIVE)

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, object]:
        """PciFunction.save."""
        return super().save() | {
            "channels": [channel.save() for channel in self.channels],
            "masters": [master.save() for master in self.masters],
        }

    def load(self, state: dict[str, Any]) -> None:
        """PciFunction.load."""
        for channel in self.channels:
            channel.cancel()
        super().load(state)
        for channel, saved in zip(self.channels, state["channels"], strict=True):
            channel.load(saved)
        # After the channels: a level that comes back is no new interrupt.
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.load(saved)
        self._drive_wires()
