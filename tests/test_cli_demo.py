"""e2kdisk demo: what a newcomer runs first works on every board, says so, and says so when it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.tools import demo, demo_elbrus, demo_scene, demo_virt, main
from tests.guest_pattern import sector_pattern

pytestmark = pytest.mark.guest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "PYTHONIOENCODING": "utf-8"}
SMALL = ["--size", "2M"]
VIRT = ["--board", "virt-arm64", "--size", "1M"]


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Call `call(*arguments) -> (status, output, errors)` of e2kdisk demo, in the test's own directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = main.main(["demo", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize("board", ["virt-arm64", "virt-riscv64"])
@pytest.mark.parametrize("virtio", [1, 2])
def test_the_guest_passes_and_each_step_has_its_numbers(call, board, virtio):
    status, output, errors = call("--size", "1M", "--board", board, "--virtio", virtio)
    assert (status, errors) == (0, "")
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    for line in (
        rf"e2kdisk guest: cpu {board.removeprefix('virt-')}",
        rf"slot 0 at 0x[0-9a-f]+, virtio-mmio version {virtio}",
        r"PASS$",
        r"guest store +[\d,]+ to the controller, as: (str|sw|c\.sw) ",
        r"cpu +[\d,]+ instructions, [\d.]+ MIPS",
        r"bus +[\d,]+ register accesses",
        r"register +.*QueueNotify \d+",
        r"ring +[\d,]+ requests in \d+ batches",
        r"OUT +[\d,]+ +1,015,808 bytes to the disk",
        r"IN +[\d,]+ +1,016,320 bytes to the guest",
        r"FLUSH +1$",
        r"Disk +992 KiB read, 992 KiB written",
        r"qcow2 +16 of 16 clusters of 64 KiB",
        r"file +.*pwritev.*fdatasync",
        r"[\d,]+ requests/s, [\d.]+ MB/s",
        r"0x[0-9a-f]{8} (ldr|lwu|c\.lw|lw) .* MagicValue +-> 0x74726976",
        r"e2kdisk check +ok  the image is consistent",
    ):
        assert re.search(line, output, re.MULTILINE), line


def test_elbrus_firmware_boots_a_kernel_and_each_step_has_its_numbers(call):
    status, output, errors = call(*SMALL)
    assert (status, errors) == (0, "")
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    for line in (
        r"board +elbrus: ",
        r"controller +PCI IDE 1fff:800b",
        r"disk +.*qcow2, 2 MiB",
        r"boot: kernel /image-demo, \d+ bytes at 0x00400000$",
        r"kernel: command line: console=ttyS0,115200 root=/dev/hda2 demo$",
        r"kernel: initrd 0x\w+\+0x00020000 checksum [0-9a-f]{16}$",
        r"kernel: done$",
        r"guest store +[\d,]+ to the controller, as: \{ stb,2,io ",
        r"cpu +[\d,]+ instructions, [\d.]+ MIPS",
        r"register +primary Data [\d,]+",
        r"task file +\d+ commands",
        r"IDENTIFY DEVICE +1$",
        r"request +READ SECTOR\(S\) +\d+ +[\d,]+ bytes to the guest$",
        r"Disk +\d+ KiB read, 0 B written",
        r"file +.*preadv",
        r"[\d,]+ requests/s, [\d.]+ MB/s",
        r"0x1[0-9a-f]{8} Status/Command <- 0xec\n +\{ stb,2,io r2 -> \[r8 \+ 7\]; ct ctpr3 \}$",
        r"0x1[0-9a-f]{8} Data -> 0x\w+\n +\{ ldh,0,io \[r8\] -> r10; .*ldh,2,io ",
        r"e2kdisk check +ok  the image is consistent",
    ):
        assert re.search(line, output, re.MULTILINE), line


def test_a_kernel_that_reads_something_else_fails_the_demo(call, monkeypatch):
    monkeypatch.setattr(demo_elbrus, "checksum", lambda data: 0)
    status, output, errors = call(*SMALL)
    assert (status, errors) == (1, "e2kdisk: demo: the guest says something else than 'checksum 0000000000000000'\n")
    assert "guest          NO  something else" in output


def test_an_elbrus_firmware_that_complains_is_quoted(call, monkeypatch):
    monkeypatch.setattr(demo_elbrus, "CONF", "default=demo\nlabel=demo\nimage=/none\n")
    status, _, errors = call(*SMALL)
    assert (status, errors) == (1, "e2kdisk: demo: the guest says boot: /none: no such file\n")


def test_quiet_says_only_whether_it_worked(call):
    assert call(*SMALL, "-q") == (0, "e2kdisk demo: PASS\n", "")


def test_the_image_is_kept_where_the_user_wants_it_and_holds_the_pattern(call, tmp_path, assert_clean):
    status, output, _ = call(*VIRT, "--keep", "my disk.qcow2")
    assert status == 0
    assert "--bios demo --drive 'my disk.qcow2'" in output
    assert_clean(tmp_path / "my disk.qcow2")
    from e2kdisk import open_disk

    with open_disk(tmp_path / "my disk.qcow2", read_only=True) as disk:
        assert disk.pread(100 * 512, 512) == sector_pattern(100, 1, 1)


def test_a_kept_elbrus_disk_boots_again_by_hand(call, tmp_path, assert_clean):
    assert call(*SMALL, "-q", "--keep", "disk.qcow2") == (0, "e2kdisk demo: PASS\n", "")
    (tmp_path / "script").write_text("expect kernel: done\n")
    command = ["run", "--board", "elbrus", "--bios", "demo", "--drive", "disk.qcow2", "--script", "script"]
    assert main.main(command) == 0
    assert_clean(tmp_path / "disk.qcow2")


def test_without_keep_nothing_is_left_behind(call, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    assert call(*SMALL, "-q")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_exists_is_never_replaced(call, tmp_path):
    (tmp_path / "precious").write_text("data")
    status, _, errors = call("--keep", "precious")
    assert status == 1
    assert errors == "e2kdisk: precious: exists already, and the demo makes a new image; choose another name\n"
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--board", "virt-arm"], "unknown board 'virt-arm'; did you mean 'virt-arm64'? known are virt-arm64, "),
        (["--size", "1M"], "--size=1 MiB: the demo on elbrus needs 2 MiB"),
        (["--size", "1K"], "--size=1K: at least 1 MiB is needed"),
        (["--size", "big"], "--size=big: not a size"),
        (["--virtio", "3"], "argument --virtio: invalid choice: 3"),
        (["--keep", "no/where.qcow2"], "no/where.qcow2: No such file or directory"),
    ],
)
def test_wrong_arguments(call, arguments, line):
    status, output, errors = call(*arguments)
    assert (status, output) == (1, "")
    assert errors.startswith(f"e2kdisk: {line}")
    assert errors.count("\n") == 1


def test_a_guest_that_fails_is_shown_and_fails_the_demo(call, monkeypatch):
    monkeypatch.setattr(demo_virt, "FIRST_SECTOR", 5000)  # the area has no length then
    status, output, errors = call(*VIRT)
    assert status == 1
    assert errors.startswith("e2kdisk: demo: the guest says FAIL: sector 0: ")
    assert "guest          NO  FAIL: " in output


@pytest.mark.parametrize("arguments", [SMALL, VIRT])
def test_a_guest_that_crashes_fails_the_demo(call, monkeypatch, arguments):
    monkeypatch.setattr(demo_scene, "load_bios", lambda board, name: b"\xff" * 64)
    status, _, errors = call(*arguments)
    assert status == 1
    assert errors.startswith("e2kdisk: demo: the guest says nothing: ")
    assert errors.count("\n") == 1


def test_a_damaged_image_fails_the_demo(call, monkeypatch):
    from e2kdisk.qcow2 import check

    def damaged(image):
        result = check.CheckResult(image, total_clusters=64)
        result.corrupt("cluster 0x5: refcount 0 but 1 references")
        return result

    monkeypatch.setattr(check, "check", damaged)
    status, output, errors = call(*SMALL)
    assert status == 1
    assert (
        errors == "e2kdisk: demo: the image has 1 corruptions and 0 leaks: cluster 0x5: refcount 0 but 1 references\n"
    )
    assert "e2kdisk check  NO" in output


def test_without_qemu_img_it_says_how_to_get_it(call, monkeypatch):
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    status, output, _ = call(*SMALL)
    assert status == 0
    assert "qemu-img check not installed (Debian: apt-get install qemu-utils)" in output


def test_in_a_pipe_it_is_plain_text_and_any_encoding_will_do():
    done = subprocess.run(
        [sys.executable, "-m", "e2kdisk", "demo", *SMALL],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "TERM": "xterm"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert done.stdout.isascii()
    assert b"| kernel: done" in done.stdout
