"""How a driver reaches its device: the registers of each transport and generation, under the same names.

The PCI links work through a Host, so the same driver runs on our bus and on QEMU's.
"""

from __future__ import annotations

from e2kdisk.devices.pci import PciBus
from e2kdisk.devices.virtio import VirtioBlk, VirtioMmio, VirtioPci
from tests.qtest_client import Qtest

NO_VECTOR = 0xFFFF


class Link:
    """One driver's access to one device."""

    legacy: bool
    page_size: int | None = None
    """Bytes, where a legacy queue's page size cannot be chosen."""
    fixed_size = False
    """Whether the driver must take the queue size that it finds."""

    def power_on(self) -> None:
        """What firmware does after the board's reset."""

    def status(self) -> int:
        raise NotImplementedError

    def set_status(self, value: int) -> None:
        raise NotImplementedError

    def offered(self) -> int:
        raise NotImplementedError

    def accept(self, features: int) -> None:
        raise NotImplementedError

    def queue_size(self) -> int:
        """The largest size of queue 0."""
        raise NotImplementedError

    def start_queue(self, size: int, desc: int, avail: int, used: int, page_size: int, align: int) -> None:
        raise NotImplementedError

    def stop_queue(self) -> None:
        raise NotImplementedError

    def notify(self, queue: int) -> None:
        raise NotImplementedError

    def take_reasons(self) -> int:
        """Why there was an interrupt, and acknowledge it."""
        raise NotImplementedError

    def config(self, offset: int, size: int) -> int:
        raise NotImplementedError

    def set_config(self, offset: int, size: int, value: int) -> None:
        raise NotImplementedError


# -- MMIO -------------------------------------------------------------------------------------------


class MmioLink(Link):
    """VIRTIO 1.2 4.2."""

    def __init__(self, controller: VirtioMmio) -> None:
        self.legacy = controller.legacy
        self.controller = controller

    def get(self, offset: int) -> int:
        return self.controller.read(offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.controller.write(offset, 4, value)

    def status(self) -> int:
        return self.get(0x070)

    def set_status(self, value: int) -> None:
        self.set(0x070, value)

    def offered(self) -> int:
        self.set(0x014, 0)
        low = self.get(0x010)
        self.set(0x014, 1)
        return low | self.get(0x010) << 32

    def accept(self, features: int) -> None:
        for word in range(1 if self.legacy else 2):
            self.set(0x024, word)
            self.set(0x020, features >> 32 * word & 0xFFFFFFFF)

    def queue_size(self) -> int:
        self.set(0x030, 0)
        return self.get(0x034)

    def start_queue(self, size: int, desc: int, avail: int, used: int, page_size: int, align: int) -> None:
        self.set(0x030, 0)
        self.set(0x038, size)
        if self.legacy:
            self.set(0x03C, align)
            self.set(0x040, desc // page_size)
            return
        for offset, address in ((0x080, desc), (0x090, avail), (0x0A0, used)):
            self.set(offset, address & 0xFFFFFFFF)
            self.set(offset + 4, address >> 32)
        self.set(0x044, 1)

    def stop_queue(self) -> None:
        self.set(0x040 if self.legacy else 0x044, 0)

    def notify(self, queue: int) -> None:
        self.set(0x050, queue)

    def take_reasons(self) -> int:
        reasons = self.get(0x060)
        if reasons:
            self.set(0x064, reasons)
        return reasons

    def config(self, offset: int, size: int) -> int:
        return self.controller.read(0x100 + offset, size)

    def set_config(self, offset: int, size: int, value: int) -> None:
        self.controller.write(0x100 + offset, size, value)


# -- PCI --------------------------------------------------------------------------------------------


class Host:
    """A CPU's way to a PCI bus; hands out addresses."""

    def __init__(self, memory: int, ports: int = 0xC000) -> None:
        self._free = {"memory": memory, "io": ports}

    def place(self, space: str, size: int) -> int:
        """An address for a region that nobody else gets."""
        address = -(-self._free[space] // size) * size
        self._free[space] = address + size
        return address

    def config_read(self, devfn: int, offset: int, size: int) -> int:
        raise NotImplementedError

    def config_write(self, devfn: int, offset: int, size: int, value: int) -> None:
        raise NotImplementedError

    def load(self, space: str, address: int, size: int) -> int:
        raise NotImplementedError

    def store(self, space: str, address: int, size: int, value: int) -> None:
        raise NotImplementedError


class OurHost(Host):
    """On our bus: one of its own, or a board's."""

    def __init__(self, bus: PciBus | None = None, memory: int = 0xE000_0000) -> None:
        super().__init__(memory)
        self.bus = bus or PciBus(memory=(0x8000_0000, 0x7EC0_0000))
        self.messages: list[tuple[int, int]] = []
        if bus is None:
            self.bus.on_message = lambda address, data: self.messages.append((address, data))

    def config_read(self, devfn: int, offset: int, size: int) -> int:
        return self.bus.config_read(0, devfn, offset, size)

    def config_write(self, devfn: int, offset: int, size: int, value: int) -> None:
        self.bus.config_write(0, devfn, offset, size, value)

    def load(self, space: str, address: int, size: int) -> int:
        window = self.bus.memory if space == "memory" else self.bus.io
        return window.read(address - window.base, size)

    def store(self, space: str, address: int, size: int, value: int) -> None:
        window = self.bus.memory if space == "memory" else self.bus.io
        window.write(address - window.base, size, value)


class QtestHost(Host):
    """On QEMU's `pc` machine."""

    def __init__(self, qemu: Qtest) -> None:
        super().__init__(0xE000_0000)
        self.qemu = qemu

    def _select(self, devfn: int, offset: int) -> int:
        self.qemu.outl(0xCF8, 1 << 31 | devfn << 8 | offset & 0xFC)
        return 0xCFC + (offset & 3)

    def config_read(self, devfn: int, offset: int, size: int) -> int:
        return self.qemu.port_in(self._select(devfn, offset), size)

    def config_write(self, devfn: int, offset: int, size: int, value: int) -> None:
        self.qemu.port_out(self._select(devfn, offset), size, value)

    def load(self, space: str, address: int, size: int) -> int:
        return self.qemu.load(address, size) if space == "memory" else self.qemu.port_in(address, size)

    def store(self, space: str, address: int, size: int, value: int) -> None:
        if space == "memory":
            self.qemu.store(address, size, value)
        else:
            self.qemu.port_out(address, size, value)


class PciFunctionLink:
    """What firmware and drivers do with any function: find its regions, place them, walk its capabilities."""

    def __init__(self, host: Host, devfn: int) -> None:
        self.host = host
        self.devfn = devfn
        self.bars: dict[int, tuple[str, int, int]] = {}
        """Index: space, size, type bits."""
        self.addresses: dict[int, int] = {}
        self._find_bars()

    def get(self, offset: int, size: int = 4) -> int:
        return self.host.config_read(self.devfn, offset, size)

    def set(self, offset: int, value: int, size: int = 4) -> None:
        self.host.config_write(self.devfn, offset, size, value)

    def _find_bars(self) -> None:
        index = 0
        while index < 6:
            offset, old = 0x10 + 4 * index, self.get(0x10 + 4 * index)
            self.set(offset, 0xFFFFFFFF)
            found = self.get(offset)
            wide = found & 7 == 4
            if wide:
                self.set(offset + 4, 0xFFFFFFFF)
                found |= self.get(offset + 4) << 32
                self.set(offset + 4, 0)
            elif found:
                found |= 0xFFFFFFFF << 32
            self.set(offset, old)
            if found:
                kind = found & (3 if found & 1 else 15)
                self.bars[index] = ("io" if found & 1 else "memory", (~(found - kind) & (1 << 64) - 1) + 1, kind)
                if old != kind:  # somebody has placed it
                    self.addresses[index] = old - kind
            index += 2 if wide else 1

    def enable(self, command: int = 7) -> None:
        """Place every region and let the function answer and master."""
        for index, (space, size, _) in self.bars.items():
            if index not in self.addresses:
                self.addresses[index] = self.host.place(space, size)
            self.set(0x10 + 4 * index, self.addresses[index])
        self.set(4, command, 2)

    def load(self, bar: int, offset: int, size: int) -> int:
        return self.host.load(self.bars[bar][0], self.addresses[bar] + offset, size)

    def store(self, bar: int, offset: int, size: int, value: int) -> None:
        self.host.store(self.bars[bar][0], self.addresses[bar] + offset, size, value)

    def capabilities(self) -> list[tuple[int, int]]:
        """(id, offset) of each, in the order of the list."""
        found = []
        pointer = self.get(0x34, 1)
        while pointer:
            found.append((self.get(pointer, 1), pointer))
            pointer = self.get(pointer + 1, 1)
            assert len(found) < 48, "the list of capabilities does not end"
        return found


class MsixLink:
    """The MSI-X registers of a function, found through its capability."""

    def __init__(self, function: PciFunctionLink) -> None:
        self.function = function
        self.at = dict(function.capabilities())[0x11]
        self.vectors = (function.get(self.at + 2, 2) & 0x7FF) + 1
        self.table_bar, self.table_at = _place(function.get(self.at + 4))
        self.pending_bar, self.pending_at = _place(function.get(self.at + 8))

    def control(self, *, enable: bool, mask: bool = False) -> None:
        self.function.set(self.at + 2, enable << 15 | mask << 14, 2)

    def set_vector(self, vector: int, address: int, data: int, *, masked: bool = False) -> None:
        for index, value in enumerate((address & 0xFFFFFFFF, address >> 32, data, int(masked))):
            self.function.store(self.table_bar, self.table_at + 16 * vector + 4 * index, 4, value)

    def mask(self, vector: int, masked: bool) -> None:
        self.function.store(self.table_bar, self.table_at + 16 * vector + 12, 4, int(masked))

    def pending(self) -> int:
        return self.function.load(self.pending_bar, self.pending_at, 4)


def _place(register: int) -> tuple[int, int]:
    return register & 7, register & ~7


class PciLink(Link):
    """Either generation over PCI; through INTx until somebody enables MSI-X."""

    def __init__(self, host: Host, devfn: int, *, legacy: bool) -> None:
        self.legacy = legacy
        self.host = host
        self.function = PciFunctionLink(host, devfn)
        self.function.enable()
        self.vectors = (NO_VECTOR, NO_VECTOR)
        """For configuration and queue 0, when MSI-X is enabled."""

    def power_on(self) -> None:
        self.function.enable()

    @property
    def msix(self) -> MsixLink:
        return MsixLink(self.function)


class PciModernLink(PciLink):
    """VIRTIO 1.2 4.1.4.3 to 4.1.4.6."""

    def __init__(self, host: Host, devfn: int) -> None:
        super().__init__(host, devfn, legacy=False)
        self.structures: dict[int, tuple[int, int, int]] = {}
        """cfg_type: BAR, offset, length."""
        function = self.function
        for kind, at in function.capabilities():
            if kind == 9:
                where = (function.get(at + 4, 1), function.get(at + 8), function.get(at + 12))
                self.structures.setdefault(function.get(at + 3, 1), where)
                if function.get(at + 3, 1) == 2:
                    self.multiplier = function.get(at + 16)

    def get(self, kind: int, offset: int, size: int) -> int:
        bar, start, _ = self.structures[kind]
        return self.function.load(bar, start + offset, size)

    def set(self, kind: int, offset: int, size: int, value: int) -> None:
        bar, start, _ = self.structures[kind]
        self.function.store(bar, start + offset, size, value)

    def status(self) -> int:
        return self.get(1, 0x14, 1)

    def set_status(self, value: int) -> None:
        self.set(1, 0x14, 1, value)

    def offered(self) -> int:
        self.set(1, 0x00, 4, 0)
        low = self.get(1, 0x04, 4)
        self.set(1, 0x00, 4, 1)
        return low | self.get(1, 0x04, 4) << 32

    def accept(self, features: int) -> None:
        for word in (0, 1):
            self.set(1, 0x08, 4, word)
            self.set(1, 0x0C, 4, features >> 32 * word & 0xFFFFFFFF)

    def queue_size(self) -> int:
        self.set(1, 0x16, 2, 0)
        return self.get(1, 0x18, 2)

    def start_queue(self, size: int, desc: int, avail: int, used: int, page_size: int, align: int) -> None:
        self.set(1, 0x10, 2, self.vectors[0])
        self.set(1, 0x16, 2, 0)
        self.set(1, 0x18, 2, size)
        self.set(1, 0x1A, 2, self.vectors[1])
        for offset, address in ((0x20, desc), (0x28, avail), (0x30, used)):
            self.set(1, offset, 4, address & 0xFFFFFFFF)
            self.set(1, offset + 4, 4, address >> 32)
        self.notify_off = self.get(1, 0x1E, 2)
        self.set(1, 0x1C, 2, 1)

    def stop_queue(self) -> None:
        self.set(1, 0x16, 2, 0)
        self.set(1, 0x3A, 2, 1)

    def notify(self, queue: int) -> None:
        self.set(2, self.multiplier * queue, 2, queue)

    def take_reasons(self) -> int:
        return self.get(3, 0, 1)

    def config(self, offset: int, size: int) -> int:
        return self.get(4, offset, size)

    def set_config(self, offset: int, size: int, value: int) -> None:
        self.set(4, offset, size, value)


class PciLegacyLink(PciLink):
    """VIRTIO 1.2 4.1.4.10."""

    page_size = 4096
    fixed_size = True

    def __init__(self, host: Host, devfn: int) -> None:
        super().__init__(host, devfn, legacy=True)

    def get(self, offset: int, size: int) -> int:
        return self.function.load(0, offset, size)

    def set(self, offset: int, size: int, value: int) -> None:
        self.function.store(0, offset, size, value)

    @property
    def _config_at(self) -> int:
        at = dict(self.function.capabilities()).get(0x11)  # there is none without vectors
        return 24 if at is not None and self.function.get(at + 2, 2) & 0x8000 else 20

    def status(self) -> int:
        return self.get(0x12, 1)

    def set_status(self, value: int) -> None:
        self.set(0x12, 1, value)

    def offered(self) -> int:
        return self.get(0x00, 4)

    def accept(self, features: int) -> None:
        self.set(0x04, 4, features)

    def queue_size(self) -> int:
        self.set(0x0E, 2, 0)
        return self.get(0x0C, 2)

    def start_queue(self, size: int, desc: int, avail: int, used: int, page_size: int, align: int) -> None:
        self.set(0x0E, 2, 0)
        if self._config_at == 24:
            self.set(0x14, 2, self.vectors[0])
            self.set(0x16, 2, self.vectors[1])
        self.set(0x08, 4, desc // 4096)

    def stop_queue(self) -> None:
        self.set(0x08, 4, 0)

    def notify(self, queue: int) -> None:
        self.set(0x10, 2, queue)

    def take_reasons(self) -> int:
        return self.get(0x13, 1)

    def config(self, offset: int, size: int) -> int:
        return self.get(self._config_at + offset, size)

    def set_config(self, offset: int, size: int, value: int) -> None:
        self.set(self._config_at + offset, size, value)


def plug_mmio(device: VirtioBlk, *, legacy: bool) -> tuple[VirtioMmio, MmioLink]:
    """A device over MMIO, and a driver's way to it."""
    controller = VirtioMmio(device, legacy=legacy)
    return controller, MmioLink(controller)


def plug_pci(device: VirtioBlk, *, legacy: bool) -> tuple[VirtioPci, PciLink]:
    """A transitional device in slot 3 of a bus of its own, and a driver's way to it."""
    host = OurHost()
    controller = VirtioPci(device)
    host.bus.add(3 << 3, controller)
    return controller, (PciLegacyLink if legacy else PciModernLink)(host, 3 << 3)
