"""An ATA channel: two drives on one cable, their registers, INTRQ and the software reset (ATA/ATAPI-6 7, 9.16).

Both drives take every write to the registers, the selected one answers and executes. A drive that is not there reads
as status 0 and ignores commands; its other registers are those of the drive that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2kdisk.block.disk import Disk
from e2kdisk.devices.ata import state
from e2kdisk.devices.ata.device import AtaDevice
from e2kdisk.devices.ata.dma import DmaTransport
from e2kdisk.devices.ata.mistakes import AtaMistake
from e2kdisk.devices.ata.registers import COMMAND_BLOCK, CONTROL_BLOCK
from e2kdisk.devices.ata.task_file import (
    BSY,
    DEV,
    DIAGNOSTIC_PASSED,
    DRDY,
    DRQ,
    DSC,
    HOB,
    NIEN,
    OBSOLETE_ONES,
    SRST,
)
from e2kdisk.devices.controller import Trace
from e2kdisk.devices.guest_error import GuestError
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory
from e2kdisk.errors import UsageError


class AtaChannel:
    """The command block of a channel as a RegisterDevice; `control` is its control block."""

    size = 8
    memory: GuestMemory

    def __init__(
        self,
        drives: Sequence[AtaDevice | None],
        *,
        name: str = "ata",
        label: str = "",
        place: int = 0,
        dma: DmaTransport | None = None,
    ) -> None:
        """At most two drives, device 0 first. Without a DMA transport the drives know no DMA commands.

        The controller's name, a label for the registers and the place of device 0 in the controller are for the trace.
        """
        if len(drives) > 2:
            raise UsageError(f"{name}: {len(drives)} drives on a channel; two is the most")
        self.name = name
        self.label = label
        self.dma = dma
        self.trace: Trace | None = None
        self.irq = IrqLine()
        self.drives = (*drives, None, None)[:2]
        self.present = [drive for drive in self.drives if drive is not None]
        self.unit = 0
        self.device_control = 0
        self.selected: AtaDevice | None = self.drives[0]
        self._answering: AtaDevice | None = None
        self.control = ControlBlock(self)
        for number, drive in enumerate(self.drives, place):
            if drive is not None:
                drive.channel = self
                drive.place = number
        self._select(0)

    def connect(self, memory: GuestMemory, irq: IrqLine) -> None:
        """Plug into a machine; irq follows INTRQ."""
        self.memory = memory
        self.irq = irq

    def _select(self, unit: int) -> None:
        self.unit = unit
        self.selected = self.drives[unit]
        self._answering = self.selected if self.selected is not None else self.drives[1 - unit]

    # -- RegisterDevice ---------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """A load of 1, 2, 4 or 8 bytes; wide ones are for the data port, elsewhere they are single bytes."""
        if size == 1:
            return _READ[offset](self) if offset < 8 else 0xFF
        if offset == 0 and size <= 4:
            drive = self.selected
            return drive.read_data(size) if drive is not None else 0
        half = size // 2
        return self.read(offset, half) | self.read(0 if offset == 0 else offset + half, half) << 8 * half

    def write(self, offset: int, size: int, value: int) -> None:
        """A store of 1, 2, 4 or 8 bytes."""
        if size == 1:
            if offset < 8:
                _WRITE[offset](self, value & 0xFF)
        elif offset == 0 and size <= 4:
            if self.selected is not None:
                self.selected.write_data(size, value)
        else:
            half = size // 2
            self.write(offset, half, value & (1 << 8 * half) - 1)
            self.write(0 if offset == 0 else offset + half, half, value >> 8 * half)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return f"{self.label} {COMMAND_BLOCK.name_of(offset)}".lstrip()

    def cancel(self) -> None:
        """End what goes on, unseen."""
        for drive in self.present:
            drive.cancel()

    def reset(self) -> None:
        """The board's reset line: drain what is in flight, then the power-on state."""
        self.cancel()
        self._report_reset()
        self.device_control = 0
        for drive in self.present:
            drive.reset(power_on=True)
        self._select(0)
        self._update()

    # -- what the registers do --------------------------------------------------------------------

    def read_byte_of_data(self) -> int:
        """The data port is 16 bits wide: a byte access takes a word and sees half of it (old boot loaders do that)."""
        return 0 if self.selected is None else self.selected.read_data(2) & 0xFF

    def read_error(self) -> int:
        """Error; with HOB, what Feature held before."""
        drive = self.selected
        if drive is None:
            return 0
        return drive.task_file.feature >> 8 if self.device_control & HOB else drive.error

    def read_register(self, name: str) -> int:
        """Count or an LBA register; with HOB, what it held before."""
        if self._answering is None:
            return 0
        value: int = getattr(self._answering.task_file, name)
        return value >> 8 if self.device_control & HOB else value & 0xFF

    def read_device(self) -> int:
        """Device."""
        return 0 if self._answering is None else self._answering.task_file.device

    def read_status(self) -> int:
        """Status; the interrupt is acknowledged."""
        drive = self.selected
        if drive is None:
            return 0
        if drive.interrupt_pending:
            drive.interrupt_pending = False
            self.irq.set(False)
        return drive.status

    def read_alternate_status(self) -> int:
        """Status without a consequence."""
        return 0 if self.selected is None else self.selected.status

    def _registers_locked(self, value: int) -> bool:
        drive = self.selected
        if drive is not None and drive.status & (BSY | DRQ):
            drive.report(GuestError(AtaMistake.REGISTER, value))
            return True
        return False

    def write_register(self, name: str, value: int) -> None:
        """Feature, Count or an LBA register: what it held moves to the second byte."""
        if self._registers_locked(value):
            return
        self.device_control &= ~HOB
        for drive in self.present:
            registers = drive.task_file
            setattr(registers, name, getattr(registers, name) << 8 & 0xFF00 | value)

    def write_device(self, value: int) -> None:
        """Device: selects a drive, and has bits 27:24 of a 28-bit address."""
        if self._registers_locked(value):
            return
        self.device_control &= ~HOB
        for drive in self.present:
            drive.task_file.device = value | OBSOLETE_ONES
        self._select(1 if value & DEV else 0)
        # INTRQ is the selected drive's.
        self._update()

    def write_command(self, value: int) -> None:
        """Command: acknowledges the interrupt and begins a command."""
        self.device_control &= ~HOB
        drive = self.selected
        if drive is None:
            self.report(GuestError(AtaMistake.NO_DEVICE, value))
            return
        if self.device_control & SRST:
            drive.report(GuestError(AtaMistake.BUSY, value))
            return
        drive.interrupt_pending = False
        self.irq.set(False)
        drive.execute(value)

    def write_device_control(self, value: int) -> None:
        """Device Control: HOB, SRST, nIEN."""
        before, self.device_control = self.device_control, value
        if value & SRST and not before & SRST:
            for drive in self.present:
                drive.cancel()
                drive.status = BSY  # until SRST is cleared
            self._report_reset()
        elif before & SRST and not value & SRST:
            for drive in self.present:
                drive.reset()
            self._select(0)
        self._update()

    @property
    def disks(self) -> dict[int, Disk]:
        """Its disks, by their places in the controller."""
        return {drive.place: drive.disk for drive in self.present}

    # -- for the drives ---------------------------------------------------------------------------

    def drive_interrupt(self) -> None:
        """A drive has an interrupt pending."""
        self._update()

    def _update(self) -> None:
        drive = self.selected
        self.irq.set(drive is not None and drive.interrupt_pending and not self.device_control & NIEN)

    def diagnose(self) -> None:
        """EXECUTE DEVICE DIAGNOSTIC was written: both drives show their signature, device 0 interrupts."""
        for drive in self.present:
            drive.task_file.sign()
            drive.error = DIAGNOSTIC_PASSED
            drive.status = DRDY | DSC
        self._select(0)
        if self.selected is not None:
            self.selected.interrupt()

    def report(self, mistake: GuestError, drive: int | None = None) -> None:
        """Put a host's mistake into the trace."""
        if self.trace is not None:
            fields = {} if drive is None else {"drive": drive}
            self.trace.event(self.name, "guest-error", what=str(mistake), **fields)

    def _report_reset(self) -> None:
        """Put the end of all that the drives had to do into the trace."""
        if self.trace is not None and self.present:
            self.trace.event(self.name, "reset", drives=tuple(drive.place for drive in self.present))

    # -- for the transport ------------------------------------------------------------------------

    def start_dma(self) -> None:
        """The transport is ready."""
        if self.selected is not None:
            self.selected.start_dma()

    def cancel_dma(self) -> None:
        """The transport stops."""
        for drive in self.present:
            drive.cancel_dma()

    # -- parked requests --------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the error policy has parked a request."""
        return any(drive.stopped for drive in self.present)

    def resume(self) -> None:
        """Make parked requests again."""
        for drive in self.present:
            drive.resume()

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Versioned plain data."""
        return {
            "version": 1,
            "unit": self.unit,
            "device_control": self.device_control,
            "drives": [None if drive is None else state.save(drive) for drive in self.drives],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Restore what save() gave. Raises ValueError for a channel with other drives."""
        if saved["version"] != 1:
            raise ValueError(f"{self.name}: state of version {saved['version']}")
        if [of_drive is None for of_drive in saved["drives"]] != [drive is None for drive in self.drives]:
            raise ValueError(f"{self.name}: this state is of a channel with other drives")
        for drive, of_drive in zip(self.drives, saved["drives"], strict=True):
            if drive is not None:
                state.load(drive, of_drive)
        self.device_control = saved["device_control"]
        self._select(saved["unit"])
        self._update()


class ControlBlock:
    """Device Control and Alternate Status as a RegisterDevice of one byte."""

    size = 1

    def __init__(self, channel: AtaChannel) -> None:
        self.name = channel.name
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        """RegisterDevice.read."""
        return self._channel.read_alternate_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """RegisterDevice.write."""
        self._channel.write_device_control(value & 0xFF)

    def register_name(self, offset: int) -> str:
        """RegisterDevice.register_name."""
        return f"{self._channel.label} {CONTROL_BLOCK.name_of(offset)}".lstrip()

    def reset(self) -> None:
        """RegisterDevice.reset: the command block does it for both."""


# Indexed by offset: the hot way of a polling guest.
_READ = [register.read for register in COMMAND_BLOCK if register.read is not None]
_WRITE = [register.write for register in COMMAND_BLOCK if register.write is not None]
