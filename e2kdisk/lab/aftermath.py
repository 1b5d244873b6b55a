"""What is found when the power comes back: the image checks, and each sector holds what the guest may find there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import E2kDiskError
from e2kdisk.lab.decisions import Decisions, Natural
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import PLAIN
from e2kdisk.lab.volume import Traffic, VolumeNode
from e2kdisk.lab.witness import SECTOR_BYTES, WitnessNode

if TYPE_CHECKING:
    from e2kdisk.lab.rig import Rig

MOST_COMPLAINTS = 5


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
        if self._node is None:
            opener = Opener(AutoEngine(self.scheduler), OpenPolicy.permissive())
            self._node = self.scheduler.run(opener.open_format(self.file, self.options))
        buffer = bytearray(length)
        self.scheduler.run(self._node.read(offset, [memoryview(buffer)]))
        return bytes(buffer)


def complaints(rig: Rig, found: list[Pages]) -> list[str]:
    """Judge the contents of all files of a rig after a power cut of its last run."""
    said: list[str] = []
    for drive, pages, before in zip(rig.drives, found, rig.base.volumes, strict=True):
        try:
            after = Content(pages, drive.options)
            problem = after.check()
            if problem:
                said.append(f"{drive.name}: the image check finds {problem}")
                continue
            said += _wrong_sectors(drive.witness, after, Content(before, drive.options), drive.name)
        except (E2kDiskError, OSError) as error:
            said.append(f"{drive.name}: the image does not open any more: {error}")
    return said[:MOST_COMPLAINTS]


def _wrong_sectors(witness: WitnessNode, after: Content, before: Content, name: str) -> list[str]:
    wrong = []
    for sector in sorted(witness.sectors):
        found = after.read(sector * SECTOR_BYTES, SECTOR_BYTES)
        allowed = witness.allowed(sector)
        if found in allowed or None in allowed:
            continue
        if witness.keeps_old(sector) and found == before.read(sector * SECTOR_BYTES, SECTOR_BYTES):
            continue
        lost = "what was flushed is lost" if not witness.keeps_old(sector) else "neither the old content nor a new one"
        wrong.append(f"{name}: sector {sector}: {lost}")
    return wrong
