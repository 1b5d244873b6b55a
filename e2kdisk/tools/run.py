"""e2kdisk run: a firmware on a board with disks, in the terminal, through pipes, or as a script tells."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from e2kdisk.errors import UsageError
from e2kdisk.tools.arguments import Parser, count, size
from e2kdisk.tools.firmware import load_bios
from e2kdisk.tools.hints import unknown_name
from e2kdisk.tools.script import SYNTAX, load_script

if TYPE_CHECKING:
    from e2kdisk.aio.scheduler import Scheduler
    from e2kdisk.block.disk import Disk
    from e2kdisk.block.drive import DriveOptions
    from e2kdisk.machine.machine import Machine
    from e2kdisk.machine.trace import Tracer

BOARD = "virt-arm64"

HELP = """\
Run a firmware with disks. Its console is your terminal: Ctrl-A x ends it,
Ctrl-A h lists the other keys. Without a terminal, the standard input is typed.

examples:
  $ e2kdisk run --bios demo --drive disk.qcow2
  $ e2kdisk run --board virt-arm64 --drive file=disk.qcow2,readonly=on \\
      --bios /usr/lib/u-boot/qemu_arm64/u-boot.bin --script boot.txt
  $ e2kdisk run --board elbrus --bios fw.bin --drive file=disk.qcow2,if=ide
"""

DRIVE_HELP = """\
drives, spelled as for qemu -drive, a comma in a value written twice:
  file=FILE                the image; "file=" may be left out
  format=qcow2|raw         guessed unless given
  readonly=on|off          off unless given
  if=ide|virtio|virtio-pci the controller: elbrus has ide (its first choice) and
                           virtio, the others virtio, virt-arm64 also virtio-pci
  serial=TEXT              what the guest reads as the disk's name
  cache=MODE               writeback, writethrough, none, directsync, unsafe
  backing=FILE             instead of the backing file that the image names
In the trace, drive N is virtio-blkN, and all IDE drives together are ide0.
"""

STATUS_HELP = """\
exit status:
  0    the guest has switched itself off, the script has ended, or Ctrl-A x
  1    an expect found nothing in its time, the guest cannot go on, an error
  130  Ctrl-C
"""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("run", HELP, f"{DRIVE_HELP}\n{SYNTAX}\n{STATUS_HELP}")
    parser.add_argument("--board", default=BOARD, metavar="BOARD", help=f"{BOARD} (default), virt-riscv64 or elbrus")
    parser.add_argument(
        "--cpu", default="", metavar="CPU", help="elbrus: e2k (default) or arm64, with the same devices"
    )
    parser.add_argument(
        "--quirk",
        action="append",
        default=[],
        metavar="NAME",
        help="elbrus: qemu-offset shows PCI memory at 0x80000000 + its address, as qemu-e2k does; repeatable",
    )
    parser.add_argument(
        "--serial", type=int, default=0, metavar="N", help="which serial port is the console (default 0); elbrus has 2"
    )
    parser.add_argument("--bios", metavar="FILE", help='the firmware; "demo": the guest of the demo')
    parser.add_argument("--kernel", metavar="FILE", help="elbrus: a kernel image to start instead of firmware")
    parser.add_argument("--append", default="", metavar="TEXT", help="the kernel's command line")
    parser.add_argument("--drive", action="append", default=[], metavar="OPTIONS", help="a disk, see below; repeatable")
    parser.add_argument(
        "--ram", type=size("--ram", least=16 << 20), default=256 << 20, metavar="SIZE", help="default 256M"
    )
    parser.add_argument(
        "--clock",
        choices=("virtual", "host"),
        help="virtual: time is counted in instructions, every run is the same (default with --script); "
        "host: real time (default without)",
    )
    parser.add_argument("--virtio", type=int, choices=(1, 2), default=2, help="2 modern (default), 1 legacy")
    parser.add_argument("--loadvm", metavar="NAME", help="go on from a snapshot that savevm has kept")
    parser.add_argument("--script", metavar="FILE", help='what to type and expect, see below; "-": the standard input')
    parser.add_argument(
        "--trace", metavar="FILE", help="write what the disks do: text, or JSON lines if the name ends in .jsonl"
    )
    parser.add_argument(
        "--trace-of", metavar="NAME,...", help='trace these devices, as "virtio-blk0,uart0"; "all" traces everything'
    )
    parser.add_argument(
        "--max-instructions", type=count("--max-instructions"), metavar="N", help="then stop, with exit status 1"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    drives = [drive_options(text) for text in given.drive]
    steps = None if given.script is None else load_script(given.script)

    from e2kdisk.aio.scheduler import Scheduler
    from e2kdisk.machine.boards.board import Drive
    from e2kdisk.machine.machine import BOARDS, Machine
    from e2kdisk.tools.session import Session

    if given.board not in BOARDS:
        raise unknown_name("board", given.board, BOARDS)
    if given.bios is None and given.kernel is None:
        raise UsageError("give --bios FILE, or --kernel FILE on elbrus; see e2kdisk run --help")
    bios = b"" if given.bios is None else load_bios(given.board, given.bios)
    board = BOARDS[given.board]
    kinds = [board.interface(drive.interface) for drive in drives]
    scheduler = Scheduler()
    with ExitStack() as stack:
        disks = [stack.enter_context(open_drive(drive, scheduler)) for drive in drives]
        trace = None
        if given.trace is not None:
            trace = open_trace(given.trace, given.trace_of, kinds, stack)
        machine = stack.enter_context(
            Machine(
                given.board,
                cpu=given.cpu,
                quirks=given.quirk,
                bios=bios,
                kernel=given.kernel or b"",
                cmdline=given.append,
                ram=given.ram,
                drives=[Drive(disk, kind) for disk, kind in zip(disks, kinds, strict=True)],
                clock=given.clock or ("host" if steps is None else "virtual"),
                virtio_version=given.virtio,
                serial=given.serial,
                trace=trace,
                scheduler=scheduler,
            )
        )
        check_trace_names(given.trace_of, machine)
        if given.loadvm is not None:
            machine.loadvm(given.loadvm)
        session = Session(machine, given.max_instructions)
        if steps is None:
            session.typed(0)
        else:
            session.scripted(steps, given.script)
    return 0


def drive_options(text: str) -> DriveOptions:
    """Parse one --drive. Raises UsageError for what is not built."""
    from e2kdisk.block.drive import parse_drive

    drive = parse_drive(text)
    if drive.index is not None:
        raise UsageError(f"drive {text!r}: index is not built yet; drives are numbered in the order of the options")
    return drive


def open_drive(drive: DriveOptions, scheduler: Scheduler) -> Disk:
    """Open a drive. The user names his own images, so what they name in turn may lie anywhere."""
    from e2kdisk.block.policy import OpenPolicy

    return drive.open(scheduler=scheduler, policy=OpenPolicy.permissive())


def open_trace(filename: str, names: str | None, kinds: Sequence[str], stack: ExitStack) -> Tracer:
    """Open a trace file, closed by the stack; names is the value of --trace-of, kinds are those of the drives."""
    from e2kdisk.machine.trace import Tracer

    disks = ("ide0" if kind == "ide" else f"virtio-blk{number}" for number, kind in enumerate(kinds))
    only: list[str] | None = ["bus", *disks]
    if names is not None:
        only = None if names == "all" else names.split(",")
    file = TraceFile(filename)
    stack.callback(file.close)
    return Tracer(file.write_line, format="json" if filename.endswith(".jsonl") else "text", only=only)


def check_trace_names(names: str | None, machine: Machine) -> None:
    """Raise UsageError for a device in --trace-of that the machine has not."""
    board = machine.board
    devices = (*board.bus.devices.values(), *board.chips, *board.controllers)
    known = ["all", "bus", *dict.fromkeys(device.name for device in devices)]
    for name in names.split(",") if names is not None else ():
        if name not in known:
            raise unknown_name("device in --trace-of", name, known)


class TraceFile:
    """A file that is named in the errors of writing to it, too."""

    def __init__(self, filename: str) -> None:
        self._name = filename
        self._file = open(filename, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def write_line(self, line: str) -> None:
        """Append one line."""
        with self._named_errors():
            self._file.write(line + "\n")

    def close(self) -> None:
        """Write what is buffered and close."""
        with self._named_errors():
            self._file.close()

    @contextmanager
    def _named_errors(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            error.filename = self._name
            raise
