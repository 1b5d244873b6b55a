"""The virtio driver of the other tests at the end of a qtest line, on the `virt` machine for aarch64."""

from e2kdisk.devices.virtio.features import bit
from tests.test_virtio_pci_qemu import COMMON
from tests.virtio_driver import Driver, Events
from tests.virtio_links import Host, MmioLink, PciLegacyLink, PciModernLink

GIC = "/machine/unattached/device[1]"
"""QEMU's path of the interrupt controller; ours takes it, too."""
SLOT = 31
MMIO_BASE = 0x0A00_0000 + 0x200 * SLOT
MMIO_IRQ = 16 + SLOT
PCI_IRQ = 3


class QtestMmioLink(MmioLink):
    """The registers of a slot, over a qtest line."""

    def __init__(self, qemu, legacy):
        self.qemu, self.legacy = qemu, legacy

    def get(self, offset):
        return self.qemu.load(MMIO_BASE + offset, 4)

    def set(self, offset, value):
        self.qemu.store(MMIO_BASE + offset, 4, value)

    def config(self, offset, size):
        return self.qemu.load(MMIO_BASE + 0x100 + offset, size)

    def set_config(self, offset, size, value):
        self.qemu.store(MMIO_BASE + 0x100 + offset, size, value)


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

    def __init__(self, qemu, *, legacy, transport="mmio", page_size=4096):
        """Takes over the client of a machine whose device is in the last slot for virtio-mmio, or in PCI slot 4."""
        self.qemu = qemu
        self.qemu.intercept(GIC)
        if transport == "mmio":
            self.link, self.wire = QtestMmioLink(self.qemu, legacy), MMIO_IRQ
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
