"""Wide instructions per second of the e2k CPU, on programs like those that a firmware spends its time in.

python tests/bench/bench_e2k.py [--seconds 1]
"""

from __future__ import annotations

import argparse
import time

from tests.e2k_lab import DATA, Lab

AIM = 300_000
"""Wide instructions per second."""

ALU = """
    loop:
        { addd,0 r1, 1 -> r1; xord,1 r2, r1 -> r2; shld,2 r1, 3 -> r3; subs,3 r4, 1 -> r4; andd,4 r2, r3 -> r5 }
        { addd,0 r5, r6 -> r6; cmpedb,1 r1, 0 -> p0 }
        branch loop ? ~p0
"""
COPY = f"""
        addd 0, {DATA} -> r8
    again:
        {"{ addd 0, 0 -> r1; addd r8, 0 -> r2 }"}
    loop:
        ldd [r2] -> r3
        {"{ std r3 -> [r2 + 0x800]; addd r2, 8 -> r2; addd r1, 1 -> r1 }"}
        cmpesb r1, 64 -> p0
        branch loop ? ~p0
        branch again
"""
POLL = """
        addd 0, 0x80001000 -> r1
    loop:
        ldb [r1 + 7] -> r2
        andd r2, 0x88 -> r2
        cmpesb r2, 0x08 -> p0
        branch loop ? ~p0
"""
CALLS = """
    again:
        disp ctpr1, procedure
        { addd r1, 1 -> r8; call ctpr1, wbs=4 }
        branch again
    procedure:
        { setwd wsz=8; return ctpr3 }
        { addd r0, 1 -> r0; ct ctpr3 }
"""


class Busy:
    """A disk that is never ready."""

    base, size = 0x8000_1000, 0x1000

    def read(self, offset: int, size: int) -> int:
        """IoWindow.read."""
        return 0x80

    def write(self, offset: int, size: int, value: int) -> None:
        """IoWindow.write."""


def measure(program: str, seconds: float) -> float:
    """Wide instructions per second of CPU."""
    lab = Lab(program)
    lab.cpu.map_io(Busy())
    lab.cpu.run(10_000)
    total, start = 0, time.process_time()
    while (used := time.process_time() - start) < seconds:
        done, _ = lab.cpu.run(100_000)
        assert done == 100_000, lab.cpu.fault
        total += done
    return total / used


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program")
    options = parser.parse_args()
    print(f"wide instructions per second of CPU (aim: {AIM:,})")
    for name, program in (("ALU", ALU), ("copy", COPY), ("poll a register", POLL), ("calls", CALLS)):
        print(f"{name:16} {measure(program, options.seconds):12,.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
