"""SIC: the system registers of an Elbrus node, where firmware says what lies at which address (Linux/e2k sic_regs.h).

They are kept and have no effect: this board's addresses are fixed. The IOMMU is absent, so that device addresses are
physical ones; enabling it is refused and reported.
"""

from __future__ import annotations

from collections.abc import Iterator

from e2kdisk.devices.registers import RW, Register, RegisterMap
from e2kdisk.machine.chips.chip import Chip

SIZE = 0x10_0000
"""Bytes of one node (NBSR)."""
LINKS = 4
MASK = 0xFFFF_FFFF
IOMMU_CONTROL = 0x380
IOMMU_ENABLE = 1 << 0


class Sic(Chip):
    """One node's registers."""

    STATE = ("_values",)

    def __init__(self, name: str = "sic") -> None:
        super().__init__(name, SIZE)
        self.reset()

    def reset(self) -> None:
        """RegisterDevice.reset."""
        self._values = [register.reset for register in self.registers]

    def get(self, offset: int) -> int:
        """Value of the register at an offset."""
        return self._values[_PLACES[offset]]

    def set(self, offset: int, value: int) -> None:
        """Store what the guest has written."""
        if offset == IOMMU_CONTROL and value & IOMMU_ENABLE:
            if self.trace is not None:
                self.trace.event(self.name, "guest mistake", what="there is no IOMMU to enable")
            value &= ~IOMMU_ENABLE
        self._values[_PLACES[offset]] = value


def _reg(offset: int, name: str, meaning: str, reset: int = 0) -> Register[Sic]:
    def write(chip: Sic, value: int) -> None:
        chip.set(offset, value)

    return Register(
        offset=offset,
        name=name,
        access=RW,
        reset=reset,
        meaning=meaning,
        section="Linux/e2k sic_regs.h",
        read=lambda chip: chip.get(offset),
        write=write,
    )


def _links(offset: int, name: str, meaning: str, *resets: int) -> Iterator[Register[Sic]]:
    """One register a link to another node; the last reset value is that of all further ones."""
    for link in range(LINKS):
        yield _reg(offset + 4 * link, f"{name}{link}", meaning, resets[min(link, len(resets) - 1)])


def _halves(offset: int, name: str, meaning: str) -> Iterator[Register[Sic]]:
    yield _reg(offset, name, meaning)
    yield _reg(offset + 4, f"{name}_hi", f"{meaning}, upper half")


Sic.registers = RegisterMap(
    "sic",
    *_links(0x10, "rt_lcfg", "what a link leads to; 0xb is the node that boots", 0x0B, 0x30),
    *_links(0x20, "rt_mhi", "RAM above 4 GiB: | 31..16 end | 15..0 begin |, in 4 GiB", 0x0000_FFFF),
    *_links(0x30, "rt_mlo", "RAM below 4 GiB: | 31..27 end | 15..11 begin |, in 128 MiB", 0x0000_F800),
    *_links(0x40, "rt_pcim", "PCI memory: | 31..27 end | 15..11 begin |, in 128 MiB", 0x0000_F800),
    *_links(0x50, "rt_pciio", "PCI I/O: | 31..28 end | 15..12 begin |, in 4 KiB", 0x0000_F000),
    *_links(0x70, "rt_pcimp_b", "prefetchable PCI memory begins, in 128 MiB", MASK),
    *_links(0x80, "rt_pcimp_e", "prefetchable PCI memory ends, in 128 MiB", 0),
    _reg(0x90, "rt_pcicfgb", "PCI configuration space: | 20..3 begin |, in 256 MiB", 0x40),
    *_halves(0xB0, "rt_msi", "where message-signalled interrupts go"),
    *_halves(IOMMU_CONTROL, "iommu_ctrl", "bit 0 enables the IOMMU: never set here"),
    *_halves(0x390, "iommu_ptbar", "page table of the IOMMU"),
    *_halves(0x398, "iommu_dtbar", "device table of the IOMMU"),
    *_halves(0x3B0, "iommu_err", "error of the IOMMU"),
    *_halves(0x3B8, "iommu_err_info", "its address"),
    _reg(0x8030, "prepic_ctrl2", "interrupt routing"),
    _reg(0x8040, "prepic_err_stat", "errors of interrupt routing"),
    _reg(0x8060, "prepic_err_int", "the interrupt for them"),
    *(_reg(0x8C00 + 4 * line, f"prepic_linp{line}", "a local interrupt input") for line in range(6)),
)

_PLACES = {register.offset: index for index, register in enumerate(Sic.registers)}
