#!/usr/bin/env python3
"""How fast the Elbrus board reads its disk, and how fast its e2k CPU is.

    python tests/bench/bench_elbrus.py [--rounds 5] [--mib 64] [--pio-mib 8]

An arm64 guest on the board reads the beginning of a qcow2 image by PIO, by bus-master DMA (polled, and asleep until
the interrupt) and by virtio-pci; beside it U-Boot under QEMU reads the same sectors of the same image by virtio-mmio
(less a run that only boots). Both read many times in a row, so that waiting for the next command counts little.
Medians; QEMU's CPU time is that of its process, ours that of ours. The checksums of all ways must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from e2kdisk import Machine
from tests.bench import bench_e2k
from tests.bench.bench_uboot import run_qemu, steps
from tests.elbrus_reader import READER, command
from tests.uboot import build_golden

READS = 20
"""In one measurement; PIO is read once."""
PROGRAMS = {"ALU": bench_e2k.ALU, "copy": bench_e2k.COPY, "poll": bench_e2k.POLL, "calls": bench_e2k.CALLS}


def measure_way(machine: Machine, way: str, mib: int, rounds: int) -> tuple[float, float, str]:
    """Wall and CPU seconds of a read, medians; its checksum."""
    walls, cpus = [], []
    reads = 1 if way == "pio" else READS
    for _ in range(rounds):
        command(machine, f"clear {mib}")
        wall, cpu = time.perf_counter(), time.process_time()
        machine.console.send(f"{way} {mib}\n" * reads)
        machine.console.expect(rf"( done\s+> ){{{reads}}}", timeout=600)
        walls.append((time.perf_counter() - wall) / reads)
        cpus.append((time.process_time() - cpu) / reads)
    return statistics.median(walls), statistics.median(cpus), command(machine, f"sum {mib}").split()[0]


def measure_qemu(image: Path, mib: int, rounds: int) -> tuple[float, float]:
    """Wall and CPU seconds of a read by U-Boot under QEMU, medians."""
    read = f"virtio read {{address:#x}} 0 {mib << 11:#x}"
    walls, cpus = [], []
    for _ in range(rounds):
        seconds = []
        for reads in (0, READS):
            start = time.perf_counter()
            seconds.append((run_qemu("arm64", image, steps("arm64", reads, read)), time.perf_counter() - start))
        (boot_cpu, boot_wall), (cpu, wall) = seconds
        cpus.append((cpu - boot_cpu) / READS)
        walls.append((wall - boot_wall) / READS)
    return statistics.median(walls), statistics.median(cpus)


def main() -> int:
    """Print the tables; 1 if two ways to read do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=64, help="how much is read (default 64)")
    parser.add_argument("--pio-mib", type=int, default=8, help="how much by PIO (default 8)")
    options = parser.parse_args()
    sums: dict[int, set[str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        image = build_golden(Path(directory)).qcow2
        print(f"{'reading a qcow2 image':34} {'MiB':>4} {'MB/s':>8} {'CPU ms per 64 MiB':>18}")
        for clock in ("virtual", "host"):
            drives = [f"file={image},readonly=on,if={kind}" for kind in ("ide", "virtio")]
            with Machine("elbrus", cpu="arm64", bios=READER, drives=drives, clock=clock) as machine:
                machine.console.expect("> ")
                for way in ("pio", "dma", "irq", "virtio"):
                    mib = options.pio_mib if way == "pio" else options.mib
                    wall, cpu, found = measure_way(machine, way, mib, options.rounds)
                    sums.setdefault(mib, set()).add(found)
                    if way == "pio":
                        command(machine, f"dma {mib}")
                        sums[mib].add(command(machine, f"sum {mib}").split()[0])
                    report(f"elbrus, {way}, {clock} clock", mib, wall, cpu)
        report("QEMU, U-Boot, virtio-mmio", options.mib, *measure_qemu(image, options.mib, options.rounds))
    equal = all(len(found) == 1 for found in sums.values())
    print("checksums: " + ("equal" if equal else f"DIFFER: {sums}"))
    print(f"\ne2k: wide instructions per second of CPU (aim: {bench_e2k.AIM:,})")
    for name, program in PROGRAMS.items():
        print(f"{name:34} {bench_e2k.measure(program, 1.0):12,.0f}")
    return not equal


def report(what: str, mib: int, wall: float, cpu: float) -> None:
    """One line."""
    print(f"{what:34} {mib:4} {(mib << 20) / 1e6 / wall:8.1f} {cpu * 1e3 * 64 / mib:18.1f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
