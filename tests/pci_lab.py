"""PCI functions for tests: regions that tell who was asked, a bus with windows, firmware that finds and places."""

from __future__ import annotations

from dataclasses import dataclass, field

from e2kdisk.devices.pci import Bar, Identity, PciBus, PciFunction

WINDOW = (0x8000_0000, 0x1000_0000)
COMMAND, STATUS = 4, 6
IO, MEMORY, MASTER, INTX_DISABLE = 1, 2, 4, 0x400


@dataclass
class Region:
    """A region of registers that answers with its mark and remembers stores."""

    name: str
    size: int
    mark: int = 0
    stores: list[tuple[int, int, int]] = field(default_factory=list)

    def read(self, offset: int, size: int) -> int:
        assert offset >= 0 and offset + size <= self.size, "an access outside the region"
        return (self.mark << 24 | offset) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        assert offset >= 0 and offset + size <= self.size, "an access outside the region"
        assert 0 <= value < 1 << 8 * size
        self.stores.append((offset, size, value))

    def register_name(self, offset: int) -> str:
        return f"byte{offset}"

    def reset(self) -> None:
        pass


def region_bar(index, size, mark=0, **kind):
    return Bar(index=index, size=size, registers=Region(f"region{mark:x}", size, mark), **kind)


def make_function(name="function", *bars, **more):
    identity = more.pop("identity", Identity(vendor=0x1234, device=0x5678, class_code=0x0180))
    return PciFunction(name, identity, bars=bars, **more)


def make_bus(*functions):
    """A bus with these functions in slots 1, 2, ..."""
    bus = PciBus(memory=WINDOW)
    for slot, function in enumerate(functions, 1):
        bus.add(slot << 3, function)
    return bus


def get(bus, slot, offset, size=4):
    return bus.config_read(0, slot << 3, offset, size)


def put(bus, slot, offset, value, size=4):
    bus.config_write(0, slot << 3, offset, size, value)
