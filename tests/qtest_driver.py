"""The virtio driver of the other tests at the end of a qtest line, on QEMU's `virt` machines."""

from typing import NamedTuple

from e2kdisk.devices.virtio.features import bit
from tests.qtest_client import Client
from tests.test_virtio_pci_qemu import COMMON
from tests.virtio_driver import Driver, Events
from tests.virtio_links import Host, MmioLink, PciLegacyLink, PciModernLink


class Place(NamedTuple):
    """Where a machine has its last slot for virtio-mmio, the first that a device gets."""

    base: int
    wire: int
    """Of the interrupt controller."""
    chip: str
    """QEMU's path of that; ours takes it, too."""


ARM = Place(0x0A00_3E00, 16 + 31, "/machine/unattached/device[1]")
RISCV = Place(0x1000_8000, 8, "/machine/unattached/device[2]")
PCI_IRQ = 3


class QtestMmioLink(MmioLink):
    """The registers of a slot, over a qtest line."""

    def __init__(self, qemu, place, legacy):
        self.qemu, self.base, self.legacy = qemu, place.base, legacy

    def get(self, offset):
        return self.qemu.load(self.base + offset, 4)

    def set(self, offset, value):
        self.qemu.store(self.base + offset, 4, value)

    def config(self, offset, size):
        return self.qemu.load(self.base + 0x100 + offset, size)

    def set_config(self, offset, size, value):
        self.qemu.store(self.base + 0x100 + offset, size, value)


class VirtHost(Host):
    """The PCI bus of the `virt` machine: configuration space and I/O ports are memory."""

    def __init__(self, qemu):
        super().__init__(0x1000_0000, ports=0x1000)
        self.qemu = qemu

    def config_read(self, devfn, offset, size):
        return self.qemu.load(0x40_1000_0000 + (devfn << 12) + offset, size)

    def config_write(self, devfn, offset, size, value):
        self.qemu.store(0x40_1000_0000 + (devfn << 12) + offset, size, value)

    def load(self, space, address, size):
        return self.qemu.load(address + (0x3EFF_0000 if space == "io" else 0), size)

    def store(self, space, address, size, value):
        self.qemu.store(address + (0x3EFF_0000 if space == "io" else 0), size, value)


class QtestDriver(Driver):
    """The driver of the other tests at the end of a qtest line."""

    def __init__(self, qemu, *, legacy, transport="mmio", page_size=4096, place=ARM):
        """Takes over the client of a machine whose device is at a place for virtio-mmio, or in PCI slot 4."""
        self.qemu = qemu
        self.qemu.intercept(place.chip)
        if transport == "mmio":
            self.link, self.wire = QtestMmioLink(self.qemu, place, legacy), place.wire
        else:
            self.host = VirtHost(self.qemu)
            self.link, self.wire = (PciLegacyLink if legacy else PciModernLink)(self.host, 4 << 3), PCI_IRQ
        self.transport, self.controller, self.legacy, self.trace = transport, None, legacy, Events()
        self._page_size = self._align = page_size
        # ANY_LAYOUT is one that QEMU does not offer over legacy MMIO.
        self.ram_size, self._refused, self._accept = 1 << 20, bit("ANY_LAYOUT"), COMMON
        self._size = None if self.link.fixed_size else 128

    def init(self):
        if self.transport == "mmio" and self.legacy:
            self.link.set(0x028, self._page_size)  # before the reset, as real drivers do
        super().init()

    def poke(self, address, data):
        self.qemu.write(address, data)

    def peek(self, address, length):
        return self.qemu.read(address, length)

    def wait(self, *wanted):
        while any(pending.used_length is None for pending in wanted):
            if not self.collect():
                self.wait_used()

    def wait_used(self):
        self.qemu.wait(lambda: self.peek16(self.used_ring + 2) != self.seen_used)

    def line(self):
        self.qemu.command("endianness")  # changes come before the answer to the next command
        return self.qemu.irq.get(self.wire, False)

    def close(self):
        self.qemu.close()


def elbrus_outl(client, port, value):
    """Client.outl on our Elbrus board for drivers that look for the IDE function in 01.1, its place on a PC."""
    if port == 0xCF8 and value >> 8 & 0xFFFF == 1 << 3 | 1:
        value += (3 << 3) - (1 << 3 | 1) << 8
    Client.outl(client, port, value)
