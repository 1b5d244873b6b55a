"""e2kdisk run: a firmware on a board with disks, in the terminal, through pipes, or as a script tells."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from e2kdisk.errors import UsageError
from e2kdisk.machine.bundled import GUESTS
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

HELP = """\
Run a firmware with disks. Its console is your terminal: Ctrl-A x ends it,
Ctrl-A h lists the other keys. Without a terminal, the standard input is typed.

examples:
  $ e2kdisk run --bios demo --drive disk.qcow2
  $ e2kdisk run --board virt-arm64 --drive file=disk.qcow2,readonly=on \\
      --bios /usr/lib/u-boot/qemu_arm64/u-boot.bin --script boot.txt
"""

DRIVE_HELP = """\
drives, spelled as for qemu -drive, a comma in a value written twice:
  file=FILE                the image; "file=" may be left out
  format=qcow2|raw         guessed unless given
  readonly=on|off          off unless given
  if=virtio                the controller
  serial=TEXT              what the guest reads as the disk's name
  cache=MODE               writeback, writethrough, none, directsync, unsafe
  backing=FILE             instead of the backing file that the image names
Drive N is virtio-blkN in the trace, in the order of the options.
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
    parser.add_argument("--board", default="virt-arm64", metavar="BOARD", help=f"{' (default) or '.join(GUESTS)}")
    parser.add_argument("--bios", required=True, metavar="FILE", help='the firmware; "demo": the guest of the demo')
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
    parser.add_argument("--virtio", type=int, choices=(1, 2), default=2, help="version of virtio-mmio (default 2)")
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
    from e2kdisk.machine.machine import BOARDS, Machine
    from e2kdisk.tools.session import Session

    if given.board not in BOARDS:
        raise unknown_name("board", given.board, BOARDS)
    bios = load_bios(given.board, given.bios)
    scheduler = Scheduler()
    with ExitStack() as stack:
        disks = [stack.enter_context(open_drive(drive, scheduler)) for drive in drives]
        trace = None
        if given.trace is not None:
            trace = open_trace(given.trace, given.trace_of, len(disks), stack)
        machine = stack.enter_context(
            Machine(
                given.board,
                bios=bios,
                ram=given.ram,
                drives=disks,
                clock=given.clock or ("host" if steps is None else "virtual"),
                virtio_version=given.virtio,
                trace=trace,
                scheduler=scheduler,
            )
        )
        check_trace_names(given.trace_of, machine)
        session = Session(machine, given.max_instructions)
        if steps is None:
            session.typed(0)
        else:
            session.scripted(steps, given.script)
    return 0


def drive_options(text: str) -> DriveOptions:
    """Parse one --drive. Raises UsageError for what no board here can do."""
    from e2kdisk.block.drive import parse_drive

    drive = parse_drive(text)
    if drive.interface != "virtio":
        raise UsageError(f"drive {text!r}: if={drive.interface} is not built yet; if=virtio is")
    if drive.index is not None:
        raise UsageError(f"drive {text!r}: index is not built yet; drives are numbered in the order of the options")
    return drive


def open_drive(drive: DriveOptions, scheduler: Scheduler) -> Disk:
    """Open a drive. The user names his own images, so what they name in turn may lie anywhere."""
    from e2kdisk.block.policy import OpenPolicy

    return drive.open(scheduler=scheduler, policy=OpenPolicy.permissive())


def open_trace(filename: str, names: str | None, disks: int, stack: ExitStack) -> Tracer:
    """Open a trace file, closed by the stack; names is the value of --trace-of."""
    from e2kdisk.machine.trace import Tracer

    only: list[str] | None = ["bus", *(f"virtio-blk{number}" for number in range(disks))]
    if names is not None:
        only = None if names == "all" else names.split(",")
    file = TraceFile(filename)
    stack.callback(file.close)
    return Tracer(file.write_line, format="json" if filename.endswith(".jsonl") else "text", only=only)


def check_trace_names(names: str | None, machine: Machine) -> None:
    """Raise UsageError for a device in --trace-of that the machine has not."""
    known = ["all", "bus", *(device.name for device in machine.board.bus.devices.values())]
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
