"""Image locks: one writer or many readers, agreed with QEMU in both directions."""

import fcntl
import os
import signal
import subprocess
import time

import pytest

from e2kdisk.block import open_disk
from e2kdisk.errors import ImageError
from tests import oracles

formats = pytest.mark.parametrize("format", ["raw", "qcow2"])


class QemuIo:
    """A qemu-io that holds an image open, with a prompt that answers."""

    def __init__(self, image, *options):
        oracles.require("qemu-utils")
        command = [oracles.find_program("qemu-io"), *options, str(image)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self):
        # The answer to a command says that the image is open.
        self.process.stdin.write("length\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert "1 MiB" in line, line
        return self

    def __exit__(self, *exc):
        self.process.communicate("quit\n", timeout=20)


def byte_locks(path):
    """The lock bytes that anybody holds on a file, from the kernel's table."""
    inode = os.stat(path).st_ino
    held = set()
    with open("/proc/locks") as table:
        for line in table:
            fields = line.split()
            if fields[1] == "OFDLCK" and fields[5].endswith(f":{inode}"):
                held |= set(range(int(fields[6]), int(fields[7]) + 1))
    return held


@formats
def test_qemu_refuses_an_image_that_we_have_open_for_writing(make_image, qemu_img, qemu_io, format):
    image = make_image("1M", format=format)
    with open_disk(image, format=format):
        said = qemu_img("info", "-f", format, image, check=False)
        if format == "qcow2":
            assert 'Failed to get shared "write" lock' in said
        assert 'Failed to get "write" lock' in qemu_io(image, "write 0 512", format=format, check=False)
        qemu_img("info", "-U", "-f", format, image)
    qemu_img("info", "-f", format, image)
    qemu_io(image, "write 0 512", format=format)


@formats
def test_we_refuse_an_image_that_qemu_has_open_for_writing(make_image, format):
    image = make_image("1M", format=format)
    with QemuIo(image, "-f", format):
        for read_only in (False, True):
            with pytest.raises(ImageError) as caught:
                open_disk(image, format=format, read_only=read_only)
            assert str(caught.value).startswith(f"{image}: locked: somebody ")
            assert str(caught.value).endswith("close it there first, or read it anyway with force_share")
        open_disk(image, format=format, read_only=True, force_share=True).close()
    open_disk(image, format=format).close()


@formats
def test_readers_of_both_sides_share_an_image(make_image, qemu_img, format):
    image = make_image("1M", format=format)
    with (
        QemuIo(image, "-r", "-f", format),
        open_disk(image, format=format, read_only=True),
        open_disk(image, format=format, read_only=True),
    ):
        qemu_img("info", "-f", format, image)


def test_a_writer_is_kept_out_by_qemus_reader(make_image):
    image = make_image("1M")
    with QemuIo(image, "-r", "-f", "qcow2"), pytest.raises(ImageError, match="does not allow others to write"):
        open_disk(image)


@formats
@pytest.mark.parametrize("read_only", [False, True])
def test_the_bytes_are_those_that_qemu_locks_for_a_qcow2_image(make_image, format, read_only):
    oracle = make_image("1M")
    with QemuIo(oracle, *(("-r",) if read_only else ()), "-f", "qcow2"):
        expected = byte_locks(oracle)
    image = make_image("1M", format=format)
    with open_disk(image, format=format, read_only=read_only):
        assert byte_locks(image) == expected
    assert byte_locks(image) == set()


def test_two_opens_in_one_process_exclude_each_other(make_image):
    image = make_image("1M")
    with open_disk(image):
        for read_only in (False, True):
            with pytest.raises(ImageError, match="locked"):
                open_disk(image, read_only=read_only)
    with open_disk(image, read_only=True), pytest.raises(ImageError, match="locked"):
        open_disk(image)


def test_overlays_share_a_backing_file_while_nobody_writes_to_it(make_image):
    base = make_image("1M", name="base.qcow2")
    overlays = [make_image(backing=base, name=f"overlay{number}.qcow2") for number in range(2)]
    with open_disk(overlays[0]), open_disk(overlays[1]):
        with pytest.raises(ImageError, match="locked"):
            open_disk(base)
        with open_disk(base, read_only=True):
            pass
    with open_disk(base), pytest.raises(ImageError, match=r"overlay0\.qcow2: backing file .*base\.qcow2: locked"):
        open_disk(overlays[0])


def test_qemu_nbd_keeps_us_out(make_image, tmp_path):
    image = make_image("1M")
    socket, pid_file = tmp_path / "socket", tmp_path / "pid"
    # It returns when its child serves: the socket alone exists before the image is open.
    oracles.run("qemu-nbd", "--fork", "--pid-file", pid_file, "-k", socket, "-f", "qcow2", image)
    try:
        with pytest.raises(ImageError, match="locked"):
            open_disk(image)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        try:
            open_disk(image).close()
            break
        except ImageError:
            assert time.monotonic() < deadline, "the lock has survived its holder"
            time.sleep(0.01)


def test_a_file_system_without_such_locks_is_used_without(make_image, monkeypatch):
    image = make_image("1M")

    def no_locks(*_args):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    open_disk(image, format="qcow2").close()


def test_sharing_by_force_is_only_for_reading(make_image):
    with pytest.raises(Exception, match="force_share needs read_only"):
        open_disk(make_image("1M"), force_share=True)
