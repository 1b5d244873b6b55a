"""What the demo prints: the guest's console, the way of its requests with numbers, and the verdict."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING, TextIO

from e2kdisk.tools.arguments import human
from e2kdisk.tools.demo_scene import PASSED, Scene
from e2kdisk.tools.style import Style

if TYPE_CHECKING:
    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.demo import Outcome
    from e2kdisk.tools.demo_count import Access

WIDTH = 80
NAME_WIDTH = 14

SETTING_UP = 8
"""First accesses that are shown from the beginning."""
INSTRUCTION_WIDTH = 28
"""A longer one has lines of its own."""


class Report:
    """The demo's output, in the order of its methods."""

    def __init__(self, out: TextIO, scene: Scene, *, quiet: bool = False) -> None:
        self._out = out
        self._scene = scene
        self._quiet = quiet
        self._style = Style(out)
        self._line = bytearray()

    def _print(self, text: str = "") -> None:
        if not self._quiet:
            print(text, file=self._out, flush=True)

    def _title(self, text: str) -> None:
        self._print()
        self._print(self._style.title(text))

    def _row(self, name: str, text: str, mark: str = " ") -> None:
        first, *rest = textwrap.wrap(text, WIDTH - NAME_WIDTH - 6) or [""]
        self._print(f"  {mark} {self._style.name(f'{name:{NAME_WIDTH}}')} {first}")
        for line in rest:
            self._print(f"    {'':{NAME_WIDTH}} {line}")

    # -- before and while the guest runs ----------------------------------------------------------

    def opening(self, image: str, size: int, bios: bytes) -> None:
        """What will be run."""
        from e2kdisk.machine.machine import BOARDS

        scene = self._scene
        self._print(self._style.title(scene.TITLE))
        self._row("board", f"{scene.board}: {BOARDS[scene.board].DESCRIPTION}")
        self._row("controller", scene.controller())
        self._row("disk", f"{image}: qcow2, {human(size)}, {scene.content()}")
        self._row("guest", scene.guest(bios))
        self._title("What the guest says")

    def console(self, data: bytes) -> None:
        """The guest has printed something."""
        self._line += data
        *lines, rest = self._line.split(b"\n")
        for line in lines:
            self._show(line)
        self._line[:] = rest

    def console_ends(self) -> None:
        """The guest has ended, perhaps in the middle of a line."""
        if self._line:
            self._show(self._line)
            self._line.clear()

    def _show(self, line: bytes | bytearray) -> None:
        text = "".join(c if c.isprintable() else "." for c in line.decode("latin-1").strip("\r\0"))
        for part in textwrap.wrap(text, WIDTH - 6, subsequent_indent="  ") or [""]:
            styled = self._style.good(part) if part in (PASSED, "kernel: done") else part
            styled = self._style.bad(part) if part.startswith("FAIL") else styled
            self._print(f"  {self._style.faint(self._style.line)} {styled}")

    # -- afterwards -------------------------------------------------------------------------------

    def way(self, outcome: Outcome, checked: CheckResult) -> None:
        """The spine: what happened at each step from the guest's store down to the file, and back."""
        counts, disk, machine, seconds = outcome.counts, outcome.disk, outcome.machine, outcome.seconds
        scene = self._scene
        self._title("The way of a request, and what was counted on it")
        self._print(self._style.faint("  Each step is a part of e2kdisk that can be used alone."))
        down, up = self._style.faint(self._style.down), self._style.faint(self._style.up)
        stores, loads = counts.controller("write"), counts.controller("read")
        registers = counts.registers
        requests = counts.all_requests
        bell = (a for a in counts.samples if a.register == scene.DOORBELL and a.kind == "write")
        example = next((f", as: {a.instruction}" for a in bell), "")
        self._row("guest store", f"{stores:,} to the controller{example}")
        rate = machine.instructions / seconds / 1e6
        self._row("cpu", f"{machine.instructions:,} instructions, {rate:.{0 if rate >= 10 else 1}f} MIPS", down)
        others = sum(counts.accesses.values()) - stores - loads
        self._row("bus", f"{stores + loads:,} register accesses to the disk, {others:,} to others", down)
        self._row("register", ", ".join(f"{name} {times:,}" for name, times in registers.most_common(3)), down)
        self._row(*scene.protocol(counts), down)
        width = max(8, *map(len, counts.requests), 0)
        for number, (name, amount) in enumerate(sorted(counts.requests.items(), key=lambda item: -item[1].bytes)):
            data = f"{amount.bytes:>12,} bytes {scene.DIRECTIONS.get(name, '')}" if amount.bytes else ""
            self._row("" if number else "request", f"{name:{width}}{amount.times:>7,} {data}".rstrip(), down)
        self._row("Disk", f"{human(disk.reads.bytes)} read, {human(disk.writes.bytes)} written", down)
        cluster_size = human(disk.size // max(1, checked.total_clusters))
        self._row(
            "qcow2", f"{checked.allocated_clusters} of {checked.total_clusters} clusters of {cluster_size} in use", down
        )
        calls = sorted(outcome.engine.calls.items(), key=lambda item: -item[1].times)
        moved = sum(amount.bytes for _, amount in calls)
        self._row("file", ", ".join(f"{amount.times:,} {name}" for name, amount in calls) + f", {human(moved)}", down)
        self._row("and back", scene.back(counts), up)
        rate = (disk.reads.bytes + disk.writes.bytes) / seconds / 1e6
        speed = f"{requests / seconds:,.0f} requests/s, {rate:.{0 if rate >= 10 else 1}f} MB/s"
        self._row("in all", f"{seconds:.2f} s on this host: {speed}")

    def sample(self, outcome: Outcome) -> None:
        """The first accesses to some registers, with the instruction that made them."""
        scene = self._scene
        self._title("How the guest's code talks to the controller (the first access to a register)")
        samples = [access for access in outcome.counts.samples if access.register.startswith(scene.SHOWN)]
        if any(len(access.instruction) > INSTRUCTION_WIDTH for access in samples):
            show = self._wide_access
        else:
            show = self._access
            self._print(
                self._style.faint(f"    {'pc':10} {'instruction':{INSTRUCTION_WIDTH}} {'register':18}    value")
            )
        for access in samples[:SETTING_UP]:
            show(access)
        self._print(self._style.faint("    ..."))
        for access in samples[SETTING_UP:]:
            if access.register in scene.AT_WORK:
                show(access)

    def _effect(self, access: Access, width: int = 0) -> str:
        arrow = "->" if access.kind == "read" else "<-"
        name = self._style.name(f"{access.register.removeprefix(self._scene.SHOWN):{width}}")
        return f"{name} {arrow} {access.value:#x}"

    def _access(self, access: Access) -> None:
        self._print(f"    {access.pc:#010x} {access.instruction:{INSTRUCTION_WIDTH}} {self._effect(access, 18)}")

    def _wide_access(self, access: Access) -> None:
        """The instruction below, with room for several operations."""
        self._print(f"    {access.pc:#010x} {self._effect(access)}")
        for line in textwrap.wrap(access.instruction, WIDTH - 10):
            self._print(self._style.faint(f"        {line}"))

    def verdict(self, outcome: Outcome, checked: CheckResult, second: str | None) -> None:
        """Whether all is well."""
        style = self._style
        self._title("Is it right?")
        passed = outcome.verdict == PASSED
        self._verdict("guest", passed, self._scene.DONE if passed else outcome.verdict)
        clean = "the image is consistent" if checked.clean else "; ".join(checked.problems[:3])
        self._verdict("e2kdisk check", checked.clean, clean)
        if second is None:
            self._row("qemu-img check", style.faint("not installed (Debian: apt-get install qemu-utils)"))
        else:
            self._verdict("qemu-img check", not second, second or "finds no errors either")
        if self._quiet:
            print(f"e2kdisk demo: {outcome.verdict}", file=self._out)

    def _verdict(self, who: str, good: bool, text: str) -> None:
        mark = self._style.good("ok") if good else self._style.bad("NO")
        self._row(who, f"{mark}  {text}")

    def next_steps(self, kept: str | None) -> None:
        """What to try next."""
        board = self._scene.board
        self._title("Try next")
        if kept is not None:
            self._print(f"    $ e2kdisk run --board {board} --bios demo --drive {shlex.quote(kept)}")
            self._print(f"    $ e2kdisk info {shlex.quote(kept)}")
        else:
            other = "virt-arm64" if board == "elbrus" else "elbrus"
            self._print(f"    $ e2kdisk demo --board {other} --keep disk.qcow2")
            self._print(f"    $ e2kdisk run --board {other} --bios demo --drive disk.qcow2")
