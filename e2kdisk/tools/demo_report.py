"""What the demo prints: the guest's console, the way of its requests with numbers, and the verdict."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING, TextIO

from e2kdisk.tools.arguments import human
from e2kdisk.tools.demo import IN_FLIGHT
from e2kdisk.tools.style import Style

if TYPE_CHECKING:
    from e2kdisk.qcow2.check import CheckResult
    from e2kdisk.tools.demo import Outcome
    from e2kdisk.tools.demo_count import Access

WIDTH = 80
NAME_WIDTH = 14

SETTING_UP = 8
"""First accesses that are shown from the beginning."""
AT_WORK = ("QueueNotify", "InterruptStatus", "InterruptACK")
"""Registers whose first accesses are shown besides: they belong to each request."""

DIRECTION = {"IN": "to the guest", "OUT": "to the disk"}


class Report:
    """The demo's output, in the order of its methods."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        self._out = out
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

    def opening(self, board: str, virtio: int, image: str, size: int, guest_size: int) -> None:
        """What will be run."""
        from e2kdisk.machine.machine import BOARDS

        self._print(self._style.title("e2kdisk demo: a guest program writes to a new disk and checks every byte"))
        self._row("board", f"{board}: {BOARDS[board].DESCRIPTION}")
        era = "legacy" if virtio == 1 else "modern"
        self._row("controller", f"virtio-blk on virtio-mmio version {virtio} ({era})")
        self._row("disk", f"{image}: qcow2, {human(size)}, empty")
        self._row("guest", f"{guest_size} bytes of bare-metal code, no operating system")
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
            styled = self._style.good(part) if part == "PASS" else part
            styled = self._style.bad(part) if part.startswith("FAIL") else styled
            self._print(f"  {self._style.faint(self._style.line)} {styled}")

    # -- afterwards -------------------------------------------------------------------------------

    def way(self, outcome: Outcome, checked: CheckResult) -> None:
        """The spine: what happened at each step from the guest's store down to the file, and back."""
        counts, disk, machine, seconds = outcome.counts, outcome.disk, outcome.machine, outcome.seconds
        self._title("The way of a request, and what was counted on it")
        self._print(self._style.faint("  Each step is a part of e2kdisk that can be used alone."))
        down, up = self._style.faint(self._style.down), self._style.faint(self._style.up)
        stores, loads = counts.controller("write"), counts.controller("read")
        registers = counts.registers
        requests = sum(amount.times for amount in counts.requests.values())
        example = next((f", as: {a.instruction}" for a in counts.samples if a.register == "QueueNotify"), "")
        self._row("guest store", f"{stores:,} to the controller{example}")
        self._row(
            "cpu", f"{machine.instructions:,} instructions, {machine.instructions / seconds / 1e6:.0f} MIPS", down
        )
        others = sum(counts.accesses.values()) - stores - loads
        self._row("bus", f"{stores + loads:,} register accesses to the disk, {others:,} to others", down)
        self._row("register", ", ".join(f"{name} {times:,}" for name, times in registers.most_common(3)), down)
        self._row(
            "ring", f"{requests:,} requests in {registers['QueueNotify']:,} batches, up to {IN_FLIGHT} in flight", down
        )
        for number, (name, amount) in enumerate(sorted(counts.requests.items(), key=lambda item: -item[1].bytes)):
            data = f"{amount.bytes:>12,} bytes {DIRECTION.get(name, '')}" if amount.bytes else ""
            self._row("" if number else "request", f"{name:8}{amount.times:>7,} {data}".rstrip(), down)
        self._row("Disk", f"{human(disk.reads.bytes)} read, {human(disk.writes.bytes)} written", down)
        cluster_size = human(disk.size // max(1, checked.total_clusters))
        self._row(
            "qcow2", f"{checked.allocated_clusters} of {checked.total_clusters} clusters of {cluster_size} in use", down
        )
        calls = sorted(outcome.engine.calls.items(), key=lambda item: -item[1].times)
        moved = sum(amount.bytes for _, amount in calls)
        self._row("file", ", ".join(f"{amount.times:,} {name}" for name, amount in calls) + f", {human(moved)}", down)
        self._row("and back", f"the data, the used ring, {registers['InterruptACK']:,} interrupts", up)
        moved = disk.reads.bytes + disk.writes.bytes
        rate = f"{requests / seconds:,.0f} requests/s, {moved / seconds / 1e6:.0f} MB/s"
        self._row("in all", f"{seconds:.2f} s on this host: {rate}")

    def sample(self, outcome: Outcome) -> None:
        """The first accesses to some registers, with the instruction that made them."""
        self._title("How the guest's code talks to the controller (the first access to a register)")
        self._print(self._style.faint(f"    {'pc':10} {'instruction':28} {'register':18}    value"))
        samples = outcome.counts.samples
        for access in samples[:SETTING_UP]:
            self._print(self._access(access))
        self._print(self._style.faint("    ..."))
        for access in samples[SETTING_UP:]:
            if access.register in AT_WORK:
                self._print(self._access(access))

    def _access(self, access: Access) -> str:
        arrow = "->" if access.kind == "read" else "<-"
        name = self._style.name(f"{access.register:18}")
        return f"    {access.pc:#010x} {access.instruction:28} {name} {arrow} {access.value:#x}"

    def verdict(self, outcome: Outcome, checked: CheckResult, second: str | None) -> None:
        """Whether all is well."""
        style = self._style
        self._title("Is it right?")
        passed = outcome.verdict == "PASS"
        self._verdict("guest", passed, "every byte that was read back is right" if passed else outcome.verdict)
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

    def next_steps(self, board: str, kept: str | None) -> None:
        """What to try next."""
        other = "virt-riscv64" if board == "virt-arm64" else "virt-arm64"
        self._title("Try next")
        if kept is not None:
            self._print(f"    $ e2kdisk run --board {board} --bios demo --drive {shlex.quote(kept)}")
            self._print(f"    $ e2kdisk info {shlex.quote(kept)}")
        else:
            self._print(f"    $ e2kdisk demo --board {other} --keep disk.qcow2")
            self._print(f"    $ e2kdisk run --board {other} --bios demo --drive disk.qcow2")
