"""e2kdisk demo: a guest works with a new disk, and we show which way its requests took and that all is right."""

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
from e2kdisk.machine.bundled import GUESTS
from e2kdisk.tools.arguments import Parser, human, size
from e2kdisk.tools.demo_scene import PASSED, Scene
from e2kdisk.tools.hints import unknown_name

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine
    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.demo_count import CountingDisk, CountingEngine, Counts
    from e2kdisk.tools.demo_report import Report

HELP = """\
See the whole thing work, in a few seconds and with nothing to prepare: makes a
qcow2 image with a partition and an ext2 file system, runs firmware of real
Elbrus code, which boots a small kernel from it through an IDE controller; then
shows which way the requests took, and checks the image. On the virt boards, a
small guest program writes to the disk with many virtio requests in flight,
reads everything back and checks it.

examples:
  $ e2kdisk demo
  $ e2kdisk demo --board virt-arm64 --virtio 1 --keep disk.qcow2
"""

STATUS_HELP = """\
exit status:
  0  the guest has done its work and the image is consistent
  1  anything else
"""

BOARD = "elbrus"
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
    """PASSED, or what the guest has complained of, or why it has said nothing."""


def scene(board: str, virtio: int) -> Scene:
    """The demo of a board. Raises UsageError for one that has none."""
    if board not in GUESTS:
        raise unknown_name("board", board, GUESTS)
    if board == BOARD:
        from e2kdisk.tools.demo_elbrus import ElbrusScene

        return ElbrusScene(board)
    from e2kdisk.tools.demo_virt import VirtScene

    return VirtScene(board, virtio)


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("demo", HELP, STATUS_HELP)
    parser.add_argument("--board", default=BOARD, metavar="BOARD", help=f"{', '.join(GUESTS)} (default {BOARD})")
    parser.add_argument(
        "--virtio", type=int, choices=(1, 2), default=2, help="version of virtio-mmio on the virt boards (default 2)"
    )
    parser.add_argument(
        "--size", type=size("--size", least=1 << 20), default=64 << 20, help="of the disk (default 64M)"
    )
    parser.add_argument("--keep", metavar="FILE", help="make the image here and keep it")
    parser.add_argument("-q", "--quiet", action="store_true", help="only say whether it worked")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    chosen = scene(given.board, given.virtio)
    bios = chosen.bios()
    if given.size < chosen.LEAST:
        raise UsageError(f"--size={human(given.size)}: the demo on {given.board} needs {human(chosen.LEAST)}")
    if given.keep is not None:
        if os.path.lexists(given.keep):
            raise UsageError(f"{given.keep}: exists already, and the demo makes a new image; choose another name")
        return demo(chosen, bios, given.keep, given.size, quiet=given.quiet, kept=True)
    with tempfile.TemporaryDirectory(prefix="e2kdisk-demo-") as directory:
        image = os.path.join(directory, "disk.qcow2")
        return demo(chosen, bios, image, given.size, quiet=given.quiet, kept=False)


def demo(scene: Scene, bios: bytes, image: str, size: int, *, quiet: bool, kept: bool) -> int:
    """Make the image, run the guest, check the image, report. Raises E2kDiskError when something is not right."""
    from e2kdisk.qcow2.check import check
    from e2kdisk.tools.demo_report import Report

    scene.make_image(image, size)
    report = Report(sys.stdout, scene, quiet=quiet)
    report.opening(image, size, bios)
    outcome = run_guest(scene, bios, image, report)
    checked = check(image)
    second = qemu_img_check(image)
    report.way(outcome, checked)
    report.sample(outcome)
    report.verdict(outcome, checked, second)
    complaint = complain(outcome, checked, second)
    if complaint:
        raise E2kDiskError(complaint)
    report.next_steps(image if kept else None)
    return 0


def run_guest(scene: Scene, bios: bytes, image: str, report: Report) -> Outcome:
    """Run the guest to its end, its console in the report as it comes."""
    from e2kdisk.aio.scheduler import Scheduler
    from e2kdisk.block.open import Opener
    from e2kdisk.block.options import OpenOptions
    from e2kdisk.machine.machine import Machine
    from e2kdisk.tools.demo_count import CountingDisk, CountingEngine, Counts

    engine = CountingEngine(Scheduler())
    node = engine.scheduler.run(Opener(engine).open(OpenOptions(image, "qcow2")))
    counts = Counts(scene.CONTROLLER)
    disk = CountingDisk(node, serial=SERIAL, engine=engine)
    with (
        disk,
        Machine(
            scene.board,
            bios=bios,
            ram=RAM,
            drives=[disk],
            interface=scene.INTERFACE,
            virtio_version=getattr(scene, "virtio", 2),
            trace=counts,
        ) as machine,
    ):
        machine.console.on_output = report.console
        began = time.perf_counter()
        ending = machine.run()
        seconds = time.perf_counter() - began
    report.console_ends()
    return Outcome(machine, counts, disk, engine, seconds, scene.verdict(machine, ending.value))


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
    if outcome.verdict != PASSED:
        return f"demo: the guest says {outcome.verdict}"
    if not checked.clean:
        return f"demo: the image has {checked.corruptions} corruptions and {checked.leaks} leaks: {checked.problems[0]}"
    if second:
        return f"demo: qemu-img check says: {second}"
    return ""
