"""CPU of legacy AES over a whole image against `qemu-img convert`, both sides in one run; prints ratios.

    python tests/bench/bench_crypto.py [--mib 256] [--runs 5]

Ratios above 1 mean that e2kdisk needs less CPU. Both sides start a process, read one file and write another:
qemu-img converts between a raw file and an AES image, we run the sector cipher between two raw files of the
same size (no qcow2 tables on our side; they are a percent of this work). Pairs of runs, the median ratio.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PASSWORD = "geheim"
CHUNK = 1 << 20

OURS = """
import os, sys
from e2kdisk.crypto.legacy import legacy_aes
direction, source, target, chunk = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
cipher = legacy_aes(b"geheim")
data = bytearray(chunk)
read, write = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
offset = 0
while os.preadv(read, [data], offset):
    if direction == "decrypt":
        cipher.decrypt(offset // 512, data)
        os.pwritev(write, [data], offset)
    else:
        os.pwritev(write, [cipher.encrypt(offset // 512, data)], offset)
    offset += chunk
"""


def cpu_of(*command: str) -> float:
    """User and system seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Run both directions and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where the files are made; a real file system")
    arguments = parser.parse_args()
    secret = ("--object", f"secret,id=s,data={PASSWORD}")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        plain, image, out = (str(Path(folder) / name) for name in ("plain", "aes.qcow2", "out"))
        with open(plain, "wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(CHUNK))
        options = ("-o", "encrypt.format=aes,encrypt.key-secret=s")
        encrypt = ("qemu-img", "convert", *secret, "-f", "raw", "-O", "qcow2", *options, plain, image)
        opened = f"driver=qcow2,file.filename={image},encrypt.key-secret=s"
        decrypt = ("qemu-img", "convert", *secret, "--image-opts", opened, "-O", "raw", out)
        print(f"{'direction':<10} {'QEMU s/GiB':>11} {'ours s/GiB':>11} {'ratio':>7}")
        for direction, theirs_command in (("encrypt", encrypt), ("decrypt", decrypt)):
            rows = []
            for _ in range(arguments.runs):
                theirs = cpu_of(*theirs_command)
                ours = cpu_of(sys.executable, "-c", OURS, direction, plain, out, str(CHUNK))
                rows.append((theirs / ours, theirs * 1024 / arguments.mib, ours * 1024 / arguments.mib))
            ratio = statistics.median(row[0] for row in rows)
            _, theirs, ours = min(rows, key=lambda row: abs(row[0] - ratio))
            print(f"{direction:<10} {theirs:11.2f} {ours:11.2f} {ratio:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
