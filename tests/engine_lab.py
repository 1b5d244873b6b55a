"""Builders for the tests of the whole engine: images in memory, random changes beside a model, qemu's view of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2kdisk.aio import Scheduler
from e2kdisk.block.memory import MemoryNode
from e2kdisk.errors import ImageError
from e2kdisk.qcow2.create import CreateOptions, format_file
from e2kdisk.qcow2.image import Qcow2Image
from tests import oracles
from tests.qcow2_model import LabFile, open_image, read_all

KEY = "sesame"


def new_image(size: int, **options: Any) -> LabFile:
    """An empty image in memory, with CreateOptions."""
    scheduler = Scheduler()
    file = LabFile(scheduler)
    scheduler.run(format_file(file, CreateOptions(size, **options)))
    return file


def below(scheduler: Scheduler, data: bytes | None) -> MemoryNode | None:
    """A backing file in memory."""
    if data is None:
        return None
    node = MemoryNode(scheduler, len(data))
    node.data[:] = data
    return node


def put(image: Any, offset: int, data: bytes) -> None:
    image.scheduler.run(image.write(offset, [memoryview(data)]))


def get(image: Any, offset: int, length: int) -> bytes:
    data = bytearray(length)
    image.scheduler.run(image.read(offset, [memoryview(data)]))
    return bytes(data)


def reopened(data: bytes | bytearray, backing: bytes | None = None, **extras: Any) -> Any:
    """The image in these bytes, opened for writing (which repairs it, if it was left open)."""
    file = LabFile(Scheduler(), data)
    return open_image(file, below(file.scheduler, backing), **extras)


def noise(dice: random.Random, length: int) -> bytes:
    """Bytes that differ from sector to sector, cheaply; some compress, some do not."""
    if dice.random() < 0.5:
        return (dice.randbytes(3) * 171)[:512] * (length // 512) + bytes(length % 512)
    return dice.randbytes(length)


KINDS = ("write", "write", "write", "zeroes", "unmap", "discard", "flush", "compressed", "snapshot", "apply", "delete")


class Mirror:
    """An open image and what it should read as; changes both at random."""

    def __init__(self, image: Qcow2Image, model: bytearray, dice: random.Random) -> None:
        self.image = image
        self.model = model
        self.dice = dice
        self.snapshots: dict[str, bytes] = {}

    def change(self, count: int, kinds: Sequence[str] = KINDS) -> None:
        for _ in range(count):
            self.one(self.dice.choice(kinds))

    def one(self, kind: str) -> None:
        image, dice, model = self.image, self.dice, self.model
        run, cluster = image.scheduler.run, image.geometry.cluster_size
        offset = dice.randrange(len(model) // 512) * 512
        length = min(dice.choice([512, cluster, 3 * cluster, cluster // 2 + 512]) & -512 or 512, len(model) - offset)
        if kind == "write":
            data = noise(dice, length)
            put(image, offset, data)
            model[offset : offset + length] = data
        elif kind in ("zeroes", "unmap"):
            run(image.write_zeroes(offset, length, unmap=kind == "unmap"))
            model[offset : offset + length] = bytes(length)
        elif kind == "discard":
            run(image.discard(offset, length))
            found = get(image, offset, length)
            for at in range(0, length, 512):
                part = found[at : at + 512]
                assert part == bytes(512) or part == model[offset + at : offset + at + 512], "discarded, but not zeros"
            model[offset : offset + length] = found
        elif kind == "flush":
            run(image.flush())
        elif kind == "compressed":
            if image.cipher is None:
                offset -= offset % cluster
                length = min(cluster * dice.choice([1, 2]), len(model) - offset)
                data = noise(dice, length)
                run(image.write_compressed(offset, [memoryview(data)]))
                model[offset : offset + length] = data
        elif kind == "grow":
            self.resize(len(model) + dice.choice([512, cluster, 5 * cluster + 512]))
        elif kind == "shrink":
            self.resize(max(512, len(model) - dice.choice([512, cluster, 5 * cluster + 512])))
        else:
            self._snapshot(kind)

    def resize(self, size: int) -> None:
        if self.image.header.version < 3 and self.snapshots:
            return
        self.image.scheduler.run(self.image.truncate(size))
        self.model[size:] = bytes(max(0, size - len(self.model)))

    def _snapshot(self, kind: str) -> None:
        run, snapshots = self.image.scheduler.run, self.image.snapshots
        try:
            if kind == "snapshot" and len(self.snapshots) < 4:
                name = f"s{self.dice.randrange(10**9)}"
                run(snapshots.create(name))
                self.snapshots[name] = bytes(self.model)
            elif kind == "apply" and self.snapshots:
                name = self.dice.choice(sorted(self.snapshots))
                if len(self.snapshots[name]) == len(self.model) or self.image.header.version >= 3:
                    run(snapshots.apply(name))
                    self.model[:] = self.snapshots[name]
            elif kind == "delete" and self.snapshots:
                name = self.dice.choice(sorted(self.snapshots))
                run(snapshots.delete(name))
                del self.snapshots[name]
        except ImageError as error:
            if "does not fit in" not in str(error):  # narrow refcounts hold few snapshots
                raise

    def compare(self) -> None:
        assert read_all(self.image) == self.model


def qemu_reads(path: Path, *, key: str | None = None, snapshot: str | None = None) -> bytes:
    """What qemu-img finds in an image."""
    raw = path.with_suffix(".out")
    chosen = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    oracles.qemu_img("convert", "-O", "raw", *chosen, *oracles.source(path, key=key), raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def qemu_writes(path: Path, *commands: str, key: str | None = None) -> None:
    """Run qemu-io commands on an image."""
    *options, place = oracles.source(path, key=key)
    arguments = [argument for command in commands for argument in ("-c", command)]
    done = oracles.run("qemu-io", *options, *arguments, place)
    assert "failed" not in done.stdout, done.stdout
