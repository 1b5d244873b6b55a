"""Promises about a guest whose emulator dies: what it has flushed is on the disk, and the image leaks at most."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2kdisk.block.open import open_disk
from e2kdisk.qcow2.create import create
from tests.guest_pattern import options_sector, sector_pattern, sector_round
from tests.oracles import assert_clean, qemu_img

FIRST, SECTORS, SEED = 64, 2048, 5


@pytest.mark.guest
@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("board", ["virt-arm64", "virt-riscv64"])
@pytest.mark.parametrize("cluster_size", [512, 65536])
def test_after_kill_9_every_flushed_round_is_on_the_disk(tmp_path: Path, board: str, cluster_size: int) -> None:
    image = tmp_path / "disk.qcow2"
    create(image, 8 << 20, cluster_size=cluster_size)
    with open_disk(image, format="qcow2") as disk:
        disk.pwrite(0, options_sector(mode="write", rounds=0, first=FIRST, sectors=SECTORS, seed=SEED))
    command = [sys.executable, "-m", "e2kdisk", "run", "--board", board, "--bios", "demo", "--drive", f"file={image}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        flushed = 0
        for line in process.stdout:
            if line.startswith(b"flushed "):
                flushed = int(line.split()[1])
                if flushed == 3:
                    break
        assert flushed == 3, "the guest ended before it was killed"
        time.sleep(random.random() * 0.1)  # anywhere in the rounds that follow
        process.kill()
        flushed += process.stdout.read().count(b"\nflushed ")
    assert_clean(image, allow_leaks=True)
    # Judged by qemu-img's reading of the image, not by ours.
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, tmp_path / "disk.raw")
    data = (tmp_path / "disk.raw").read_bytes()
    for sector in range(FIRST, FIRST + SECTORS):
        content = data[sector * 512 : sector * 512 + 512]
        found = sector_round(content)
        assert found >= flushed, f"sector {sector} holds round {found}, but round {flushed} was flushed"
        assert content == sector_pattern(sector, found, SEED)
