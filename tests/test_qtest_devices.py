"""The same driver over qtest on our boards and on QEMU's: what it reads, hears and writes is the same."""

import random
import shutil

import pytest

from e2kdisk.devices.virtio.device import DRIVER_OK, FEATURES_OK
from tests.ata_driver import pattern
from tests.oracles import assert_clean, qemu_img
from tests.qtest_client import Qtest
from tests.qtest_driver import ARM, PCI_IRQ, RISCV, QtestDriver, elbrus_outl
from tests.qtest_lab import our_program
from tests.test_ata_differential import SCRIPTS, SECTORS, Script, on_qemu
from tests.test_virtio_pci_qemu import REQUESTS, SERIAL, request
from tests.virtio_driver import GET_ID, IN, OK, RAM_BASE
from tests.virtio_links import MsixLink

MACHINES = {
    "qemu-system-aarch64": (ARM, ["-cpu", "cortex-a53"]),
    "qemu-system-riscv64": (RISCV, []),
}
"""Program -> where its device is, options."""
MESSAGES_AT = RAM_BASE + (768 << 10)

pytestmark = [pytest.mark.needs("qemu-system-arm"), pytest.mark.needs("qemu-utils")]
generations = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])


@pytest.fixture
def images(make_image, qemu_io):
    first = make_image("8M", name="qemu.qcow2")
    qemu_io(first, "write -P 0x11 0 64k", "write -P 0x22 64k 1M", "write -P 0x33 4M 3000k")
    return first, shutil.copy(first, first.with_name("ours.qcow2"))


def start(name, program, image, *, legacy, transport):
    """A machine with one disk, and the driver of it."""
    device, more = f"virtio-blk-device,drive=d,serial={SERIAL}", []
    if transport == "pci":
        device = f"virtio-blk-pci,drive=d,serial={SERIAL},addr=4.0,disable-legacy=off,disable-modern=off"
    elif not legacy:
        more = ["-global", "virtio-mmio.force-legacy=false"]
    place, options = MACHINES[name]
    drive = f"id=d,if=none,file={image},format=qcow2,discard=unmap"
    options = [*options, "-m", "64", "-drive", drive, "-device", device, *more]
    qemu = Qtest("virt", *options, program=program)
    return QtestDriver(qemu, legacy=legacy, transport=transport, place=place)


def both(images, script, name="qemu-system-aarch64", **options):
    """What a script returns on each; they must be the same."""
    answers = []
    for program, image in zip((name, our_program(name)), images, strict=True):
        driver = start(name, program, image, **options)
        try:
            answers.append(script(driver))
        finally:
            driver.close()
    assert answers[1] == answers[0]
    return answers[1]


def mmio_request(driver, log, kind, sector=0, data=b"", length=0, **layout):
    """One request; what the driver sees of it."""
    pending = driver.start(kind, sector, data, length, **layout)
    driver.kick()
    driver.wait_used()
    seen = [driver.line(), driver.link.take_reasons(), driver.line(), driver.link.take_reasons()]
    driver.collect()
    result = driver.result(pending)
    data = result.data if kind != GET_ID else result.data.partition(b"\0")[0]
    log.append((kind, sector, result.status, data, result.used_length if result.status == OK else None, seen))


@pytest.mark.needs("qemu-system-misc")
@pytest.mark.parametrize("name", MACHINES)
@generations
def test_virtio_mmio_answers_the_same(images, legacy, name, monkeypatch):
    if name == "qemu-system-riscv64":
        monkeypatch.setattr("tests.virtio_driver.Driver.ram_base", 0x8000_0000)

    def script(driver):
        link = driver.link
        identity = [link.get(offset) for offset in (0x000, 0x004, 0x008)]
        driver.init()
        log = [identity, driver.features, driver.config(0, 8), driver.status, link.get(0x044), link.get(0x040)]
        for number, what in enumerate(REQUESTS):
            mmio_request(driver, log, *what, indirect=bool(number & 1))
        assert log[6][5] == [True, 1, False, 0]
        driver.set_status(0)
        log += [driver.status, link.get(0x060), driver.line(), driver.qemu.raised]
        return log

    log = both(images, script, name, legacy=legacy, transport="mmio")
    assert log[-1].count(MACHINES[name][0].wire) == len(REQUESTS)
    qemu_img("compare", *map(str, images))
    for image in images:
        assert_clean(image)


@generations
def test_virtio_pci_answers_the_same(images, legacy):
    def script(driver):
        link = driver.link
        driver.init()
        log = [driver.features, link.function.get(0), link.function.get(0x3D, 1), link.function.bars]
        for number, what in enumerate(REQUESTS[:6]):
            request(driver, log, *what, indirect=bool(number & 1))
        msix = MsixLink(link.function)
        msix.set_vector(1, MESSAGES_AT, 0xC0DE01)
        msix.control(enable=True)
        link.vectors = (0xFFFF, 1)
        driver.poke(MESSAGES_AT, bytes(8))
        driver.init()
        request(driver, log, IN, 1, b"", 512)
        log += [msix.vectors, driver.peek(MESSAGES_AT, 8), driver.qemu.raised]
        return log

    log = both(images, script, legacy=legacy, transport="pci")
    assert log[-2] == b"\x01\xde\xc0\0\0\0\0\0"
    assert log[-1].count(PCI_IRQ) == 6


REGISTERS = [0x00, 0x04, 0x08, 0x14, 0x20, 0x24, 0x30, 0x38, 0x3C, 0x40, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0x94]
REGISTERS += [0xA0, 0xA4, 0xFC, 0x100, 0x104, 0x108]
"""All but those that differ on purpose: features, vendor, queue size, QueueReady (ours stays 0 for a queue that cannot
be), GuestPageSize (QEMU takes any, and forgets where a queue was), the write cache in the configuration, and what is
behind its end. No requests are made."""
QUEUE_SEL, QUEUE_PFN, STATUS, NEEDS_RESET = 0x30, 0x40, 0x70, 0x40


@pytest.mark.slow
@generations
@pytest.mark.parametrize("seed", range(6))
def test_registers_of_virtio_mmio_read_the_same_after_any_accesses(images, legacy, seed):
    def script(driver):
        chance, qemu, log = random.Random(seed), driver.qemu, []
        for _ in range(400):
            register, size = chance.choice(REGISTERS), chance.choice((1, 2, 4, 4, 4, 4))
            offset = register + (chance.choice((0, 0, 1, 2)) if size < 4 else 0)
            if chance.random() < 0.5:
                value = chance.choice((0, 1, 2, 3, 8, 0xF, 0x80, 0x100, 0x40000, 0xFFFF_FFFF))
                if register == STATUS:
                    value &= ~(DRIVER_OK | FEATURES_OK)  # which features it takes differs
                if register == QUEUE_SEL:
                    value = 0  # of queues that are not there QEMU remembers some
                elif register == QUEUE_PFN and not value:
                    continue  # QEMU resets the whole device, where VIRTIO 1.2 4.2.4 stops the queue
                qemu.store(ARM.base + offset, size, value & (1 << 8 * size) - 1)
            else:
                value = qemu.load(ARM.base + offset, size)
                # Ours tells a driver of more of its mistakes than QEMU does.
                log.append((hex(offset), size, hex(value & ~NEEDS_RESET if register == STATUS else value)))
        return log

    assert len(both(images, script, legacy=legacy, transport="mmio")) > 150


# -- IDE ------------------------------------------------------------------------------------------------


class ElbrusAsPc(Qtest):
    """Our Elbrus board, whose IDE function programs look for in the place that it has on a PC."""

    outl = elbrus_outl


def on_elbrus(script, tmp_path):
    image = tmp_path / "ours.raw"
    image.write_bytes(pattern(SECTORS))
    options = ["-m", "64", "-drive", f"file={image},format=raw,if=none,id=d0"]
    options += ["-device", "ide-hd,bus=ide.0,unit=0,drive=d0"]
    with ElbrusAsPc("elbrus", *options, program=our_program("qemu-system-e2k")) as qemu:
        qemu.intercept("ioapic")
        run = Script(qemu, lambda: qemu.irq.get(14, False))
        script(run)
    return run.log, [image.read_bytes()]


@pytest.mark.needs("qemu-system-x86")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            script, id=script.__name__, marks=[] if script.__name__ in ("pio_write", "dma_read") else pytest.mark.slow
        )
        for script in SCRIPTS
    ],
)
def test_ide_on_elbrus_answers_as_qemus_on_a_pc(tmp_path, script):
    ours, our_disks = on_elbrus(script, tmp_path)
    qemus, qemu_disks = on_qemu(script, tmp_path)
    assert len(ours) > 1
    for ours_seen, qemus_seen in zip(ours, qemus, strict=True):
        assert ours_seen == qemus_seen
    assert our_disks == qemu_disks
