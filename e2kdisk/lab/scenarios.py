"""The scenarios that come with e2kdisk: the bundled guest programs on each board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from e2kdisk.lab.rig import Rig
from e2kdisk.lab.scenario import Scenario
from e2kdisk.machine.bundled import find_guest, find_image

SECTOR = 512
DISK_SIZE = 4 << 20
LIMIT = 50_000_000
"""Instructions after which a guest hangs: a hundred times what it needs."""


class Guest(Scenario):
    """The bundled guest writes a pattern with several requests in flight, reads it back, flushes and says PASS."""

    BOARD: ClassVar[str]
    OPTIONS: ClassVar[str] = "first=8 sectors=32 inflight=6 rounds=4 wait=interrupt"
    """Of firmware/guest/options.h."""
    INTERFACE: ClassVar[str] = ""
    """What the disk is plugged into; the board's first if empty."""

    def build(self) -> Rig:
        """Scenario.build: a new image with small clusters, so that tables grow."""
        from e2kdisk.block.open import open_disk
        from e2kdisk.qcow2.create import create

        image = self.directory / "disk.qcow2"
        create(image, DISK_SIZE, cluster_size=4096)
        with open_disk(image, format="qcow2") as disk:
            disk.pwrite(0, f"e2kdisk-guest {self.OPTIONS}".encode().ljust(SECTOR, b"\0"))
        return Rig(self.BOARD, self.bios(), [image], ram=16 << 20, format="qcow2", interface=self.INTERFACE)

    def bios(self) -> str:
        """The file of the guest program."""
        return find_guest(self.BOARD)

    def act(self, rig: Rig) -> None:
        """Scenario.act."""
        ending = rig.machine.run(max_instructions=LIMIT)
        if rig.traffic.is_cut:
            return
        said = rig.machine.console.transcript.splitlines()
        verdict = next((line for line in reversed(said) if line.startswith(("PASS", "FAIL"))), ending.value)
        # With injected errors the guest is to say what failed; it must never pass over one.
        expected = "FAIL" if rig.traffic.faults else "PASS"
        assert verdict.startswith(expected), f"the guest says {verdict!r}"

    def state(self) -> Sequence[object]:
        """Scenario.state: act() only waits for the guest."""
        return ()

    def revive(self, rig: Rig) -> None:
        """Scenario.revive: the whole program once more."""
        self.act(rig)


class GuestArm64(Guest):
    """On virt-arm64."""

    DESCRIPTION = "the bundled guest on virt-arm64, virtio-blk over MMIO"
    BOARD = "virt-arm64"


class GuestRiscv64(Guest):
    """On virt-riscv64."""

    DESCRIPTION = "the bundled guest on virt-riscv64, virtio-blk over MMIO"
    BOARD = "virt-riscv64"


class Elbrus(Guest):
    """Real Elbrus code reads, writes, flushes and verifies, one request after the other."""

    BOARD = "elbrus"
    PROGRAM: ClassVar[str]
    """Its file in firmware/images."""

    def bios(self) -> str:
        """The file of the guest program."""
        return find_image(self.PROGRAM)


class ElbrusIdeDma(Elbrus):
    """Through the IDE function, by bus master DMA."""

    DESCRIPTION = "the bundled e2k program on elbrus, IDE by bus master DMA"
    PROGRAM = "e2k-ide-dma.bin"


class ElbrusIdePio(Elbrus):
    """Through the IDE function, by its data port."""

    DESCRIPTION = "the bundled e2k program on elbrus, IDE by the data port"
    PROGRAM = "e2k-ide-pio.bin"


class ElbrusVirtio(Elbrus):
    """Through virtio over PCI."""

    DESCRIPTION = "the bundled e2k program on elbrus, virtio-blk over PCI"
    PROGRAM = "e2k-virtio.bin"
    INTERFACE = "virtio"
