"""Image maps: what each cluster of a qcow2 file is, and what each cluster of the guest's disk is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from e2kdisk.block.node import Node
from e2kdisk.errors import E2kDiskError
from e2kdisk.lab.aftermath import Content
from e2kdisk.lab.pages import Pages
from e2kdisk.qcow2.check_kernel import PythonKernel
from e2kdisk.qcow2.check_walk import Walk
from e2kdisk.qcow2.header import Header
from e2kdisk.qcow2.header_file import read_header

MOST_CLUSTERS = 1 << 18
"""Of a file or disk that is mapped: a page about more would be no picture any more."""
MOST_RAW_BYTES = 256 << 20
"""Of a raw file, all of which is read."""
MOST_CELLS = 4096
"""Of one map: of more clusters, several share a cell."""

KINDS = {
    "h": "header",
    "1": "L1 table",
    "2": "L2 table",
    "t": "refcount table",
    "b": "refcount block",
    "s": "snapshots, bitmaps, keys",
    "c": "compressed data",
    "d": "data",
    "z": "zeros",
    "l": "leaked",
    "!": "in use, but counted wrong",
    ".": "free",
}
"""By the letters of a map; where clusters share a cell, the first of these wins, but for the two bad ones."""

RANK = {
    letter: number for number, letter in enumerate("!l" + "".join(letter for letter in KINDS if letter not in "!l"))
}

STRUCTURES = (
    ("L2 table", "2"),
    ("active L1 table", "1"),
    ("refcount block", "b"),
    ("refcount table", "t"),
    ("compressed cluster", "c"),
    ("header", "h"),
)
"""What the walk of a check calls what it counts; the first that is in its words. Everything else is "s"."""


@dataclass(slots=True)
class FileMap:
    """One state of one image."""

    cluster: int
    """Bytes."""
    file: str = ""
    """A letter for each cluster of the file."""
    guest: str = ""
    hosts: list[int] = field(default_factory=list)
    """Where each cluster of the guest's disk is in the file, -1 for nowhere; bytes."""
    trouble: str = ""
    """Why there is no more of it."""


class _MapWalk(Walk):
    """The walk of a check that remembers what it has met where."""

    def __init__(self, file: Node, header: Header) -> None:
        super().__init__(file, header, PythonKernel)
        self.kinds: dict[int, str] = {}

    def count(self, offset: int, length: int, what: str) -> bool:
        """Walk.count."""
        if not super().count(offset, length, what):
            return False
        kind = next((letter for words, letter in STRUCTURES if words in what), "s")
        for cluster in range(offset >> self.geometry.cluster_bits, -(-(offset + length) >> self.geometry.cluster_bits)):
            self.kinds[cluster] = kind
        return True

    def letters(self) -> str:
        """Each cluster's."""
        return "".join(self._letter(cluster, count) for cluster, count in self._counts())

    def _counts(self) -> list[tuple[int, int]]:
        return list(enumerate(self.kernel.references_of(0, self.clusters)))

    def _letter(self, cluster: int, references: int) -> str:
        counted = self.kernel.refcount(cluster)
        if counted < references:
            return "!"
        if not references:
            return "l" if counted else "."
        return self.kinds.get(cluster, "d")


def map_of(pages: Pages, content: Content) -> FileMap:
    """Map one state of an image; what cannot be read is said in `trouble`."""
    if pages.read(0, 4) != b"QFI\xfb":
        return _raw_map(pages)
    found = FileMap(1 << 16)
    try:
        content.scheduler.run(_walk(content.file, found))
        _guest_view(content, found)
    except (E2kDiskError, OSError) as error:
        found.trouble = str(error)
    return found


async def _walk(file: Node, found: FileMap) -> None:
    header = await read_header(file)
    found.cluster = 1 << header.cluster_bits
    header.check_limits(file.name, file.size, refcounts=False)
    if max(file.size, header.size) >> header.cluster_bits > MOST_CLUSTERS:
        found.trouble = f"it has more than {MOST_CLUSTERS} clusters, so there is no map of it"
        return
    walk = _MapWalk(file, header)
    await walk.count_everything_but_refcounts()
    await walk.count_refcounts()
    found.file = walk.letters()


def _guest_view(content: Content, found: FileMap) -> None:
    if found.trouble:
        return
    letters, hosts, offset = [], [], 0
    size = content.size
    while offset < size:
        status = content.status(offset, size - offset)
        letter = "c" if status.compressed else "z" if status.zero else "d" if status.allocated else "."
        if status.zero and not status.allocated:
            letter = "."
        for step in range(0, max(status.length, 1), found.cluster):
            letters.append(letter)
            hosts.append(-1 if status.host_offset is None else status.host_offset + step)
        offset += max(status.length, 1)
    found.guest, found.hosts = "".join(letters), hosts


def _raw_map(pages: Pages) -> FileMap:
    """A raw file is its disk: what is not zero is data."""
    cluster = 4096
    if pages.size > MOST_RAW_BYTES:
        return FileMap(cluster, trouble=f"it has more than {MOST_RAW_BYTES >> 20} MiB, so there is no map of it")
    while pages.size // cluster > MOST_CELLS:
        cluster *= 2
    letters = "".join(
        "d" if any(pages.read(offset, min(cluster, pages.size - offset))) else "."
        for offset in range(0, pages.size, cluster)
    )
    return FileMap(cluster, letters, letters, list(range(0, pages.size, cluster)))


def changed(before: Pages, after: Pages, cluster: int) -> list[int]:
    """Numbers of the clusters whose bytes are not the same in both; those that only one has count as changed."""
    found = set()
    for start, end in after.differences(before):
        for number in range(start // cluster, -(-end // cluster)):
            if number not in found and _cluster(before, number, cluster) != _cluster(after, number, cluster):
                found.add(number)
    small, large = sorted(-(-pages.size // cluster) for pages in (before, after))
    found.update(range(small, min(large, MOST_CLUSTERS)))
    return sorted(found)


def _cluster(pages: Pages, number: int, cluster: int) -> bytes:
    start = number * cluster
    return pages.read(start, max(0, min(cluster, pages.size - start)))


def cells(letters: str, per_cell: int) -> str:
    """The letters of a map whose cells stand for several clusters each: what matters most in each."""
    if per_cell == 1:
        return letters
    rank = partial(min, key=RANK.__getitem__)
    return "".join(rank(letters[first : first + per_cell]) for first in range(0, len(letters), per_cell))
