"""CPU per request through the block API against `qemu-img bench`, both sides in one run; prints ratios.

    python tests/bench/bench_block.py [--requests 200000]

Ratios above 1 mean that e2kdisk needs less CPU. `qemu-img bench` steps through the image; the same steps are
made here, and random ones besides. QEMU's figure is the best of its aio modes that this host supports. Both
sides are paired run by run, and the median ratio is printed, because shared machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.create import create

IMAGE_BYTES = 512 << 20
AIO_MODES = ("threads", "native", "io_uring")


def children_cpu() -> float:
    """User and system seconds of all finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def qemu_bench(image: Path, aio: str, size: int, requests: int, *, write: bool) -> float | None:
    """CPU microseconds per request of qemu-img bench, None if it cannot run in this mode."""
    command = ["qemu-img", "bench", "-f", "qcow2", "-t", "writeback", "-i", aio, "-d", "64"]
    command += ["-s", str(size), "-S", str(size), "-c", str(requests)] + (["-w"] if write else []) + [str(image)]
    before = children_cpu()
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    return (children_cpu() - before) / requests * 1e6


def our_bench(image: Path, size: int, offsets: list[int], *, write: bool) -> float:
    """CPU microseconds per request through Disk, each stepped on this stack as a controller does it."""
    data = memoryview(bytearray(size))
    iov = [data]
    errors: list[BaseException] = []

    def then(_result: object, error: BaseException | None) -> None:
        if error is not None:
            errors.append(error)

    with open_disk(image, format="qcow2") as disk:
        start = disk.scheduler.start
        request = disk.write if write else disk.read
        before = time.process_time()
        for offset in offsets:
            start(request(offset, iov), then)
        disk.scheduler.drain()
        spent = time.process_time() - before
    if errors:
        raise errors[0]
    return spent / len(offsets) * 1e6


def make_image(path: Path) -> None:
    """An image whose clusters are all allocated and in the page cache."""
    create(path, IMAGE_BYTES)
    with open_disk(path, format="qcow2") as disk:
        chunk = os.urandom(1 << 20)
        for offset in range(0, IMAGE_BYTES, len(chunk)):
            disk.pwrite(offset, chunk)


def main() -> int:
    """Run all cases and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000, help="4 KiB requests per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where the image is made; a real file system")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        image = Path(folder) / "bench.qcow2"
        make_image(image)
        print(f"{'case':<24} {'QEMU us':>9} {'aio':>9} {'ours us':>9} {'random us':>10} {'ratio':>7}")
        for name, size, write in (
            ("4 KiB cached read", 4096, False),
            ("64 KiB cached read", 65536, False),
            ("4 KiB overwrite", 4096, True),
        ):
            requests = arguments.requests * 4096 // size if not write else arguments.requests // 4
            steps = [index * size % IMAGE_BYTES for index in range(requests)]
            scattered = [random.randrange(IMAGE_BYTES // size) * size for _ in range(requests)]
            rows: list[tuple[float, float, str, float, float]] = []
            for _ in range(arguments.runs):
                measured = [(qemu_bench(image, aio, size, requests, write=write), aio) for aio in AIO_MODES]
                theirs, aio = min((cpu, aio) for cpu, aio in measured if cpu is not None)
                ours = our_bench(image, size, steps, write=write)
                rows.append((theirs / ours, theirs, aio, ours, our_bench(image, size, scattered, write=write)))
            rows.sort()
            _, theirs, aio, ours, apart = rows[len(rows) // 2]
            ratio = statistics.median(row[0] for row in rows)
            print(f"{name:<24} {theirs:9.2f} {aio:>9} {ours:9.2f} {apart:10.2f} {ratio:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
