"""The Elbrus disk programs: what they read is what qemu-img put there, what they write is what it finds."""

import random

import pytest

from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.machine import StopReason
from tests import oracles
from tests.e2k_firmware import FIRMWARE, MIB, READ_COUNT, checksum, program, run, with_pattern

pytestmark = pytest.mark.guest
PROGRAMS = {"ide-pio": "ide", "ide-dma": "ide", "virtio": "virtio"}
NAMES = [*PROGRAMS, "boot", "kernel"]
CONTENT = random.Random(5).randbytes(MIB // 2) + bytes(MIB // 4) + b"e2k " * (MIB // 16)


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_what_its_source_assembles_to(name):
    source = FIRMWARE / "e2k" / f"{name}.s"
    assert assemble(source.read_text(), file=str(source)).code == program(name)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "content.raw"
    path.write_bytes(CONTENT)
    return path


def make(kind, raw, image):
    """An image that reads as CONTENT."""
    match kind:
        case "plain":
            oracles.qemu_img("convert", "-O", "qcow2", raw, image)
        case "backing":
            oracles.create_image(image, backing=raw, backing_format="raw", cluster_size=4096)
        case "compressed":
            oracles.qemu_img("convert", "-c", "-O", "qcow2", raw, image)
        case "snapshot":
            oracles.qemu_img("convert", "-O", "qcow2", "-o", "cluster_size=512", raw, image)
            oracles.qemu_img("snapshot", "-c", "before", image)
    return image


def read_back(image, *options):
    raw = image.with_suffix(".back")
    oracles.qemu_img("convert", "-O", "raw", *options, image, raw)
    return raw.read_bytes()


def assert_passed(done, name):
    assert done.reason is StopReason.POWER_OFF, (done.text, done.machine.fault)
    assert done.lines[0] == f"e2kdisk {name}"
    assert done.lines[-4:] == [
        f"read 0+128 checksum {checksum(CONTENT[: READ_COUNT * 512])}",
        "write 37+75",
        "verify 37+75",
        "PASS",
    ]


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("kind", ["plain", "backing", "compressed", "snapshot"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_data_is_the_hosts_on_every_kind_of_image(name, kind, raw, tmp_path, assert_clean):
    image = make(kind, raw, tmp_path / "disk.qcow2")
    assert_passed(run(program(name), image, interface=PROGRAMS[name]), name)
    assert read_back(image) == with_pattern(CONTENT)
    if kind == "snapshot":
        assert read_back(image, "-l", "snapshot.name=before") == CONTENT
    assert raw.read_bytes() == CONTENT
    assert_clean(image)


@pytest.mark.needs("qemu-utils")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PROGRAMS)
def test_completions_that_come_late_and_in_any_order_change_nothing(name, seed, raw, tmp_path, assert_clean):
    dice = random.Random(seed)
    image = make("backing", raw, tmp_path / "disk.qcow2")
    engines = []

    def engine(scheduler):
        engines.append(SimulatedEngine(scheduler, lambda pending: dice.randrange(len(pending))))
        return engines[0]

    assert_passed(run(program(name), image, interface=PROGRAMS[name], engine=engine), name)
    assert read_back(image) == with_pattern(CONTENT)
    assert_clean(image)


def test_the_identity_of_the_disk_is_printed(raw):
    assert run(program("ide-pio"), raw, format="raw").lines[1:3] == ["model E2KDISK HARDDISK", f"sectors {MIB // 512}"]


def test_bus_master_takes_the_controller_into_native_mode(raw):
    assert "ports native" in run(program("ide-dma"), raw, format="raw").lines


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_disk_that_is_too_small_is_said(name, tmp_path):
    (tmp_path / "small").write_bytes(bytes(64 * 512))
    done = run(program(name), tmp_path / "small", interface=PROGRAMS[name], format="raw")
    assert (done.lines[-1], done.reason) == ("FAIL: the disk is too small", StopReason.HALTED)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("ide-pio", "no IDE controller on the PCI bus"),
        ("ide-dma", "no IDE controller on the PCI bus"),
        ("virtio", "FAIL: no virtio-blk on the PCI bus"),
    ],
)
def test_the_wrong_controller_is_said(name, last, raw):
    other = "ide" if PROGRAMS[name] == "virtio" else "virtio"
    done = run(program(name), raw, interface=other, format="raw")
    assert (done.lines[-1], done.reason) == (last, StopReason.HALTED)
