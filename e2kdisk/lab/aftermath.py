"""What a run leaves behind, cut or not: the image checks, and each sector holds what the guest may find there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.block.status import BlockStatus
from e2kdisk.errors import E2kDiskError
from e2kdisk.lab.decisions import Decisions, Natural
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import PLAIN
from e2kdisk.lab.volume import Traffic, VolumeNode
from e2kdisk.lab.witness import SECTOR_BYTES, WitnessNode

if TYPE_CHECKING:
    from e2kdisk.lab.rig import Rig

MOST_COMPLAINTS = 5
PIECE_BYTES = 1 << 16
WHOLE_BYTES = 16 << 20
"""Disks up to this size are compared whole after each run."""


class Content:
    """The disk in one state of its file, as a format shows it; the state itself stays as it is."""

    def __init__(self, pages: Pages, options: OpenOptions) -> None:
        self.scheduler = Scheduler(VirtualClock())
        traffic = Traffic(self.scheduler, lambda: 0)
        traffic.begin(PLAIN, Decisions(Natural()))
        self.file = VolumeNode(traffic, options.filename, pages)
        self.options = options
        self._node: Node | None = None

    def check(self) -> str:
        """What the image check finds besides leaks; "" for nothing. A raw image has nothing to check."""
        head = self.file.content.read(0, 4)
        if head != b"QFI\xfb":
            return ""
        from e2kdisk.qcow2.check import check_file

        found = self.scheduler.run(check_file(self.file))
        return "" if not found.corruptions else f"{found.corruptions} corruptions: {found.problems[0]}"

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the disk."""
        buffer = bytearray(length)
        self.scheduler.run(self._disk().read(offset, [memoryview(buffer)]))
        return bytes(buffer)

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._disk().size

    def status(self, offset: int, length: int) -> BlockStatus:
        """What the disk is made of from an offset."""
        return self.scheduler.run(self._disk().status(offset, length))

    def _disk(self) -> Node:
        if self._node is None:
            opener = Opener(AutoEngine(self.scheduler), OpenPolicy.permissive())
            self._node = self.scheduler.run(opener.open_format(self.file, self.options))
        return self._node


def complaints(rig: Rig, found: list[Pages]) -> list[str]:
    """Judge the contents of all files of a rig after a power cut of its last run."""
    return _judge(rig, found, cut=True)


def complaints_at_end(rig: Rig) -> list[str]:
    """Judge them after a run that came to its end, with the images closed as a good user would."""
    for drive in rig.drives:
        drive.disk.sync()
        rig.scheduler.run(drive.disk.node.close())
    return _judge(rig, [drive.volume.content for drive in rig.drives], cut=False)


def _judge(rig: Rig, found: list[Pages], *, cut: bool) -> list[str]:
    said: list[str] = []
    for drive, pages, old in zip(rig.drives, found, rig.base.volumes, strict=True):
        try:
            after = Content(pages, drive.options)
            problem = after.check()
            if problem:
                said.append(f"image check: {drive.name}: {problem}")
                continue
            before = Content(old, drive.options)
            said += _wrong_sectors(drive.witness, after, before, drive.name, cut=cut)
        except (E2kDiskError, OSError) as error:
            said.append(f"image: {drive.name} does not open any more: {error}")
    return said[:MOST_COMPLAINTS]


def _wrong_sectors(witness: WitnessNode, after: Content, before: Content, name: str, *, cut: bool) -> list[str]:
    wrong = []
    for start in _pieces_to_compare(witness):
        length = min(PIECE_BYTES, witness.size - start)
        new, old = after.read(start, length), before.read(start, length)
        for offset in range(0, length, SECTOR_BYTES):
            sector, place = (start + offset) // SECTOR_BYTES, slice(offset, offset + SECTOR_BYTES)
            kept = sector not in witness.sectors or witness.keeps_old(sector, cut=cut)
            if kept and new[place] == old[place]:
                continue
            if sector not in witness.sectors:
                wrong.append(f"content: {name} sector {sector}: changed, and nobody wrote to it")
                continue
            allowed = witness.allowed(sector) if cut else witness.newest(sector)
            if new[place] not in allowed and None not in allowed:
                what = (
                    "neither the old content nor a new one" if kept else "neither what was flushed nor anything newer"
                )
                wrong.append(f"content: {name} sector {sector}: {what}")
    return wrong


def _pieces_to_compare(witness: WitnessNode) -> list[int]:
    """Offsets of the pieces to look at: of a small disk all, of a large one those around what was written."""
    if witness.size <= WHOLE_BYTES:
        return list(range(0, witness.size, PIECE_BYTES))
    written = {sector * SECTOR_BYTES // PIECE_BYTES for sector in witness.sectors}
    return [piece * PIECE_BYTES for piece in sorted(written) if piece * PIECE_BYTES < witness.size]
