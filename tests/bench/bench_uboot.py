"""CPU of a whole process that boots U-Boot and loads 64 MiB, against qemu-system (TCG); prints ratios.

    python tests/bench/bench_uboot.py [--rounds 5] [--loads 40] [--cpu arm64|riscv64]

Both sides run the same unmodified firmware from Debian with the same qcow2 image, once to the prompt and once on
through a number of `load` commands; user and system time of the processes, start included. One load is the difference,
divided by their number: one load alone is smaller than the noise of a process's start. Sides are paired round by round
and medians are printed, because shared machines are noisy. A ratio above 1 means that e2kdisk needs more.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests import oracles
from tests.uboot import BUILDS, build_golden

QEMU = {
    "arm64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"),
    "riscv64": ("qemu-system-riscv64", "-M", "virt"),
}
LIMIT = 120
"""Seconds until a silent QEMU is given up."""


def children_cpu() -> float:
    """User and system seconds of all finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def steps(cpu: str, loads: int, command: str = "load virtio 0:1 {address:#x} big.bin") -> list[tuple[str, str]]:
    """What to wait for and what to type then; the last wait ends the run."""
    load = command.format(address=BUILDS[cpu].load_address) + "\n"
    prompts = [("\n=> ", load)] * loads + [("\n=> ", "")]
    return [("Hit any key", "\n"), *prompts]


def run_qemu(cpu: str, image: Path, talk: list[tuple[str, str]]) -> float:
    """CPU seconds of one qemu-system process that does what steps() says."""
    command = [*QEMU[cpu], "-m", "256", "-nographic", "-nic", "none", "-monitor", "none", "-serial", "stdio"]
    command += ["-bios", str(oracles.uboot(BUILDS[cpu].name)), "-global", "virtio-mmio.force-legacy=false"]
    command += ["-drive", f"if=none,id=d,format=qcow2,file={image},readonly=on", "-device", "virtio-blk-device,drive=d"]
    before = children_cpu()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        output = b""
        for wanted, typed in talk:
            while wanted.encode() not in output:
                if not select.select([process.stdout], [], [], LIMIT)[0]:
                    process.kill()
                    raise RuntimeError(f"no {wanted!r} from QEMU: {output!r}")
                output += os.read(process.stdout.fileno(), 65536)
            output = b""
            process.stdin.write(typed.encode())
            process.stdin.flush()
        process.kill()
    return children_cpu() - before


OURS = """
import os, sys
from e2kdisk import Machine
board, bios, image, clock, *talk = sys.argv[1:]
with Machine(board, bios=bios, drives=[f"file={image},format=qcow2,readonly=on"], clock=clock) as machine:
    for wanted, typed in zip(talk[::2], talk[1::2]):
        machine.console.expect(wanted)
        machine.console.send(typed)
    os._exit(0)  # QEMU is killed at this point, too
"""


def run_ours(cpu: str, image: Path, loads: int, clock: str) -> float:
    """CPU seconds of one Python process that is nothing but our machine."""
    talk = [part for step in steps(cpu, loads) for part in step]
    command = [sys.executable, "-c", OURS, BUILDS[cpu].board, str(oracles.uboot(BUILDS[cpu].name)), str(image), clock]
    before = children_cpu()
    subprocess.run([*command, *talk], check=True, timeout=LIMIT, env=os.environ | {"PYTHONPATH": sys.path[0]})
    return children_cpu() - before


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", type=int, default=40)
    parser.add_argument("--cpu", choices=tuple(BUILDS), action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        image = build_golden(Path(directory)).qcow2
        print(f"{'CPU seconds, medians of ' + str(options.rounds):34} {'QEMU':>7} {'virtual':>16} {'host clock':>16}")
        for cpu in options.cpu or BUILDS:
            sides = {
                "qemu": lambda loads, cpu=cpu: run_qemu(cpu, image, steps(cpu, loads)),
                "virtual": lambda loads, cpu=cpu: run_ours(cpu, image, loads, "virtual"),
                "host": lambda loads, cpu=cpu: run_ours(cpu, image, loads, "host"),
            }
            boots: dict[str, list[float]] = {side: [] for side in sides}
            loads: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side, run in sides.items():
                    boot = run(0)
                    boots[side].append(boot)
                    loads[side].append((run(options.loads) - boot) / options.loads)
            report(f"{cpu}: boot to the prompt", boots)
            report(f"{cpu}: load 64 MiB", loads)


def report(what: str, seconds: dict[str, list[float]]) -> None:
    """One line: each side's median, and the median of the paired ratios."""
    line = f"{what:34} {statistics.median(seconds['qemu']):7.3f}"
    for side in ("virtual", "host"):
        ratio = statistics.median(a / b for a, b in zip(seconds[side], seconds["qemu"], strict=True))
        line += f" {statistics.median(seconds[side]):7.3f} ({ratio:5.2f}x)"
    print(line, flush=True)


if __name__ == "__main__":
    main()
