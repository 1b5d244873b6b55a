"""What we write qemu reads and finds clean; what qemu writes we read, change and leave clean: every kind of image."""

import random
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.check import check
from tests import oracles
from tests.engine_lab import KEY, Mirror, new_image, noise, qemu_reads, qemu_writes

pytestmark = pytest.mark.needs("qemu-utils")


class Kind(NamedTuple):
    version: int
    cluster_size: int
    refcount_bits: int
    feature: str

    def __str__(self) -> str:
        return f"v{self.version}-{self.cluster_size}-{self.refcount_bits}-{self.feature}"

    @property
    def exists(self) -> bool:
        """The format has it: version 2 has 16-bit refcounts and nothing lazy; a shared cluster's count is above 1."""
        if self.version == 2 and (self.refcount_bits != 16 or self.feature == "lazy"):
            return False
        return not (self.refcount_bits == 1 and self.feature == "snapshots")

    @property
    def size(self) -> int:
        return max(128 << 10, 5 * self.cluster_size) + 512


FEATURES = ("plain", "backing", "snapshots", "compressed", "aes", "lazy")
ALL = [
    kind
    for kind in (Kind(*parts) for parts in product((2, 3), (512, 4096, 65536, 2 << 20), (1, 8, 16, 64), FEATURES))
    if kind.exists
]
BASIC = ("write", "write", "zeroes", "unmap", "discard", "flush")
CHANGES = {
    "snapshots": (*BASIC, "snapshot", "apply", "delete"),
    "compressed": (*BASIC, "compressed", "compressed"),
}


class Subject:
    """An image of one kind beside its model, seen by us and by qemu in turn."""

    def __init__(self, kind: Kind, place: Path) -> None:
        self.kind = kind
        self.dice = random.Random(str(kind))
        self.path = place / "disk.qcow2"
        self.key = KEY if kind.feature == "aes" else None
        self.model = bytearray(kind.size)
        self.snapshots: dict[str, bytes] = {}
        self.backing: dict[str, Any] = {}
        if kind.feature == "backing":
            base = noise(self.dice, kind.size // 2 & -512)
            (place / "base.raw").write_bytes(base)
            self.model[: len(base)] = base
            self.backing = {"backing_file": "base.raw", "backing_format": "raw"}

    def make_ours(self) -> None:
        kind = self.kind
        lazy = {"lazy_refcounts": True} if kind.feature == "lazy" else {}
        encrypted = {"encrypted": True} if self.key else {}
        options = {"version": kind.version, "cluster_size": kind.cluster_size, "refcount_bits": kind.refcount_bits}
        self.path.write_bytes(new_image(kind.size, **options, **self.backing, **lazy, **encrypted).data)

    def make_theirs(self) -> None:
        kind = self.kind
        options: list[str] = []
        if self.key:
            options += ["--object", f"secret,id=key,data={KEY}", "-o", "encrypt.format=aes,encrypt.key-secret=key"]
        if self.backing:
            options += ["-b", "base.raw", "-F", "raw"]
        if kind.feature == "lazy":
            options += ["-o", "lazy_refcounts=on"]
        compat = {2: "0.10", 3: "1.1"}[kind.version]
        form = f"compat={compat},cluster_size={kind.cluster_size},refcount_bits={kind.refcount_bits}"
        if kind.feature == "compressed":
            raw = self.path.with_suffix(".raw")
            self.model[:] = b"".join(noise(self.dice, kind.size // 8 & -512) for _ in range(8)).ljust(kind.size, b"\0")
            raw.write_bytes(self.model)
            oracles.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", form, raw, self.path)
        else:
            oracles.qemu_img("create", "-q", "-f", "qcow2", *options, "-o", form, self.path, kind.size)

    def we_change_it(self, count: int = 40) -> None:
        extras = {"key": self.key} if self.key else {}
        with open_disk(self.path, **extras) as disk:
            mirror = Mirror(disk.node, self.model, self.dice)  # type: ignore[arg-type]
            mirror.snapshots = self.snapshots
            mirror.compare()
            mirror.change(count, CHANGES.get(self.kind.feature, BASIC))
            mirror.compare()
        result = check(self.path)
        assert result.clean, result.problems

    def they_change_it(self) -> None:
        commands = []
        for _ in range(8):
            offset = self.dice.randrange(len(self.model) // 512) * 512
            length = min(self.dice.choice([512, self.kind.cluster_size, 20 << 10]), len(self.model) - offset)
            tag = self.dice.randrange(1, 256)
            commands.append(f"write -P {tag} {offset} {length}")
            self.model[offset : offset + length] = bytes([tag]) * length
        qemu_writes(self.path, *commands, key=self.key)
        if self.kind.feature == "snapshots":
            oracles.qemu_img("snapshot", "-c", "theirs", self.path)
            self.snapshots["theirs"] = bytes(self.model)

    def they_agree(self) -> None:
        oracles.assert_clean(self.path, key=self.key)
        assert qemu_reads(self.path, key=self.key) == self.model
        for name, content in self.snapshots.items():
            assert qemu_reads(self.path, snapshot=name) == content, name


def both_directions(kind: Kind, place: Path) -> None:
    for maker in ("ours", "theirs"):
        here = place / maker
        here.mkdir()
        subject = Subject(kind, here)
        if maker == "ours":
            subject.make_ours()
        else:
            subject.make_theirs()
            subject.they_change_it()
        subject.we_change_it()
        subject.they_agree()
        subject.they_change_it()
        subject.we_change_it(10)
        subject.they_agree()


@pytest.mark.parametrize("kind", ALL[::7], ids=str)
def test_a_sample_of_images_goes_back_and_forth_between_us_and_qemu(kind: Kind, tmp_path: Path) -> None:
    both_directions(kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL, ids=str)
def test_every_kind_of_image_goes_back_and_forth_between_us_and_qemu(kind: Kind, tmp_path: Path) -> None:
    both_directions(kind, tmp_path)
