"""The demo on the virt boards: a guest fills a new disk through virtio-blk and checks every byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2kdisk.tools.demo_scene import PASSED, Scene

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine
    from e2kdisk.tools.demo_count import Counts

SECTOR = 512
FIRST_SECTOR = 64
"""Of the area that the guest writes to; what it shall do stands in sector 0."""
AREA_SECTORS = (16 << 20) // SECTOR
"""Of the same; less on a smaller disk."""
IN_FLIGHT = 16
"""Requests that the guest keeps in flight."""


class VirtScene(Scene):
    """virt-arm64 and virt-riscv64."""

    TITLE = "e2kdisk demo: a guest program writes to a new disk and checks every byte"
    LEAST = 1 << 20
    INTERFACE = "virtio"
    CONTROLLER = "virtio-blk0"
    DOORBELL = "QueueNotify"
    AT_WORK = ("QueueNotify", "InterruptStatus", "InterruptACK")
    DIRECTIONS = {"IN": "to the guest", "OUT": "to the disk"}  # noqa: RUF012
    DONE = "every byte that was read back is right"

    def __init__(self, board: str, virtio: int) -> None:
        super().__init__(board)
        self.virtio = virtio

    def controller(self) -> str:
        """Scene.controller."""
        era = "legacy" if self.virtio == 1 else "modern"
        return f"virtio-blk on virtio-mmio version {self.virtio} ({era})"

    def content(self) -> str:
        """Scene.content."""
        return "empty"

    def guest(self, bios: bytes) -> str:
        """Scene.guest."""
        return f"{len(bios)} bytes of bare-metal code, no operating system"

    def make_image(self, image: str, size: int) -> None:
        """A new image whose sector 0 tells the guest what to do: see firmware/guest/options.h."""
        from e2kdisk.block.open import open_disk
        from e2kdisk.qcow2.create import create

        create(image, size)
        sectors = min(AREA_SECTORS, size // SECTOR - FIRST_SECTOR)
        options = f"e2kdisk-guest first={FIRST_SECTOR} sectors={sectors} inflight={IN_FLIGHT} wait=interrupt"
        with open_disk(image, format="qcow2") as disk:
            disk.pwrite(0, options.encode().ljust(SECTOR, b"\0"))

    def verdict(self, machine: Machine, ending: str) -> str:
        """The guest's last word: PASS or FAIL, or why there is none."""
        for line in reversed(machine.console.transcript.splitlines()):
            if line.startswith((PASSED, "FAIL")):
                return line
        return f"nothing: {machine.fault or ending}"

    def protocol(self, counts: Counts) -> tuple[str, str]:
        """Scene.protocol."""
        batches = counts.registers[self.DOORBELL]
        return "ring", f"{counts.all_requests:,} requests in {batches:,} batches, up to {IN_FLIGHT} in flight"

    def back(self, counts: Counts) -> str:
        """Scene.back."""
        return f"the data, the used ring, {counts.registers['InterruptACK']:,} interrupts"
