"""One ATA drive: a Disk behind a task file, and the life of a command from its opcode to its interrupt.

    execute()   the command register is written: the command's handler decides
      complete()                        ... it is done at once
      send() / take() / read / write    ... data goes through the data port, one DRQ block after the other
      request_dma()                     ... data goes by DMA as soon as the transport is ready
      begin()                           ... a step waits for the disk (transfer.STEPS) and goes on from there

A drive has one command at a time. Whatever it waits for, cancel() ends it: nothing moves and nobody is told afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from e2kdisk.devices.ata.commands import COMMANDS, Command, Kind, Protocol
from e2kdisk.devices.ata.dma import DmaEnd
from e2kdisk.devices.ata.identify import Identity
from e2kdisk.devices.ata.mistakes import AtaMistake
from e2kdisk.devices.ata.state import Settings
from e2kdisk.devices.ata.task_file import (
    ABRT,
    BSY,
    DIAGNOSTIC_PASSED,
    DRDY,
    DRQ,
    DSC,
    ERR,
    IDNF,
    TaskFile,
    Translation,
)
from e2kdisk.devices.ata.transfer import RUN_SECTORS, SECTOR, STEPS, Transfer
from e2kdisk.devices.error_policy import ErrorAction, ErrorPolicy
from e2kdisk.devices.guest_error import GuestError
from e2kdisk.errors import E2kDiskError

if TYPE_CHECKING:
    from e2kdisk.block.disk import Disk
    from e2kdisk.devices.ata.channel import AtaChannel


class AtaDevice:
    """A Disk as an ATA drive; plugged into an AtaChannel."""

    channel: AtaChannel

    def __init__(
        self,
        disk: Disk,
        *,
        kind: Kind = Kind.DISK,
        identity: Identity | None = None,
        errors: ErrorPolicy = ErrorPolicy(),  # noqa: B008  (immutable)
    ) -> None:
        self.disk = disk
        self.kind = kind
        self.identity = identity if identity is not None else Identity.of(disk)
        self.errors = errors
        self.on_stop: Callable[[BaseException], None] | None = None
        """Called with the disk's error when the error policy parks a request; resume() makes it again."""
        self.place = 0
        """Which of the drives of its controller it is, for the trace."""
        self.task_file = TaskFile()
        self.task_file.sign()
        self.status = DRDY | DSC
        self.error = DIAGNOSTIC_PASSED
        self.interrupt_pending = False
        self.command = COMMANDS[0x00]
        self.transfer = Transfer()
        self.stopped = False
        """A request is parked by the error policy."""
        self.extended_error = 0
        """What CFA REQUEST EXTENDED ERROR gives."""
        self.kept = bytearray(SECTOR)
        """The sector of WRITE BUFFER and READ BUFFER."""
        self.buffer = memoryview(bytearray(RUN_SECTORS * SECTOR))
        self.step = ""
        """The name of the step that waits for the disk."""
        self._silenced = False
        self._cache_default = disk.write_cache
        self.settings = Settings(Translation.default(self.sectors))

    @property
    def sectors(self) -> int:
        """The capacity; it may grow."""
        return self.disk.size // SECTOR

    # -- the life of a command --------------------------------------------------------------------

    def execute(self, opcode: int) -> None:
        """The host has written the Command register of this drive."""
        command = COMMANDS.get(opcode)
        if self.status & (BSY | DRQ):
            if command is None or not command.resets:
                self.report(GuestError(AtaMistake.BUSY, opcode))
                return
            self.cancel()
        self.transfer = Transfer()
        if command is None or not command.kinds & self.kind:
            self.report(GuestError(AtaMistake.COMMAND, opcode))
            self.command = COMMANDS[0x00]
            if self.channel.trace is not None:
                self._trace("submit")
            self.complete(ABRT)
            return
        self.status = BSY | DRDY
        self.error = 0
        self.command = command
        error = self._refuse(command)
        if self.channel.trace is not None:
            self._trace("submit")
        if error == 0:
            outcome = command.run(self, command)
            if outcome is None:
                return
            error = outcome
        self.complete(error)

    def _refuse(self, command: Command) -> int:
        """What is wrong with a command before its handler looks at it: bits of the Error register."""
        if command.protocol is Protocol.DMA and self.channel.dma is None:
            return ABRT
        if command.modifies and self.disk.read_only:
            return ABRT
        if command.multiple and not self.settings.multiple:
            return ABRT
        return self._aim(command) if command.media else 0

    def _aim(self, command: Command) -> int:
        """Find out which sectors a command is about; bits of the Error register."""
        transfer = self.transfer
        self.settings.standby = False
        lba = self.task_file.address(command.wide, self.settings.translation)
        if lba is None or lba >= self.sectors:
            return IDNF
        transfer.first = transfer.lba = lba
        transfer.count = transfer.left = self.task_file.sectors(command.wide)
        transfer.block = self.settings.multiple if command.multiple else 1
        return 0

    def complete(self, error: int = 0, *, interrupt: bool = True) -> None:
        """The command is done, with these bits of the Error register."""
        self.step = ""
        self.transfer.waiting = False
        self.error = error
        if error:
            self.status = DRDY | ERR
            self.extended_error = error
        else:
            self.status = DRDY | DSC if self.command.dsc else DRDY
            self.extended_error = 0
        if self.channel.trace is not None:
            self._trace("request", status=error)
        if interrupt:
            self.interrupt()

    def interrupt(self) -> None:
        """Assert INTRQ, as far as the channel lets it through."""
        self.interrupt_pending = True
        self.channel.drive_interrupt()

    # -- PIO --------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """PIO in of one block that is not from the medium."""
        transfer = self.transfer
        self.buffer[: len(data)] = data
        transfer.to_host = True
        transfer.position, transfer.end = 0, len(data)
        self.status = DRDY | DSC | DRQ
        self.interrupt()

    def take(self, step: str, length: int = SECTOR) -> None:
        """PIO out of one block; the step follows when the host has written all of it. No interrupt asks for it."""
        transfer = self.transfer
        transfer.step = step
        transfer.to_host = False
        transfer.position, transfer.end = 0, length
        self.status = DRDY | DSC | DRQ

    def present(self) -> None:
        """PIO in: the next DRQ block is in the buffer."""
        transfer = self.transfer
        count = min(transfer.block, transfer.left)
        transfer.buffered -= count
        transfer.end = transfer.position + count * SECTOR
        transfer.to_host = True
        self._advance(count)
        self.status = DRDY | DSC | DRQ
        self.interrupt()

    def stored(self) -> None:
        """PIO out: the DRQ block is on the disk."""
        transfer = self.transfer
        self._advance(transfer.end // SECTOR)
        if transfer.left:
            self.ask_block()
            self.interrupt()
        else:
            self.complete()

    def ask_block(self) -> None:
        """PIO out: ask the host for the next DRQ block; ends with IDNF where the disk ends."""
        transfer = self.transfer
        count = min(transfer.block, transfer.left)
        if transfer.lba + count > self.sectors:
            self.complete(IDNF)
        else:
            self.take("store", count * SECTOR)

    def _advance(self, count: int) -> None:
        """Count sectors as moved; the registers name the next one."""
        transfer, registers = self.transfer, self.task_file
        transfer.left -= count
        transfer.lba += count
        registers.count = transfer.left & 0xFFFF
        registers.set_address(transfer.lba, self.command.wide, self.settings.translation)

    def read_data(self, size: int) -> int:
        """The host reads 2 or 4 bytes of the data port."""
        transfer = self.transfer
        start = transfer.position
        end = start + size
        if end > transfer.end or not self.status & DRQ or not transfer.to_host:
            self.report(GuestError(AtaMistake.NO_DATA, size))
            return 0
        value = int.from_bytes(self.buffer[start:end], "little")
        transfer.position = end
        if end == transfer.end:
            if transfer.buffered:
                self.present()
            elif transfer.left:
                self.begin("fill")
            else:
                self.complete(interrupt=False)  # ATA8-APT 9: the host knows when it has read the last block
        return value

    def write_data(self, size: int, value: int) -> None:
        """The host writes 2 or 4 bytes of the data port."""
        transfer = self.transfer
        start = transfer.position
        end = start + size
        if end > transfer.end or not self.status & DRQ or transfer.to_host:
            self.report(GuestError(AtaMistake.NO_DATA, size))
            return
        self.buffer[start:end] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        transfer.position = end
        if end == transfer.end:
            self.begin(transfer.step)

    # -- DMA --------------------------------------------------------------------------------------

    def request_dma(self, step: str, length: int) -> None:
        """A transfer of `length` bytes waits for the transport; the step moves it."""
        transfer = self.transfer
        transfer.step = step
        transfer.length = length
        transfer.to_host = step == "read_dma"
        self._wait_for_dma()

    def _wait_for_dma(self) -> None:
        transfer = self.transfer
        transfer.waiting = True
        transfer.segments = None
        self.status = DRDY | DSC | DRQ
        dma = self.channel.dma
        if dma is not None and dma.prepare():
            self.start_dma()

    def start_dma(self) -> None:
        """The transport is ready: move what waits for it, if anything does."""
        transfer, dma = self.transfer, self.channel.dma
        if not transfer.waiting or dma is None:
            return
        transfer.waiting = False
        segments = dma.segments(transfer.length, transfer.to_host)
        if segments is DmaEnd.SHORT:
            # Nothing has moved, no error bit is set and no interrupt comes: the host finds Active cleared.
            self.report(GuestError(AtaMistake.DMA_SHORT, transfer.length))
            dma.abort()
            self.complete(interrupt=False)
        elif segments is DmaEnd.FAULT:
            self.report(GuestError(AtaMistake.DMA_TABLE))
            dma.abort(host_error=True)
            self.complete(ABRT)
        else:
            transfer.segments = segments
            self.begin(transfer.step)

    def moved(self) -> None:
        """DMA: all of it has moved."""
        self._advance(self.transfer.left)
        self.complete()

    def cancel_dma(self) -> None:
        """The transport stops (START is cleared): what is in flight ends unseen, the drive waits for DMA again."""
        if self.step and STEPS[self.step].dma:
            self._drain()
            self.stopped = False
            self.step = ""
            self.transfer.host_error = False
            self._wait_for_dma()

    # -- waiting for the disk ---------------------------------------------------------------------

    def begin(self, step: str) -> None:
        """Wait for the disk with a step of transfer.STEPS."""
        self.step = step
        self.status = BSY | DRDY
        self.disk.scheduler.start(STEPS[step].run(self), self._ended, self)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        if self._silenced:
            if isinstance(error, Exception) and not isinstance(error, (OSError, E2kDiskError)):
                raise error
            return
        step = STEPS[self.step]
        bits = ABRT if error is not None else int(result)
        if isinstance(error, (OSError, E2kDiskError)):
            action = self.errors.action(error, writing=step.writing)
            if action is ErrorAction.STOP:
                self._park(error)
                return
            bits = step.error if action is ErrorAction.REPORT else 0
        if step.dma:
            dma = self.channel.dma
            assert dma is not None
            if bits:
                dma.abort(self.transfer.host_error)
            else:
                dma.transferred()
        if bits:
            self._fail(bits)
        else:
            self.step = ""
            step.ended(self)
        if error is not None and not isinstance(error, (OSError, E2kDiskError)):
            raise error  # I/O errors are a status; this is a defect of ours, for whoever runs the scheduler

    def _fail(self, bits: int) -> None:
        """A step has failed: the registers name the first sector that could not be moved."""
        if self.command.media and not self.transfer.host_error:
            self._advance(self.transfer.bad)
        self.complete(bits)

    def _park(self, error: BaseException) -> None:
        self.stopped = True
        self.transfer.step = self.step
        self.transfer.bad = 0
        if self.channel.trace is not None:
            self.channel.trace.event(self.channel.name, "stopped", drive=self.place, what=str(error), step=self.step)
        if self.on_stop is not None:
            self.on_stop(error)

    def resume(self) -> None:
        """Make a request again that the error policy has parked."""
        if self.stopped:
            self.stopped = False
            self.begin(self.transfer.step)

    # -- resets -----------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End the command that is going on: no data moves and no interrupt comes after this returns."""
        self._drain()
        self.step = ""
        self.stopped = False
        self.transfer = Transfer()
        self.interrupt_pending = False

    def _drain(self) -> None:
        """Let the disk finish what it has begun: a buffer is in use until then. Nobody is told."""
        self._silenced = True
        try:
            self.disk.scheduler.drain(self)
        finally:
            self._silenced = False

    def reset(self, *, power_on: bool = False) -> None:
        """The state after a reset, with the drive's signature (ATA8-ACS 4.14); cancel() comes before."""
        if power_on or self.settings.reverts:
            self.settings = Settings(Translation.default(self.sectors))
            self.disk.write_cache = self._cache_default
        if power_on:
            self.kept[:] = bytes(SECTOR)
            self.extended_error = 0
        self.settings.standby = False
        self.task_file.sign()
        self.status = DRDY | DSC
        self.error = DIAGNOSTIC_PASSED

    # -- the trace --------------------------------------------------------------------------------

    def report(self, mistake: GuestError) -> None:
        """Put a host's mistake into the trace."""
        self.channel.report(mistake, self.place)

    def _trace(self, kind: str, **fields: object) -> None:
        """Put the command into the trace, when it begins ("submit") and when it ends ("request")."""
        assert self.channel.trace is not None
        transfer = self.transfer
        left = transfer.left if kind == "request" else 0  # a request says what it has moved
        self.channel.trace.event(
            self.channel.name,
            kind,
            drive=self.place,
            type=self.command.name,
            sector=transfer.first,
            bytes=(transfer.count - left) * SECTOR if self.command.media else transfer.length,
            **fields,
        )
