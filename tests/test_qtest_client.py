"""The oracle's own tests: what the client says of QEMU's devices is what QEMU says."""

import pytest

from tests.qtest_client import Qtest

pytestmark = pytest.mark.needs("qemu-system-x86", "qemu-system-arm")


def test_ports_memory_and_wires_answer():
    with Qtest("pc") as qemu:
        qemu.outl(0xCF8, 0x8000_0000)
        assert qemu.inl(0xCFC) == 0x1237_8086
        assert [qemu.inb(0xCFC), qemu.inw(0xCFE), qemu.port_in(0xCFE, 2)] == [0x86, 0x1237, 0x1237]
        qemu.write(0x10_0000, b"some bytes")
        assert qemu.read(0x10_0000, 10) == b"some bytes"
        assert qemu.load(0x10_0000, 2) == int.from_bytes(b"so", "little")
        qemu.store(0x10_0000, 8, 0x1122_3344_5566_7788)
        assert qemu.read(0x10_0000, 8) == bytes.fromhex("8877665544332211")
        qemu.intercept("ioapic")
        qemu.outb(0x43, 0x34)  # the interval timer, 18 times a second
        qemu.outb(0x40, 0)
        qemu.outb(0x40, 0)
        qemu.wait(lambda: qemu.inb(0x40) >= 0 and len(qemu.raised) > 0)
        assert set(qemu.raised) == {0}


def test_the_arm_machine_answers():
    with Qtest("virt", "-cpu", "cortex-a53", program="qemu-system-aarch64") as qemu:
        assert qemu.load(0x0A00_0000, 4) == 0x7472_6976  # the first virtio-mmio slot
        qemu.write(0x4000_0000, b"some bytes")
        assert qemu.read(0x4000_0000, 10) == b"some bytes"


def test_a_refused_machine_fails_the_test_with_qemus_words():
    with Qtest("pc", "-device", "no-such-device") as qemu, pytest.raises(AssertionError, match="no-such-device"):
        qemu.inb(0x80)
