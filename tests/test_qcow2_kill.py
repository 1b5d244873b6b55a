"""kill -9 in the middle of writes: everything flushed is there, and the image has leaks at most."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.block import open_disk
from tests import oracles
from tests.qcow2_model import pattern, tags_of

pytestmark = pytest.mark.needs("qemu-utils")

GRANULE = 4096
TOTAL = 2048
ROUND = 12

WRITER = """
import sys
from e2kdisk.block import open_disk
from tests.test_qcow2_kill import ROUND, work_of, GRANULE
from tests.qcow2_model import pattern

disk = open_disk(sys.argv[1], format="qcow2", engine=sys.argv[2], l2_cache_size=1)
seed = int(sys.argv[3])
number = 0
while True:
    requests = []
    for kind, first, count, tag in work_of(seed, number):
        if kind == "write":
            data = memoryview(pattern(tag, first, count, GRANULE))
            request = disk.write(first * GRANULE, [data])
        elif kind == "zero":
            request = disk.write_zeroes(first * GRANULE, count * GRANULE)
        else:
            request = disk.discard(first * GRANULE, count * GRANULE)
        disk.scheduler.start(request)
        number += 1
        if number % ROUND == 0:
            disk.scheduler.drain()
            disk.sync()
            print("flushed", number, flush=True)
            break
"""


def work_of(seed: int, number: int) -> list[tuple[str, int, int, int]]:
    """The requests of one round, from request `number` on; those of a round do not overlap."""
    requests = []
    dice = random.Random(seed * 100_000 + number // ROUND)
    places = dice.sample(range(0, TOTAL, 32), ROUND)
    for index, place in enumerate(places):
        kind = dice.choice(["write", "write", "write", "zero", "discard"])
        first = place + dice.randrange(8)
        requests.append((kind, first, dice.choice([1, 3, 20]), 10 + number // ROUND * ROUND + index))
    return requests[number % ROUND :]


def run_and_kill(path: Path, seed: int, engine: str, after: int) -> int:
    """Kill a writer that has said "flushed" `after` times; returns how many requests were flushed for sure."""
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), engine, str(seed)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    flushed = 0
    with process:
        for count, line in enumerate(process.stdout, 1):
            flushed = int(line.split()[1])
            if count == after:
                process.send_signal(signal.SIGKILL)
        # What it said between the last line that we waited for and its death counts too: the loop has read it.
    assert process.returncode == -signal.SIGKILL
    return flushed


def judge(path: Path, seed: int, flushed: int, base: list[int]) -> None:
    oracles.assert_clean(path, allow_leaks=True)
    may = [{tag} for tag in base]
    for number in range(0, flushed, ROUND):
        for kind, first, count, tag in work_of(seed, number):
            for place in range(first, first + count):
                may[place] = {tag} if kind == "write" else {0} if kind == "zero" else may[place] | {0}
    # The round that was not flushed: done or not, each granule.
    for kind, first, count, tag in work_of(seed, flushed):
        for place in range(first, first + count):
            may[place] |= {tag if kind == "write" else 0}
    with open_disk(path, format="qcow2", read_only=True) as disk:
        found = tags_of(disk.pread(0, TOTAL * GRANULE), 0, GRANULE)
    wrong = [(place, tag, may[place]) for place, tag in enumerate(found) if tag not in may[place]]
    assert not wrong, wrong[:5]


KINDS = [(512, "auto"), (4096, "threads"), (65536, "threads")]


@pytest.mark.parametrize(("cluster_size", "engine"), KINDS)
@pytest.mark.parametrize("overlay", [False, True], ids=["alone", "over a backing file"])
def test_what_was_flushed_survives_kill_9(cluster_size: int, engine: str, overlay: bool, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    options = {}
    base = [0] * TOTAL
    if overlay:
        below = tmp_path / "base.raw"
        below.write_bytes(pattern(5, 0, TOTAL - 100, GRANULE))
        base = [5] * (TOTAL - 100) + [0] * 100
        options = {"backing": below.name, "backing_format": "raw"}
    oracles.create_image(path, TOTAL * GRANULE, cluster_size=cluster_size, **options)
    flushed = run_and_kill(path, cluster_size, engine, after=6)
    assert flushed >= 6 * ROUND
    judge(path, cluster_size, flushed, base)
    # And it can be written again.
    with open_disk(path, format="qcow2") as disk:
        disk.pwrite(0, bytes(4096))
    oracles.assert_clean(path, allow_leaks=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 41))
def test_what_was_flushed_survives_many_kills(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    oracles.create_image(path, TOTAL * GRANULE, cluster_size=512 << seed % 8)
    flushed = run_and_kill(path, seed, "threads" if seed % 2 else "auto", after=seed)
    judge(path, seed, flushed, [0] * TOTAL)
