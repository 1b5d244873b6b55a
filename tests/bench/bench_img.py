"""e2kdisk-img against qemu-img, whole commands, both sides in one run; prints ratios, above 1 where e2kdisk needs less.

    python tests/bench/bench_img.py [--quick] [--dir /tmp] [--only convert-c]

plain           raw to qcow2 and back: random data without zeros, and data of which half is zeros or holes
fragmented      an image whose clusters lie in random order, to raw
packed          convert -c of the files of this machine; the sizes of both results besides
compare         a raw image with its qcow2 copy; three times as many rounds, as they are short

qemu-img runs with each set of options that may be its best, and the one with the best median counts, for wall and for
CPU time each. Sides are paired round by round, the median ratios are printed. Before each run its sources are read,
so that they are in the page cache, and as much memory is used and freed as its target will take: a virtual machine
gives free memory back to its host, and whoever asks for it again pays ten times the copying.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_engine import CLUSTER, Cost, command, mapped_image

ROOT = Path(__file__).resolve().parent.parent.parent
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from e2kdisk.tools.img.main import script; script()"
OURS = (sys.executable, "-I", "-c", START)
QEMU_SETS: tuple[tuple[str, ...], ...] = (("-m", "8"), ("-W", "-m", "16"), ("-C", "-W", "-m", "16"), ("-T", "none"))
MEBI = 1 << 20


class Line(NamedTuple):
    """One line of the table: two commands and what their results are held to."""

    name: str
    words: tuple[str, ...]
    """What both sides are given, before the file names."""
    names: tuple[Path, ...]
    sets: tuple[tuple[str, ...], ...]
    """The option sets for qemu-img; ours has none."""
    goal: str
    target: Path | None = None
    """Made anew by each run."""


def source_of(place: Path, size: int) -> Path:
    """A raw image of random bytes: nothing to compress, no zeros to find."""
    path = place / "random.raw"
    dice = random.Random(1)
    with path.open("wb") as file:
        for _ in range(size // MEBI):
            file.write(dice.randbytes(MEBI))
    return path


def sparse_source(place: Path, size: int) -> Path:
    """A raw image as file systems leave them: a quarter holes, a quarter zeros that are stored, the rest data."""
    path = place / "sparse.raw"
    dice = random.Random(2)
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(size // MEBI):
            piece = dice.randbytes(MEBI // 2)
            if number % 2:
                file.seek(number * MEBI)
                file.write(bytes(MEBI // 2) + piece)
            else:
                file.seek(number * MEBI + MEBI // 2)
                file.write(piece)
    return path


def files_source(place: Path, size: int) -> Path:
    """A raw image of what disks are full of: programs, libraries, texts of this machine, in blocks of 4 KiB."""
    path = place / "files.raw"
    roots = (Path("/usr/bin"), Path("/usr/lib"), Path("/usr/share"), Path("/usr/include"))
    files = [found for root in roots for found in sorted(root.rglob("*")) if found.is_file() and not found.is_symlink()]
    random.Random(4).shuffle(files)
    with path.open("wb") as target:
        for found in files:
            if found.stat().st_size <= 16 * MEBI:
                data = found.read_bytes()
                target.write(data + bytes(-len(data) % 4096))
            if target.tell() >= size:
                break
        target.truncate(size)
    return path


def sources_source(place: Path, size: int) -> Path:
    """A raw image of Python sources: text alone is where a fast compressor is furthest from zlib."""
    path = place / "sources.raw"
    with path.open("wb") as target:
        for found in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
            target.write(found.read_bytes())
        whole = min(target.tell(), size)
        target.truncate(whole - whole % CLUSTER)
    return path


def lines(place: Path, size: int) -> Iterator[Line]:
    """The table; each source is made when its first line is reached and dropped after its last."""
    for kind, make in (("random data", source_of), ("half zeros", sparse_source)):
        raw = make(place, size)
        image = place / "source.qcow2"
        command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
        target = place / "target"
        to_qcow2 = ("convert", "-f", "raw", "-O", "qcow2")
        to_raw = ("convert", "-f", "qcow2", "-O", "raw")
        yield Line(f"plain: raw to qcow2, {kind}", to_qcow2, (raw, target), QEMU_SETS, ">= 1x", target)
        yield Line(f"plain: qcow2 to raw, {kind}", to_raw, (image, target), QEMU_SETS, ">= 1x", target)
        compare = ("compare", "-f", "raw", "-F", "qcow2")
        yield Line(f"compare: raw with qcow2, {kind}", compare, (raw, image), ((), ("-T", "none")), ">= 1x")
        raw.unlink()
        image.unlink()
    path, target = place / "fragmented.qcow2", place / "target"
    mapped_image(path, size // CLUSTER, scattered=True, data=random.Random(3).randbytes(CLUSTER))
    words = ("convert", "-f", "qcow2", "-O", "raw")
    yield Line("fragmented: qcow2 to raw", words, (path, target), QEMU_SETS, ">= 1.3x", target)
    path.unlink()
    words = ("convert", "-c", "-f", "raw", "-O", "qcow2")
    sets = ((), ("-m", "16"), ("-W", "-m", "16"))
    for name, make in (("installed files", files_source), ("Python sources only", sources_source)):
        raw = make(place, size // 4)
        yield Line(f"packed: convert -c, {name}", words, (raw, target), sets, "wall >= 5x, size <= 1.07", target)
        raw.unlink()


def fill(path: Path, size: int) -> None:
    """Write so many bytes."""
    with path.open("wb", 0) as file:
        for _ in range(size // MEBI):
            file.write(bytes(MEBI))


def read_through(path: Path) -> None:
    """Read a file to its end."""
    buffer = bytearray(MEBI)
    with path.open("rb", 0) as file:
        while file.readinto(buffer):
            pass


def rounds(line: Line, count: int) -> None:
    """Measure one line and print it."""
    sizes = {"qemu": 0, "ours": 0}

    room = sum(path.stat().st_size for path in line.names if path.exists()) if line.target is not None else 0

    def once(side: str, program: tuple[str, ...], extra: tuple[str, ...]) -> Cost:
        if line.target is not None:
            line.target.unlink(missing_ok=True)
            fill(line.target, room)
            line.target.unlink()
        for path in line.names:
            if path != line.target:
                read_through(path)
        cost = command(*program, line.words[0], *extra, *line.words[1:], *line.names)
        if line.target is not None:
            sizes[side] = line.target.stat().st_size
        return cost

    theirs: list[list[Cost]] = [[] for _ in line.sets]
    ours: list[Cost] = []
    runs = [("qemu", ("qemu-img",), extra, costs) for extra, costs in zip(line.sets, theirs, strict=True)]
    runs.append(("ours", OURS, (), ours))
    for number in range(count):
        # Whoever comes later finds more of the page cache waiting to be written: each comes last in turn.
        for side, program, extra, costs in runs[number % len(runs) :] + runs[: number % len(runs)]:
            costs.append(once(side, program, extra))
    text = [f"{line.name:44}"]
    for field in ("wall", "cpu"):
        mine = [getattr(cost, field) for cost in ours]
        sides = [[getattr(cost, field) for cost in costs] for costs in theirs]
        best = min(range(len(sides)), key=lambda number: statistics.median(sides[number]))
        ratio = statistics.median(left / right for left, right in zip(sides[best], mine, strict=True))
        options = " ".join(line.sets[best]) or "no options"
        text.append(
            f"{field} {ratio:5.2f}x ({statistics.median(sides[best]):.3f} s {options}; {statistics.median(mine):.3f} s)"
        )
    if "-c" in line.words:
        text.append(f"size {sizes['ours'] / sizes['qemu']:.3f}")
    print("  ".join(text), f"  goal: {line.goal}", flush=True)
    check_result(line)


def check_result(line: Line) -> None:
    """A fast copy that is wrong counts for nothing."""
    if line.target is not None:
        command("qemu-img", "compare", "-f", line.words[-3], "-F", line.words[-1], line.names[0], line.target)
        line.target.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller images, three rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where to put the images (up to 4 GiB used)")
    parser.add_argument("--only", default="", help="lines whose name begins so")
    options = parser.parse_args()
    size = (256 if options.quick else 1024) * MEBI
    count = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        for line in lines(Path(name), size):
            if line.name.startswith(options.only):
                rounds(line, count if line.target is not None else 3 * count)


if __name__ == "__main__":
    main()
