"""e2kdisk demo: a guest fills a new disk and checks every byte, and we show which way its requests took."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2kdisk.errors import E2kDiskError, UsageError
from e2kdisk.machine.bundled import GUESTS, find_guest
from e2kdisk.tools.arguments import Parser, size
from e2kdisk.tools.firmware import load_bios
from e2kdisk.tools.hints import unknown_name

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine
    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.demo_count import CountingDisk, CountingEngine, Counts
    from e2kdisk.tools.demo_report import Report

HELP = """\
See the whole thing work, in a few seconds and with nothing to prepare: makes a
qcow2 image, runs a small guest program on an emulated CPU, which writes to
the disk with many requests in flight, reads everything back and checks it;
then shows which way the requests took, and checks the image.

examples:
  $ e2kdisk demo
  $ e2kdisk demo --board virt-riscv64 --virtio 1 --keep disk.qcow2
"""

STATUS_HELP = """\
exit status:
  0  the guest says PASS and the image is consistent
  1  anything else
"""

SECTOR = 512
FIRST_SECTOR = 64
"""Of the area that the guest writes to; what it shall do stands in sector 0."""
AREA_SECTORS = (16 << 20) // SECTOR
"""Of the same; less on a smaller disk."""
IN_FLIGHT = 16
"""Requests that the guest keeps in flight."""
RAM = 64 << 20
SERIAL = "e2kdisk-demo"


@dataclass(slots=True)
class Outcome:
    """What one demo has produced, for the report."""

    machine: Machine
    counts: Counts
    disk: CountingDisk
    engine: CountingEngine
    seconds: float
    """Of the host's time, while the guest ran."""
    verdict: str
    """The guest's last word: PASS, or FAIL and why, or why there is none."""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("demo", HELP, STATUS_HELP)
    parser.add_argument("--board", default="virt-arm64", metavar="BOARD", help=f"{' (default) or '.join(GUESTS)}")
    parser.add_argument("--virtio", type=int, choices=(1, 2), default=2, help="version of virtio-mmio (default 2)")
    parser.add_argument(
        "--size", type=size("--size", least=1 << 20), default=64 << 20, help="of the disk (default 64M)"
    )
    parser.add_argument("--keep", metavar="FILE", help="make the image here and keep it")
    parser.add_argument("-q", "--quiet", action="store_true", help="only say whether it worked")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    if given.board not in GUESTS:
        raise unknown_name("board", given.board, GUESTS)
    bios = load_bios(given.board, find_guest(given.board))
    if given.keep is not None:
        if os.path.lexists(given.keep):
            raise UsageError(f"{given.keep}: exists already, and the demo makes a new image; choose another name")
        return demo(given.board, bios, given.keep, given.size, given.virtio, quiet=given.quiet, kept=True)
    with tempfile.TemporaryDirectory(prefix="e2kdisk-demo-") as directory:
        image = os.path.join(directory, "disk.qcow2")
        return demo(given.board, bios, image, given.size, given.virtio, quiet=given.quiet, kept=False)


def demo(board: str, bios: bytes, image: str, size: int, virtio: int, *, quiet: bool, kept: bool) -> int:
    """Make the image, run the guest, check the image, report. Raises E2kDiskError when something is not right."""
    from e2kdisk.qcow2.check import check
    from e2kdisk.tools.demo_report import Report

    make_image(image, size)
    report = Report(sys.stdout, quiet=quiet)
    report.opening(board, virtio, image, size, len(bios))
    outcome = run_guest(board, bios, image, virtio, report)
    checked = check(image)
    second = qemu_img_check(image)
    report.way(outcome, checked)
    report.sample(outcome)
    report.verdict(outcome, checked, second)
    complaint = complain(outcome, checked, second)
    if complaint:
        raise E2kDiskError(complaint)
    report.next_steps(board, image if kept else None)
    return 0


def make_image(image: str, size: int) -> None:
    """A new image whose sector 0 tells the guest what to do: see firmware/guest/options.h."""
    from e2kdisk.block.open import open_disk
    from e2kdisk.qcow2.create import create

    create(image, size)
    sectors = min(AREA_SECTORS, size // SECTOR - FIRST_SECTOR)
    options = f"e2kdisk-guest first={FIRST_SECTOR} sectors={sectors} inflight={IN_FLIGHT} wait=interrupt"
    with open_disk(image, format="qcow2") as disk:
        disk.pwrite(0, options.encode().ljust(SECTOR, b"\0"))


def run_guest(board: str, bios: bytes, image: str, virtio: int, report: Report) -> Outcome:
    """Run the guest to its end, its console in the report as it comes."""
    from e2kdisk.aio.scheduler import Scheduler
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions
    from e2kdisk.machine.machine import Machine
    from e2kdisk.tools.demo_count import CountingDisk, CountingEngine, Counts

    engine = CountingEngine(Scheduler())
    node = engine.scheduler.run(Opener(engine).open(OpenOptions(image, "qcow2")))
    counts = Counts()
    disk = CountingDisk(node, serial=SERIAL, engine=engine)
    with (
        disk,
        Machine(board, bios=bios, ram=RAM, drives=[disk], virtio_version=virtio, trace=counts) as machine,
    ):
        machine.console.on_output = report.console
        began = time.perf_counter()
        ending = machine.run()
        seconds = time.perf_counter() - began
    report.console_ends()
    return Outcome(machine, counts, disk, engine, seconds, _verdict(machine, ending.value))


def _verdict(machine: Machine, ending: str) -> str:
    """The guest's last word: PASS or FAIL, or why there is none."""
    for line in reversed(machine.console.transcript.splitlines()):
        if line.startswith(("PASS", "FAIL")):
            return line
    return f"nothing: {machine.fault or ending}"


def qemu_img_check(image: str) -> str | None:
    """What qemu-img says of the image: "" if all is well, None if it is not installed."""
    program = shutil.which("qemu-img")
    if program is None:
        return None
    done = subprocess.run([program, "check", "-f", "qcow2", image], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[0]


def complain(outcome: Outcome, checked: CheckResult, second: str | None) -> str:
    """What is not right, in one line, or ""."""
    if outcome.verdict != "PASS":
        return f"demo: the guest says {outcome.verdict}"
    if not checked.clean:
        return f"demo: the image has {checked.corruptions} corruptions and {checked.leaks} leaks: {checked.problems[0]}"
    if second:
        return f"demo: qemu-img check says: {second}"
    return ""
