"""CPU per request through the virtio-blk ring, the driver's own cost excluded.

    python tests/bench/bench_virtio.py [--requests 100000] [--profile]

4 KiB IN and OUT requests over a disk in memory: register access, ring, request, Disk, completion, interrupt.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from e2kdisk.aio import Scheduler
from e2kdisk.block.disk import Disk
from e2kdisk.block.memory import MemoryNode
from tests.virtio_driver import IN, OUT, Driver

BLOCK = 4096
DISK_BYTES = 16 << 20


def prepare(depth: int, kind: int, *, indirect: bool, without: tuple[str, ...]) -> Driver:
    """A driver whose first `depth` chains stay as they are and are made available again and again."""
    disk = Disk(MemoryNode(Scheduler(), DISK_BYTES))
    driver = Driver(disk, trace=False, without=without, ram_size=4 << 20)
    data = bytes(BLOCK) if kind == OUT else b""
    for number in range(depth):
        driver.start(kind, 8 * number, data, BLOCK if kind == IN else 0, indirect=indirect)
    return driver


def measure(depth: int, kind: int, requests: int, *, indirect: bool = False, without: tuple[str, ...] = ()) -> float:
    """Microseconds of CPU per request; the median of a few runs."""
    runs = []
    for _ in range(5):
        driver = prepare(depth, kind, indirect=indirect, without=without)
        heads = list(driver.in_flight)
        write = driver.mmio.write
        event = driver.avail + 4 + 2 * driver.size
        write(0x050, 4, 0)
        total = 0
        clock = time.process_time_ns
        for _ in range(requests // 5 // depth):
            # The driver asks for an interrupt at the end of this batch, as a real one does.
            driver.poke16(event, driver.avail_index + depth - 1)
            for head in heads:
                driver.offer(head)
            before = clock()
            write(0x050, 4, 0)
            total += clock() - before
            write(0x064, 4, 1)
        assert driver.peek16(driver.used_ring + 2) == driver.avail_index
        assert not driver.broken
        runs.append(total / (requests // 5 // depth * depth) / 1000)
    return statistics.median(runs)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--profile", action="store_true", help="where the time goes, at depth 1")
    options = parser.parse_args()
    if options.profile:
        import cProfile

        cProfile.runctx("measure(1, IN, 100_000)", globals(), {}, sort="tottime")
        return 0
    before = time.process_time_ns()
    for _ in range(100_000):
        time.process_time_ns()
    clock_cost = (time.process_time_ns() - before) / 100_000 / 1000
    print(f"us of CPU per 4 KiB request (the clock itself: {clock_cost:.2f} us a batch, included)")
    for name, kind in (("IN", IN), ("OUT", OUT)):
        for depth in (1, 16):
            direct = measure(depth, kind, options.requests)
            indirect = measure(depth, kind, options.requests, indirect=True)
            plain = measure(depth, kind, options.requests, without=("EVENT_IDX",))
            print(
                f"{name:3} depth {depth:2}: direct {direct:5.2f}  indirect {indirect:5.2f}  no event index {plain:5.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
