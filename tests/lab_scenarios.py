"""Scenarios of the tests: what the bundled ones do not reach (resets in flight, saving in flight, code under DMA)."""

from __future__ import annotations

import random
import struct

from e2kdisk.block.open import open_disk
from e2kdisk.block.read_only import ReadOnlyNode
from e2kdisk.lab.rig import Rig
from e2kdisk.lab.rules import MS, US, Rules
from e2kdisk.lab.scenario import Scenario
from e2kdisk.lab.scenarios import GuestArm64
from e2kdisk.qcow2.create import create
from e2kdisk.qcow2.image import Qcow2Image

SIZE = 1 << 20
RAM = 0x4000_0000
LOOP = struct.pack("<I", 0x1400_0000)  # b .


class OverBacking(GuestArm64):
    """The bundled guest over a backing file with noise, in clusters larger than its requests: copy on write."""

    OPTIONS = "first=8 sectors=64 inflight=8 rounds=2 size=1"

    def build(self) -> Rig:
        base, image = self.directory / "base.raw", self.directory / "disk.qcow2"
        content = bytearray(random.Random(1).randbytes(SIZE))
        content[:512] = f"e2kdisk-guest {self.OPTIONS}".encode().ljust(512, b"\0")
        base.write_bytes(content)
        create(image, SIZE, cluster_size=4096, backing_file=str(base), backing_format="raw")
        return Rig(self.BOARD, self.bios(), [image], ram=16 << 20, format="qcow2")


class SavedInFlight(GuestArm64):
    """The bundled guest is saved and restored after a number of instructions that is a decision."""

    RULES = Rules(latencies_ns=(40 * US, 700 * US))

    def act(self, rig: Rig) -> None:
        rig.machine.run(max_instructions=20_000 + 3_001 * rig.decisions.choose("save after", 64))
        rig.machine.load(rig.machine.save())
        super().act(rig)


class SharedSnapshot(GuestArm64):
    """The image has an internal snapshot, which must go on to show what the guest replaces."""

    RULES = Rules(latencies_ns=(0, 40 * US))

    def build(self) -> Rig:
        rig = super().build()
        disk = rig.drives[0].disk
        disk.pwrite(8 * 512, random.Random(2).randbytes(32 * 512))
        disk.scheduler.run(disk.node.node.snapshots.create("kept"))  # type: ignore[attr-defined]
        self.kept = disk.pread(0, 64 * 512)
        return rig

    def act(self, rig: Rig) -> None:
        super().act(rig)
        drive = rig.drives[0]
        drive.disk.sync()
        image = drive.witness.node
        header = image.header.with_(l1_table_offset=image.snapshots.find("kept").l1_table_offset)  # type: ignore[attr-defined]
        view = rig.scheduler.run(Qcow2Image.open(ReadOnlyNode(drive.volume), header))
        found = bytearray(len(self.kept))
        rig.scheduler.run(view.read(0, [memoryview(found)]))
        assert found == self.kept, "the snapshot shows something else now"


class Driver(Scenario):
    """No guest code: the test is the driver, and the CPU of the machine turns in a loop so that time passes.

    Modern virtio-mmio; one ring of 16 descriptors, requests of three descriptors each.
    """

    RULES = Rules(latencies_ns=(0, 40 * US, 700 * US, 3 * MS))
    RINGS = RAM + 0x1000
    BUFFERS = RAM + 0x10000
    QUEUE = 16
    FEATURES = 1 << 9
    """VIRTIO_BLK_F_FLUSH."""

    def build(self) -> Rig:
        image = self.directory / "disk.qcow2"
        create(image, SIZE, cluster_size=4096)
        with open_disk(image) as disk:
            disk.pwrite(0, bytes(range(256)) * 512)
        rig = Rig("virt-arm64", LOOP, [image], ram=16 << 20, format="qcow2")
        self.controller = rig.machine.board.controllers[0]
        self.ram = rig.machine.board.ram.view
        self.made = self.used = 0
        self.start()
        return rig

    def put(self, address: int, data: bytes) -> None:
        self.ram[address - RAM : address - RAM + len(data)] = data

    def get(self, address: int, length: int) -> bytes:
        return bytes(self.ram[address - RAM : address - RAM + length])

    def reg(self, offset: int, value: int) -> None:
        self.controller.write(offset, 4, value)

    def start(self) -> None:
        """Reset, negotiate VERSION_1 and FLUSH, set the ring up."""
        self.reg(0x70, 0)
        self.put(self.RINGS, bytes(0x1000))
        self.made = self.used = 0
        for value in (1, 3):
            self.reg(0x70, value)
        self.reg(0x24, 0)
        self.reg(0x20, self.FEATURES)
        self.reg(0x24, 1)
        self.reg(0x20, 1)  # VIRTIO_F_VERSION_1
        self.reg(0x70, 11)
        self.reg(0x30, 0)
        self.reg(0x38, self.QUEUE)
        for register, address in ((0x80, 0), (0x90, 0x400), (0xA0, 0x800)):
            self.reg(register, self.RINGS + address)
            self.reg(register + 4, 0)
        self.reg(0x44, 1)
        self.reg(0x70, 15)

    def submit(self, kind: int, sector: int = 0, data: bytes = b"", read: int = 0, slot: int | None = None) -> int:
        """Make a request available without a notification; its slot (0..4)."""
        slot = self.made % 5 if slot is None else slot
        buffer, head = self.BUFFERS + slot * 0x4000, 3 * slot
        self.put(buffer, struct.pack("<IIQ", kind, 0, sector))
        self.put(buffer + 0x1000, data if data else bytes([0xEE]) * read)
        self.put(buffer + 0x3000, b"\xff")
        length = len(data) or read
        chain = [(buffer, 16, 1)]
        if length:
            chain.append((buffer + 0x1000, length, 1 | (2 if read else 0)))
        chain.append((buffer + 0x3000, 1, 2))
        for at, (address, size, flags) in enumerate(chain):
            self.put(self.RINGS + 16 * (head + at), struct.pack("<QIHH", address, size, flags, head + at + 1))
        self.put(self.RINGS + 0x404 + 2 * (self.made % self.QUEUE), struct.pack("<H", head))
        self.made += 1
        self.put(self.RINGS + 0x402, struct.pack("<H", self.made & 0xFFFF))
        return slot

    def notify(self) -> None:
        self.reg(0x50, 0)

    def pass_time(self, rig: Rig, ns: int) -> None:
        rig.machine.run(max_instructions=max(1, ns // 10))

    def used_index(self) -> int:
        index: int = struct.unpack("<H", self.get(self.RINGS + 0x802, 2))[0]
        return index

    def status(self, slot: int) -> int:
        return self.get(self.BUFFERS + slot * 0x4000 + 0x3000, 1)[0]

    def wait_all(self, rig: Rig) -> None:
        """Let time pass until everything made available has been given back, and check that an interrupt says so."""
        for _ in range(200):
            if rig.traffic.is_cut:
                return
            if self.used_index() == self.made & 0xFFFF:
                break
            self.pass_time(rig, 200 * US)
        assert self.used_index() == self.made & 0xFFFF, "a request was never given back"
        self.pass_time(rig, MS)
        assert self.controller.read(0x60, 4) & 1, "everything was given back without an interrupt"
        self.reg(0x64, 1)


class FourInFlight(Driver):
    """Four overlapping requests at once, in every order: write, write over it, read, flush."""

    RULES = Rules(order=True)

    def act(self, rig: Rig) -> None:
        self.start()
        self.submit(1, 100, b"A" * 1024)
        self.submit(1, 101, b"B" * 1024)
        reader = self.submit(0, 100, read=1536)
        self.submit(4)
        self.notify()
        self.wait_all(rig)
        assert [self.status(slot) for slot in range(4)] == [0] * 4
        sectors = self.get(self.BUFFERS + reader * 0x4000 + 0x1000, 1536)
        old = (bytes(range(256)) * 512)[100 * 512 : 103 * 512]
        for at in range(3):
            piece = sectors[512 * at : 512 * (at + 1)]
            assert piece in (old[512 * at : 512 * (at + 1)], b"A" * 512, b"B" * 512), f"sector {100 + at} is torn"


class ResetInFlight(Driver):
    """A reset with requests in flight, then new ones in the same memory."""

    def act(self, rig: Rig) -> None:
        self.start()
        for number in range(4):
            self.submit(0, 8 * number, read=512)
        self.notify()
        self.pass_time(rig, (1, 30 * US, 500 * US)[rig.decisions.choose("reset after", 3)])
        self.reg(0x70, 0)
        self.put(self.BUFFERS, bytes([0x55]) * 0x10000)
        self.pass_time(rig, 5 * MS)
        assert self.get(self.BUFFERS, 0x10000) == bytes([0x55]) * 0x10000, "memory was written after the reset"
        self.start()
        slot = self.submit(0, 7, read=512)
        self.notify()
        self.wait_all(rig)
        assert self.status(slot) == 0


class WriteThrough(Driver):
    """A driver that cannot flush: what is written is durable."""

    FEATURES = 0

    def act(self, rig: Rig) -> None:
        self.start()
        for number in range(4):
            self.submit(1, 40 * number, bytes([number + 1]) * 512)
        self.notify()
        self.wait_all(rig)
        assert [self.status(slot) for slot in range(4)] == [0] * 4


class FlushDuringWrites(Driver):
    """Flushes while writes to new clusters are in flight, then a flush that covers them, then the power fails."""

    RULES = Rules(latencies_ns=(0, 40 * US, 700 * US, 3 * MS), power_cut=True)

    def act(self, rig: Rig) -> None:
        self.start()
        for number in range(6):
            self.submit(1, 40 * number, bytes([number + 1]) * 512)
            self.submit(4)
            self.submit(1, 40 * number + 1000, bytes([number + 1]) * 512)
            self.notify()
            self.wait_all(rig)
            self.submit(4)
            self.notify()
            self.wait_all(rig)


class IndexWraps(Driver):
    """The base lies just before the 16-bit indices wrap."""

    def build(self) -> Rig:
        rig = super().build()
        while self.made < 0xFFFC:
            self.submit(8, read=20)
            self.notify()
            self.reg(0x64, 1)
        assert self.used_index() == self.made
        self.base_made = self.made
        return rig

    def act(self, rig: Rig) -> None:
        self.made = self.base_made
        for count in (1, 1, 1, 1, 1, 3):
            for number in range(count):
                self.submit(0, number, read=512)
            self.notify()
            self.wait_all(rig)


class Errors(GuestArm64):
    """The bundled guest with injected errors: it must hear of every one that it cannot be spared."""

    RULES = Rules(latencies_ns=(0, 40 * US), faults=1)


class CodeUnderDma(Scenario):
    """Code that has run is replaced by a read from the disk, and runs again."""

    RULES = Rules(latencies_ns=(0, 40 * US))

    def build(self) -> Rig:
        image = self.directory / "disk.raw"
        # mov x0, #2; b .
        image.write_bytes(struct.pack("<2I", 0xD280_0040, 0x1400_0000).ljust(1 << 20, b"\0"))
        rig = Rig("virt-arm64", LOOP, [image], ram=16 << 20, format="raw")
        rig.machine.board.put(RAM + 0x11000, struct.pack("<2I", 0xD280_0020, 0x1400_0000))  # mov x0, #1; b .
        rig.machine.cpu.write_register("pc", RAM + 0x11000)
        rig.machine.run(max_instructions=100)
        return rig

    def act(self, rig: Rig) -> None:
        driver = Driver.__new__(Driver)
        driver.controller, driver.ram = rig.machine.board.controllers[0], rig.machine.board.ram.view
        driver.start()
        slot = driver.submit(0, 0, read=512, slot=0)
        # The buffer of slot 0 is where the code is.
        assert driver.BUFFERS + slot * 0x4000 + 0x1000 == RAM + 0x11000
        driver.put(RAM + 0x11000, struct.pack("<2I", 0xD280_0020, 0x1400_0000))
        driver.notify()
        driver.wait_all(rig)
        rig.machine.cpu.write_register("pc", RAM + 0x11000)
        rig.machine.run(max_instructions=100)
        found = rig.machine.cpu.read_register("x0")
        assert found == 2, f"the code that was overwritten ran again (x0 = {found})"
