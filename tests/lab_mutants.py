"""Deliberately broken copies of our own code, each with the scenario that must find it within so many seeds.

A mutant is a patch: one piece of source text and what stands in its place. It is applied to a copy of the package.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "e2kdisk"


@dataclass(frozen=True)
class Mutant:
    """One broken copy."""

    name: str
    file: str
    old: str
    new: str
    scenario: str
    finds: str
    """How the violation begins, or a piece of it."""
    rules: str = ""
    """The scenario's own if empty."""
    seeds: int = 40
    """Within so many it must be found."""

    def build(self, directory: Path) -> Path:
        """Make the broken copy; its package lies in the directory that is returned."""
        shutil.copytree(PACKAGE, directory / "e2kdisk")
        shutil.copytree(PACKAGE.parent / "firmware" / "images", directory / "firmware" / "images")
        path = directory / "e2kdisk" / self.file
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.name}: the text to replace is there {source.count(self.old)} times"
        path.write_text(source.replace(self.old, self.new))
        return directory


OWN = str(Path(__file__).with_name("lab_scenarios.py"))
INTERRUPTED = str(Path(__file__).with_name("lab_interruptions.py"))

MUTANTS = [
    # -- the controller ---------------------------------------------------------------------------
    Mutant(
        "a FLUSH returns before anything is durable",
        "devices/virtio/blk_commands.py",
        "    await device.disk.flush()\n    return OK",
        "    return OK",
        "guest-arm64",
        "FlushIsDurable",
    ),
    Mutant(
        "the used entry comes before the status",
        "devices/virtio/blk_request.py",
        "            self.status_view[0] = status\n            memory.written(self.status_address, self.status_view)\n",
        "",
        "guest-riscv64",
        "UsedOnce",
    ),
    Mutant(
        "an error of the disk is answered with success",
        "devices/virtio/blk.py",
        "        except (OSError, E2kDiskError):\n            return IOERR",
        "        except (OSError, E2kDiskError):\n            return 0",
        "guest-arm64",
        "",
        rules="faults",
    ),
    Mutant(
        "the interrupt is lost when the used index wraps",
        "devices/virtio/queue.py",
        "        return not self._read_avail(0)[0] & NO_INTERRUPT",
        "        return new > old and not self._read_avail(0)[0] & NO_INTERRUPT",
        f"{OWN}:IndexWraps",
        "without an interrupt",
    ),
    Mutant(
        "the available index is not taken modulo 65536",
        "devices/virtio/queue.py",
        "            self._next_avail = (position + 1) & 0xFFFF",
        "            self._next_avail = position + 1",
        f"{OWN}:IndexWraps",
        "",
    ),
    Mutant(
        "a reset does not wait for the data of requests in flight",
        "devices/virtio/device.py",
        "        for queue in self.queues:\n            self.stop_queue(queue)\n            queue.reset()",
        "        for queue in self.queues:\n            queue.in_flight.clear()\n            queue.reset()",
        f"{OWN}:ResetInFlight",
        "",
    ),
    Mutant(
        "no interrupt for requests that end later",
        "devices/virtio/device.py",
        "        queue.push(chain.head, written)\n        if not self._serving:\n            self._publish(queue)",
        "        queue.push(chain.head, written)",
        "guest-arm64",
        "",
    ),
    Mutant(
        "a request is given back twice",
        "devices/virtio/queue.py",
        "        self._write_element(4 + 8 * position, head, written)\n        self._pending += 1",
        "        self._write_element(4 + 8 * position, head, written)\n"
        "        self._write_element(4 + 8 * (position + 1 & self._mask), head, written)\n        self._pending += 2",
        "guest-riscv64",
        "UsedOnce",
    ),
    Mutant(
        "translated code stays after a DMA",
        "machine/cpu/unicorn_base.py",
        "        if self._flat.active:\n            self._flat.invalidate(start, end)\n        else:\n"
        "            self._uc.ctl_remove_cache(start, end)",
        "        pass",
        f"{OWN}:CodeUnderDma",
        "ran again",
    ),
    # -- IDE --------------------------------------------------------------------------------------
    Mutant(
        "IDE interrupts before the data of a read is in memory",
        "devices/ata/device.py",
        "            transfer.segments = segments\n            self.begin(transfer.step)",
        "            transfer.segments = segments\n            self.begin(transfer.step)\n            self.interrupt()",
        f"{INTERRUPTED}:IdeInterrupted",
        "interrupted before",
    ),
    Mutant(
        "IDE completes a command after SRST has ended it",
        "devices/ata/channel.py",
        "                drive.cancel()\n                drive.status = BSY  # until SRST is cleared",
        "                drive.status = BSY  # until SRST is cleared",
        f"{INTERRUPTED}:IdeInterrupted",
        "AnsweredOnce",
    ),
    Mutant(
        "IDE presents a block by PIO after SRST has ended the command",
        "devices/ata/channel.py",
        "                drive.cancel()\n                drive.status = BSY  # until SRST is cleared",
        "                drive.status = BSY  # until SRST is cleared",
        f"{INTERRUPTED}:IdePioInterrupted",
        "",
    ),
    Mutant(
        "IDE goes on with a transfer whose START was cleared",
        "devices/ata/device.py",
        "        if self.step and STEPS[self.step].dma:\n            self._drain()",
        "        if self.step and STEPS[self.step].dma:\n            return\n            self._drain()",
        f"{INTERRUPTED}:IdeInterrupted",
        "memory was written after",
    ),
    # -- virtio over PCI --------------------------------------------------------------------------
    Mutant(
        "a message is lost while its vector is masked",
        "devices/pci/msix.py",
        "            if not control & MASKED:\n                self.pending &= ~bit\n                self._deliver",
        "            self.pending &= ~bit\n            if not control & MASKED:\n                self._deliver",
        f"{INTERRUPTED}:MaskedMessages",
        "a message was lost",
    ),
    Mutant(
        "a message that waits is not sent when the function is unmasked",
        "devices/pci/msix.py",
        "        self._on_control()\n        self._send_pending()",
        "        self._on_control()",
        f"{INTERRUPTED}:MaskedMessages",
        "a message was lost",
    ),
    # -- the machine ------------------------------------------------------------------------------
    Mutant(
        "a saved machine loses its requests in flight",
        "machine/state.py",
        '    machine.scheduler.drain()\n    return {\n        "version"',
        "    for controller in machine.board.controllers:\n"
        "        for queue in controller.device.queues:\n            queue.in_flight.clear()\n"
        '    return {\n        "version"',
        f"{OWN}:SavedInFlight",
        "",
    ),
    Mutant(
        "a restored machine shows its rings from the start",
        "devices/virtio/queue.py",
        '        self._next_avail = self._seen_avail = state["next_avail"]\n',
        "        self._next_avail = self._seen_avail = 0\n",
        f"{OWN}:SavedInFlight",
        "",
    ),
    # -- the format -------------------------------------------------------------------------------
    Mutant(
        "an allocation does not wait for one in flight in the same cluster",
        "qcow2/allocation.py",
        "        if not self.allocations:\n            return None\n        start",
        "        return None\n        start",
        f"{OWN}:OverBacking",
        "",
        rules="timing",
    ),
    Mutant(
        "refcounts are written after the tables that rely on them",
        "qcow2/write_order.py",
        "        for index, stage in enumerate(self._stages):\n            if stage is before:",
        "        for index, stage in enumerate(reversed(self._stages)):\n            if stage is before:",
        "guest-arm64",
        "image check",
        rules="power",
        seeds=200,
    ),
    Mutant(
        "no barrier between the stages of the metadata",
        "qcow2/write_order.py",
        "                if index > 0:\n                    await self.barrier()\n",
        "",
        "guest-riscv64",
        "image check",
        rules="power",
        seeds=400,
    ),
    Mutant(
        "copy on write forgets what precedes the data",
        "qcow2/cow.py",
        "        if before:\n            iov = before + iov\n",
        "",
        f"{OWN}:OverBacking",
        "",
    ),
    Mutant(
        "a cluster that a snapshot shows is overwritten",
        "qcow2/allocation.py",
        "    if entry & (layout.COPIED | layout.COMPRESSED | layout.ZERO) != layout.COPIED:\n        return False\n"
        "    return bool",
        "    if entry & (layout.COMPRESSED | layout.ZERO):\n        return False\n    return bool",
        f"{OWN}:SharedSnapshot",
        "",
    ),
    Mutant(
        "new clusters are linked before their data is written",
        "qcow2/image.py",
        "            await self._cow.write(claim, iov_slice(iov, skip, claim.length))\n"
        "            async with self.lock:\n                await self.allocator.link(claim)\n",
        "            async with self.lock:\n                await self.allocator.link(claim)\n"
        "            await self._cow.write(claim, iov_slice(iov, skip, claim.length))\n",
        f"{OWN}:OverBacking",
        "",
        rules="power",
        seeds=200,
    ),
    Mutant(
        "clusters that are in use are given back",
        "qcow2/allocation.py",
        "            if allocation.owned and not allocation.linked:",
        "            if allocation.owned:",
        "guest-arm64",
        "",
        rules="timing",
    ),
    Mutant(
        "without a write cache a write ends before it is durable",
        "block/disk.py",
        "            if fua or not self.write_cache:",
        "            if fua:",
        f"{OWN}:WriteThrough",
        "FlushIsDurable",
    ),
    Mutant(
        "what a DMA has written is not announced",
        "devices/virtio/device.py",
        "        self.memory.publish()\n",
        "",
        f"{OWN}:CodeUnderDma",
        "ran again",
    ),
]
