"""The qcow2 engine against qemu-img, both sides in one run; prints ratios, above 1 where e2kdisk needs less.

    python tests/bench/bench_engine.py [--quick] [--dir /tmp]

check           an image of 1M clusters, scattered over the file or in order: whole commands, and without our start
allocating      4 KiB writes into an empty image, CPU of `qemu-img bench -w` and of the same steps here
fragmented      sequential read of an image whose clusters lie in random order; 2 MiB requests (qemu-img bench)
AES             the whole of an encrypted image, CPU against `qemu-img convert` to nowhere
compressed      the whole of a compressed image with two threads, wall time: programs, and words that hardly compress

Sides are paired run by run; the median ratio is printed, because shared machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.check import check
from e2kdisk.qcow2.compression import inflater
from e2kdisk.qcow2.create import create

CLUSTER = 65536
COPIED = 1 << 63
KEY = "benchmark"


class Cost(NamedTuple):
    wall: float
    cpu: float


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command(*arguments: object) -> Cost:
    """Run a program to its end."""
    before, began = children_cpu(), time.perf_counter()
    done = subprocess.run([str(part) for part in arguments], capture_output=True, text=True, check=False)
    cost = Cost(time.perf_counter() - began, children_cpu() - before)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return cost


def inside(function: Callable[[], None]) -> Cost:
    """Run something of ours in this process."""
    cpu, began = time.process_time(), time.perf_counter()
    function()
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


def compare(name: str, theirs: Callable[[], Cost], ours: Callable[[], Cost], runs: int, goal: str) -> None:
    pairs = [(theirs(), ours()) for _ in range(runs)]
    wall = statistics.median(left.wall / right.wall for left, right in pairs)
    cpu = statistics.median(left.cpu / right.cpu for left, right in pairs)
    left, right = pairs[len(pairs) // 2]
    print(
        f"{name:34} wall {wall:6.2f}x  CPU {cpu:6.2f}x   qemu {left.wall:7.3f} s / {left.cpu:7.3f} s, "
        f"ours {right.wall:7.3f} s / {right.cpu:7.3f} s   goal: {goal}",
        flush=True,
    )


def big_endian(values: array[int]) -> bytes:
    copy = array(values.typecode, values)
    if sys.byteorder == "little":
        copy.byteswap()
    return copy.tobytes()


def mapped_image(path: Path, clusters: int, *, scattered: bool, data: bytes | None = None) -> None:
    """A sparse image whose clusters are all allocated, in order or shuffled; only the metadata is written.

    | header | refcount table | refcount blocks | L1 | L2 tables | data: holes, or every cluster the same bytes |
    """
    entries = CLUSTER // 8
    tables = -(-clusters // entries)
    l1_clusters = -(-tables * 8 // CLUSTER)
    blocks = 1
    while blocks * (CLUSTER // 2) < 2 + blocks + l1_clusters + tables + clusters:
        blocks += 1
    l1 = 2 + blocks
    l2 = l1 + l1_clusters
    first = l2 + tables
    total = first + clusters
    places = list(range(first, total))
    if scattered:
        random.Random(1).shuffle(places)
    with open(path, "wb") as file:
        file.truncate(total * CLUSTER)
        head = (0x514649FB, 3, 0, 0, 16, clusters * CLUSTER, 0, tables, l1 * CLUSTER, CLUSTER, 1, 0, 0)
        file.write(struct.pack(">IIQIIQIIQQIIQ", *head) + struct.pack(">QQQIIQ", 0, 0, 0, 4, 112, 0))
        file.seek(CLUSTER)
        file.write(big_endian(array("Q", [(2 + number) * CLUSTER for number in range(blocks)])))
        file.seek(2 * CLUSTER)
        file.write(big_endian(array("H", [1]) * total))
        file.seek(l1 * CLUSTER)
        file.write(big_endian(array("Q", [COPIED | (l2 + number) * CLUSTER for number in range(tables)])))
        file.seek(l2 * CLUSTER)
        file.write(big_endian(array("Q", [COPIED | place * CLUSTER for place in places])))
        if data is not None:
            file.seek(first * CLUSTER)
            for _ in range(clusters):
                file.write(data)


def bench_check(place: Path, clusters: int, runs: int) -> None:
    path = place / "check.qcow2"
    # What pip installs as e2kdisk-img and e2kdisk.
    img = (sys.executable, "-c", "from e2kdisk.tools.img.main import script; script()", "check", path)
    e2kdisk = (sys.executable, "-m", "e2kdisk", "check", path)

    def theirs() -> Cost:
        return command("qemu-img", "check", path)

    def compare_with(name: str, ours: Callable[[], Cost], goal: str) -> None:
        compare(name, theirs, ours, runs, goal)

    def here() -> Cost:
        return inside(lambda: None if check(path).clean else sys.exit("not clean"))

    mapped_image(path, 3000, scattered=True)
    for ours in (img, e2kdisk):
        command(*ours)  # compiles our modules, as pip does
    for order, scattered, goal in (("scattered", True, "wall >= 20x"), ("in order", False, "wall >= 1x")):
        mapped_image(path, clusters, scattered=scattered)
        compare_with(f"check, {clusters >> 10}Ki clusters {order}", lambda: command(*img), goal)
        if not scattered:
            compare_with("  the same, e2kdisk check", lambda: command(*e2kdisk), goal)
        compare_with("  the same, inside a process", here, goal)
    path.unlink()


def bench_allocating(place: Path, requests: int, runs: int) -> None:
    path = place / "write.qcow2"

    def fresh() -> Path:
        path.unlink(missing_ok=True)
        create(path, requests * 4096)
        return path

    def theirs() -> Cost:
        fresh()
        # -d 1 and threads: one request after the other, as a guest that waits for each.
        return command(
            "qemu-img", "bench", "-w", "-f", "qcow2", "-t", "writeback", "-d", "1", "-s", 4096, "-c", requests, path
        )

    def ours() -> Cost:
        fresh()
        data = memoryview(bytes(4096))

        def write() -> None:
            with open_disk(path, format="qcow2") as disk:
                for offset in range(0, requests * 4096, 4096):
                    disk.pwrite(offset, data)

        return inside(write)

    compare("allocating writes, 4 KiB in order", theirs, ours, runs, "CPU >= 0.67x")

    def theirs_spread() -> Cost:
        path.unlink(missing_ok=True)
        create(path, requests * CLUSTER)
        return command(
            *("qemu-img", "bench", "-w", "-f", "qcow2", "-t", "writeback", "-d", "1", "-s", 4096, "-S", CLUSTER),
            *("-c", requests // 4, path),
        )

    def ours_spread() -> Cost:
        path.unlink(missing_ok=True)
        create(path, requests * CLUSTER)
        data = memoryview(bytes(4096))

        def write() -> None:
            with open_disk(path, format="qcow2") as disk:
                for offset in range(0, requests // 4 * CLUSTER, CLUSTER):
                    disk.pwrite(offset, data)

        return inside(write)

    compare("allocating writes, 4 KiB each cluster", theirs_spread, ours_spread, runs, "CPU >= 0.67x")
    path.unlink()


def read_through(path: Path, request: int, *, key: str | None = None, engine: str = "auto") -> Callable[[], None]:
    def run() -> None:
        extras = {"key": key} if key else {}
        with open_disk(path, format="qcow2", read_only=True, engine=engine, **extras) as disk:
            view = memoryview(bytearray(request))
            for offset in range(0, disk.size, request):
                disk.scheduler.run(disk.node.read(offset, [view[: min(request, disk.size - offset)]]))

    return run


def bench_fragmented(place: Path, clusters: int, runs: int) -> None:
    path = place / "fragmented.qcow2"
    mapped_image(path, clusters, scattered=True, data=random.Random(2).randbytes(CLUSTER))
    request = 2 << 20

    def theirs() -> Cost:
        count = clusters * CLUSTER // request
        return command(
            "qemu-img", "bench", "-f", "qcow2", "-t", "writeback", "-d", "8", "-s", request, "-c", count, path
        )

    compare("fragmented read, 2 MiB requests", theirs, lambda: inside(read_through(path, request)), runs, ">= 1.4x")
    path.unlink()


def bench_aes(place: Path, size: int, runs: int) -> None:
    raw, path = place / "plain.raw", place / "aes.qcow2"
    raw.write_bytes(random.Random(3).randbytes(1 << 20) * (size >> 20))
    secret = ("--object", f"secret,id=key,data={KEY}")
    command(
        "qemu-img",
        "create",
        "-q",
        *secret,
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=aes,encrypt.key-secret=key",
        path,
        size,
    )
    target = f"driver=qcow2,file.filename={path},encrypt.key-secret=key"
    with open_disk(path, format="qcow2", key=KEY) as disk:
        data = memoryview(raw.read_bytes())
        for offset in range(0, size, 2 << 20):
            disk.pwrite(offset, data[offset : offset + (2 << 20)])
    raw.unlink()

    def theirs() -> Cost:
        nowhere = f"driver=raw,file.driver=null-co,file.size={size}"
        return command(*("qemu-img", "convert", "-n", *secret, "--image-opts", "--target-image-opts", target, nowhere))

    compare("AES, whole image read", theirs, lambda: inside(read_through(path, 2 << 20, key=KEY)), runs, "CPU >= 1.5x")
    path.unlink()


def random_words(size: int) -> bytes:
    """Text of words that are random bytes: deflate saves an eighth, most of it is literals."""
    dice = random.Random(4)
    words = [dice.randbytes(dice.randrange(3, 12)) for _ in range(3000)]
    return b" ".join(dice.choice(words) for _ in range(600_000))[: min(size, 4 << 20)]


def program_files(size: int) -> bytes:
    """What a disk of a system holds: the programs of this machine, each from a 4 KiB block on."""
    data = bytearray()
    for path in sorted(Path("/usr/bin").iterdir()):
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
            data += path.read_bytes()
            data += bytes(-len(data) % 4096)
        if len(data) >= size:
            break
    return bytes(data[:size])


def decompressor_alone(piece: bytes) -> float:
    """CPU seconds that the decompressor itself takes for a cluster: what no reader with it can go below."""
    packed = []
    for at in range(0, len(piece) - CLUSTER + 1, CLUSTER):
        deflate = zlib.compressobj(wbits=-12)
        raw = deflate.compress(piece[at : at + CLUSTER]) + deflate.flush()
        if len(raw) < CLUSTER:
            packed.append(memoryview(raw))
    inflate = inflater()

    def run() -> None:
        for raw in packed:
            inflate(raw, CLUSTER)

    return min(inside(run).cpu for _ in range(3)) / len(packed)


def bench_compressed(place: Path, size: int, runs: int) -> None:
    raw, path = place / "plain.raw", place / "packed.qcow2"
    for name, contents in (("programs", program_files), ("random words", random_words)):
        piece = contents(size)
        raw.write_bytes((piece * (size // len(piece) + 1))[:size])
        command("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
        raw.unlink()
        # qemu-img decompresses on threads of its own too: with one request in flight, and with many.
        for depth in (1, 8):
            compare(
                f"compressed {name}, qemu depth {depth}",
                lambda depth=depth: command(  # type: ignore[misc]
                    *("qemu-img", "bench", "-f", "qcow2", "-t", "writeback", "-d", depth),
                    *("-s", 2 << 20, "-c", size >> 21, path),
                ),
                lambda: inside(read_through(path, 2 << 20)),
                runs,
                "wall >= 2x with 2 threads",
            )
        # Both sides decompress on all cores, so that the ratio of wall times is bounded by that of CPU times.
        count = size // CLUSTER
        theirs = command("qemu-img", "bench", "-f", "qcow2", "-t", "writeback", "-s", CLUSTER, "-c", count, path).cpu
        ours = decompressor_alone(piece[: 16 << 20])
        print(
            f"  of {name} at most {theirs / count / ours:.2f}x can be had: a cluster costs qemu-img "
            f"{theirs / count * 1e6:.0f} us of CPU, the decompressor alone {ours * 1e6:.0f} us",
            flush=True,
        )
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller images, one run each")
    parser.add_argument("--dir", help="where to put the images (sparse, up to 1 GiB used)")
    options = parser.parse_args()
    runs = 1 if options.quick else 3
    small = 4 if options.quick else 1
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        place = Path(name)
        # An installed program has its bytecode; here it is beside the images.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(place / "bytecode")
        bench_check(place, (1 << 20) // small, runs)
        bench_allocating(place, 40_000 // small, runs)
        bench_fragmented(place, 8192 // small, runs)
        bench_aes(place, (256 << 20) // small, runs)
        bench_compressed(place, (256 << 20) // small, runs)


if __name__ == "__main__":
    main()
