"""Machine: a board with disks, and the loop that shares time between guest, clock, disks and console."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from e2kdisk.aio.clock import Clock, HostClock, VirtualClock
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.drive import DriveOptions, parse_drive
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import UsageError
from e2kdisk.machine.boards.board import Board, Drive, Placed, Timing
from e2kdisk.machine.boards.wiring import Wiring
from e2kdisk.machine.console import Console
from e2kdisk.machine.cpu.cpu import Fault, Reason
from e2kdisk.machine.guest_time import GuestTime
from e2kdisk.machine.state import MachineState, load_machine, save_machine
from e2kdisk.machine.trace import Tracer

if TYPE_CHECKING:
    from e2kdisk.machine.vm_snapshot import VmSnapshot

SLICE_NS = 1_000_000
"""Time between two looks at the world, at the speed of the board's virtual clock."""
AnyDrive = Disk | Drive | DriveOptions | str | os.PathLike[str]
"""A disk, one with the controller that it is for, or what to open."""
IDLE_SECONDS = 0.01
"""How long to sleep when the guest waits for an interrupt and somebody may type."""


class BoardType(Protocol):
    """How a board is made."""

    NAME: str
    DESCRIPTION: str
    CPUS: tuple[str, ...]
    QUIRKS: dict[str, str]

    def interface(self, name: str) -> str:
        """Board.interface."""
        ...

    def __call__(self, ram_size: int, timing: Timing, cpu: str = "", quirks: Collection[str] = ()) -> Board:
        """Make one."""
        ...


class _Boards(Mapping[str, BoardType]):
    """The boards by name; each is imported when it is asked for, since a machine needs only one."""

    _MODULES: ClassVar[dict[str, tuple[str, str]]] = {
        "elbrus": ("e2kdisk.machine.boards.elbrus", "Elbrus"),
        "virt-arm64": ("e2kdisk.machine.boards.virt_arm64", "VirtArm64"),
        "virt-riscv64": ("e2kdisk.machine.boards.virt_riscv64", "VirtRiscv64"),
    }

    def __getitem__(self, name: str) -> BoardType:
        module, board = self._MODULES[name]
        return cast("BoardType", getattr(import_module(module), board))

    def __iter__(self) -> Iterator[str]:
        return iter(self._MODULES)

    def __len__(self) -> int:
        return len(self._MODULES)


BOARDS = _Boards()


class StopReason(Enum):
    """Why Machine.run() came back."""

    POWER_OFF = "the guest powered off"
    RESET = "the guest reset the machine"
    FAULT = "the guest failed"
    STOPPED = "stopped"
    LIMIT = "the instruction limit is reached"
    CONDITION = "the condition holds"
    IDLE = "the guest waits for an interrupt that nothing can raise"
    HALTED = "the guest has halted"
    """It waits on a CPU that takes no interrupts: the end of a polled program."""


class _Timing:
    """Timing for a board, which is made before the machine's time exists."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.call_at = scheduler.call_at
        self.time: GuestTime | None = None

    def read_ns(self) -> int:
        """Timing.read_ns."""
        return 0 if self.time is None else self.time.read_ns()


class Machine:
    """A whole computer.

    >>> with Machine("virt-arm64", bios="u-boot.bin", drives=["disk.qcow2"]) as machine:
    ...     machine.console.expect("=> ")
    ...     print(machine.console.command("virtio info"))
    """

    def __init__(
        self,
        board: str = "virt-arm64",
        *,
        cpu: str = "",
        bios: bytes | str | os.PathLike[str] = b"",
        kernel: bytes | str | os.PathLike[str] = b"",
        cmdline: str = "",
        ram: int = 256 << 20,
        drives: Iterable[AnyDrive] = (),
        controllers: Iterable[Placed] = (),
        interface: str = "",
        clock: Literal["virtual", "host"] = "virtual",
        virtio_version: int = 2,
        quirks: Collection[str] = (),
        serial: int = 0,
        trace: Tracer | None = None,
        scheduler: Scheduler | None = None,
        policy: OpenPolicy | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        """Put a machine together and switch it on; run() makes it go.

        bios is the firmware or its file; where the board can load a kernel, that may take its place, with a command
        line. Drives are disks, which stay the caller's, or what to open under `policy`
        ("disk.qcow2,if=ide,readonly=on"), closed by close(). Those that do not say which controller they are for get
        one of kind `interface`, else the board's first; they fill its places in order. Then come controllers that
        the caller has made, of disks that stay his, on the machine's scheduler. All disks and the machine share
        one scheduler: the given one, else that of the first Disk, else a new one. Its clock becomes the machine's:
        "virtual" time is counted in instructions and the same in every run, "host" time passes by itself.
        virtio_version is 2, or 1 for what the specification calls legacy. cpu and quirks are among what the board
        offers (Board.CPUS, Board.QUIRKS). serial says which serial port is `console`; all are in `consoles`;
        `wiring` listens between controllers and board. Raises UsageError, ImageError, OSError.
        """
        if board not in BOARDS:
            raise UsageError(f"unknown board {board!r}; known are {', '.join(BOARDS)}")
        if virtio_version not in (1, 2):
            raise UsageError(f"virtio version {virtio_version}: must be 2, or 1 for legacy")
        drives = list(drives)
        given = (drive.disk if isinstance(drive, Drive) else drive for drive in drives)
        self.scheduler = scheduler or next((d.scheduler for d in given if isinstance(d, Disk)), None) or Scheduler()
        self.scheduler.clock = _clock(clock, self.scheduler.clock)
        self.virtio_version = virtio_version
        self.disks: list[Disk] = []
        self.instructions = 0
        """Run so far."""
        self.resets = 0
        self.power_off = False
        self.fault: Fault | None = None
        """Set when run() returned StopReason.FAULT."""
        self.trace = trace
        self.interactive = False
        """Somebody may type at any time: a guest that waits for an interrupt is not stuck."""
        self._owned: list[Disk] = []
        self._policy = policy
        self._closed = False
        bios = bios if isinstance(bios, bytes) else Path(bios).read_bytes()
        kernel = kernel if isinstance(kernel, bytes) else Path(kernel).read_bytes()

        timing = _Timing(self.scheduler)
        self.board = BOARDS[board](ram, timing, cpu, quirks)
        if kernel and not self.board.LOADS_KERNELS:
            raise UsageError(f"board {board} loads no kernel; its firmware does")
        self.board.bios, self.board.kernel, self.board.cmdline = bios, kernel, cmdline
        if wiring is not None:
            self.board.wiring = wiring
        self.cpu = self.board.cpu
        self.time = GuestTime(self.scheduler, self.cpu, self.board.ns_per_instruction)
        timing.time = self.time
        self.consoles = self._connect_consoles()
        if not 0 <= serial < len(self.consoles):
            raise UsageError(f"serial port {serial}: board {board} has {len(self.consoles)}, counted from 0")
        self.console = self.consoles[serial]
        try:
            self.board.plug_disks([self._open(drive, interface) for drive in drives], virtio_version=virtio_version)
            for controller, place in controllers:
                self.board.plug(controller, place)
            self._connect_trace()
            self._watch_requests()
            self.board.power_on()
        except BaseException:
            self.close()
            raise

    # -- putting together -------------------------------------------------------------------------

    def _connect_consoles(self) -> tuple[Console, ...]:
        consoles = []
        for port in self.board.serial_ports:
            port.line = console = Console(self)
            port.on_waiting = self.time.read_ns  # it waits as one that reads the time does: time moves on
            consoles.append(console)
        return tuple(consoles)

    def _open(self, drive: AnyDrive, interface: str) -> Drive:
        match drive:
            case Disk():
                disk = drive
            case Drive():
                disk, interface = drive
            case _:
                options = _drive_options(drive)
                interface = options.interface or interface
                disk = options.open(scheduler=self.scheduler, policy=self._policy)
                self._owned.append(disk)
        if disk.scheduler is not self.scheduler:
            raise UsageError(f"{disk.name}: opened with another scheduler; open it with scheduler=machine.scheduler")
        self.disks.append(disk)
        return Drive(disk, self.board.interface(interface))

    def _connect_trace(self) -> None:
        if self.trace is not None:
            self.trace.now_ns = self.time.now_ns
            bus = self.board.bus
            bus.trace = self.trace
            bus.where = self._where
            for part in (*self.board.chips, *self.board.controllers):
                part.trace = self.trace

    def _where(self) -> dict[str, object]:
        pc = self.cpu.pc
        return {"pc": pc, "code": self.cpu.disassemble(pc)}

    def _watch_requests(self) -> None:
        """See to requests that could not finish inside the store that started them."""
        scheduler, cpu = self.scheduler, self.cpu

        def look_host() -> None:
            if scheduler.tasks:
                cpu.kick()  # the guest would only poll for it

        def look_virtual() -> None:
            if scheduler.tasks:
                # What had to go to a thread finishes here, as if the host had had it in memory: neither that nor when
                # a thread is done may show in the guest. What a simulated engine keeps back goes on after this slice.
                scheduler.settle()
                if scheduler.tasks:
                    cpu.kick()

        if self.time.is_virtual:
            self.board.bus.after_write = look_virtual
        else:
            self.board.bus.after_write = look_host
            scheduler.on_post = cpu.kick

    # -- running ----------------------------------------------------------------------------------

    def run(
        self,
        max_instructions: int | None = None,
        until: Callable[[], bool] | None = None,
        *,
        stop_on_reset: bool = False,
    ) -> StopReason:
        """Run the guest until it powers off or fails, `until` holds (asked about every millisecond), or the limit.

        A reset restarts the firmware and goes on, unless stop_on_reset. Errors of the host (a disk that fails to
        flush, a bug in a device) are raised.
        """
        if self.power_off:
            return StopReason.POWER_OFF
        limit = None if max_instructions is None else self.instructions + max_instructions
        while True:
            self.scheduler.poll()
            if until is not None and until():
                return StopReason.CONDITION
            if limit is not None and self.instructions >= limit:
                return StopReason.LIMIT
            stop = self._slice(self._budget(limit), stop_on_reset)
            if stop is not None:
                return stop

    def _budget(self, limit: int | None) -> int:
        budget = max(1, SLICE_NS // self.time.ns_per_instruction)
        if limit is not None:
            budget = min(budget, limit - self.instructions)
        timer_ns = self.scheduler.next_timer_ns()
        return budget if timer_ns is None else min(budget, self.time.instructions_until(timer_ns))

    def _slice(self, budget: int, stop_on_reset: bool) -> StopReason | None:
        done, reason = self.cpu.run(budget)
        self.instructions += done
        self.time.advance(done)
        if self.time.is_virtual:
            self.scheduler.settle()
            self.scheduler.advance()
        for port in self.board.serial_ports:
            port.refill()
        match reason:
            case Reason.BUDGET:
                return None
            case Reason.WFI:
                if self._idle():
                    return None
                return StopReason.IDLE if self.cpu.takes_interrupts else StopReason.HALTED
            case Reason.RESET:
                self.reset()
                return StopReason.RESET if stop_on_reset else None
            case Reason.POWER_OFF:
                self.power_off = True
                return StopReason.POWER_OFF
            case Reason.FAULT:
                self.fault = self.cpu.fault
                return StopReason.FAULT
            case Reason.STOPPED:
                return StopReason.STOPPED

    def _idle(self) -> bool:
        """The guest waits for an interrupt: wait with it for what can raise one; False if nothing can."""
        if self.cpu.irq_pending() or self.scheduler.poll():
            return True
        if not self.cpu.takes_interrupts:
            return self.scheduler.wait(None)  # only to let requests finish that it has started
        timeout = IDLE_SECONDS if self.interactive else None
        waiting = any(console.waiting for console in self.consoles)
        return self.scheduler.wait(timeout) or self.interactive or waiting

    def stop(self) -> None:
        """End run() with StopReason.STOPPED; for callbacks on the guest's way (trace, console output, devices)."""
        self.cpu.stop()

    def run_until(self, condition: Callable[[], bool], timeout: float) -> str:
        """Run until a condition holds and return "", or say why it cannot hold any more.

        Raises TimeoutError after `timeout` seconds of the guest's time.
        """
        end_ns = self.time.now_ns() + int(timeout * 1e9)
        met = False

        def enough() -> bool:
            nonlocal met
            met = met or condition()
            return met or self.time.now_ns() >= end_ns

        stop = self.run(until=enough)
        if met or condition():
            return ""
        if stop is StopReason.CONDITION:
            raise TimeoutError
        return f"{stop.value} ({self.fault})" if stop is StopReason.FAULT else stop.value

    def reset(self) -> None:
        """The reset button: devices finish what is in flight, firmware starts again; disks keep their content."""
        self.resets += 1
        self.power_off = False
        self.fault = None
        self.board.power_on()

    # -- state ------------------------------------------------------------------------------------

    def save(self) -> MachineState:
        """The whole machine but its disks' content, after finishing what is in flight; raises what run() would."""
        return save_machine(self)

    def load(self, state: MachineState) -> None:
        """Go on from a saved state, of this or another machine put together in the same way. Raises UsageError.

        The disks must hold what they held then.
        """
        load_machine(self, state)

    def savevm(self, name: str) -> None:
        """Keep machine and disks as a snapshot inside the qcow2 images; replaces one of the same name.

        Raises UsageError when a disk cannot keep one, ImageError, OSError.
        """
        from e2kdisk.machine.vm_snapshot import save_vm

        save_vm(self, name)

    def loadvm(self, name: str) -> None:
        """Bring machine and disks back to a snapshot of savevm. Raises UsageError, ImageError, OSError."""
        from e2kdisk.machine.vm_snapshot import load_vm

        load_vm(self, name)

    def delvm(self, name: str) -> None:
        """Remove a snapshot from all disks. Raises UsageError, ImageError, OSError."""
        from e2kdisk.machine.vm_snapshot import delete_vm

        delete_vm(self, name)

    def vm_snapshots(self) -> list[VmSnapshot]:
        """The snapshots that loadvm() can go back to, oldest first."""
        from e2kdisk.machine.vm_snapshot import list_vm

        return list_vm(self)

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish what is in flight, close the disks that were opened here, free the CPU; twice is once.

        Raises OSError when a disk cannot be flushed, after everything has been closed.
        """
        if self._closed:
            return
        self._closed = True
        self.scheduler.on_post = None
        errors: list[BaseException] = []

        def attempt(action: Callable[[], Any]) -> None:
            try:
                action()
            except Exception as error:
                errors.append(error)

        for controller in self.board.controllers:
            attempt(controller.reset)
        for disk in self._owned:
            attempt(disk.close)
        attempt(self.board.close)
        if self.trace is not None:
            attempt(self.trace.close)
        if errors:
            raise errors[0]

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _drive_options(drive: DriveOptions | str | os.PathLike[str]) -> DriveOptions:
    if isinstance(drive, DriveOptions):
        return drive
    return parse_drive(drive) if isinstance(drive, str) else DriveOptions(os.path.join(".", drive))


def _clock(kind: str, present: Clock) -> Clock:
    """The clock of this kind, the present one if it is."""
    if kind not in ("virtual", "host"):
        raise UsageError(f"unknown clock {kind!r}; known are virtual, host")
    wanted = VirtualClock if kind == "virtual" else HostClock
    return present if isinstance(present, wanted) else wanted()
