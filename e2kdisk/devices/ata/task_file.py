"""The task file: the registers through which a host gives a command to a drive, and how they name a sector.

Feature, Count and the three LBA registers are FIFOs two bytes deep (ATA8-ACS 7.1.5.3): a 48-bit command uses both
bytes, any other the one that was written last. Here each is a number of 16 bits, last byte in bits 7:0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

# Status (ATA8-ACS 6.3)
BSY = 0x80
DRDY = 0x40
DF = 0x20
DSC = 0x10
DRQ = 0x08
ERR = 0x01

# Error (ATA8-ACS 6.2)
UNC = 0x40
IDNF = 0x10
ABRT = 0x04

DIAGNOSTIC_PASSED = 0x01
"""The Error register after a reset or EXECUTE DEVICE DIAGNOSTIC (ATA8-ACS 7.9.4)."""

# Device register (ATA/ATAPI-6 7.7)
OBSOLETE_ONES = 0xA0
LBA = 0x40
DEV = 0x10

# Device Control register (ATA/ATAPI-6 7.8)
HOB = 0x80
SRST = 0x04
NIEN = 0x02

LBA28_SECTORS_MAX = 1 << 28
LBA48_SECTORS_MAX = 1 << 48


@dataclass(slots=True)
class Translation:
    """How cylinder, head and sector become a number (ATA/ATAPI-6 6.2.1); sectors count from 1."""

    heads: int
    sectors: int

    @classmethod
    def default(cls, total: int) -> Translation:
        """For a drive of so many sectors: 16 heads and 63 sectors, fewer when it is smaller than one cylinder."""
        sectors = max(1, min(63, total))
        return cls(max(1, min(16, total // sectors)), sectors)

    def cylinders(self, total: int) -> int:
        """Whole cylinders of a drive, as far as the registers reach."""
        return min(total // (self.heads * self.sectors), 0xFFFF)


@dataclass(slots=True)
class TaskFile:
    """The registers of one drive that a host writes."""

    feature: int = 0
    count: int = 0
    lba_low: int = 0
    lba_mid: int = 0
    lba_high: int = 0
    device: int = OBSOLETE_ONES

    def sign(self) -> None:
        """The signature of a drive that is no packet device (ATA8-ACS 4.14)."""
        self.feature, self.count, self.lba_low, self.lba_mid, self.lba_high = 0, 1, 1, 0, 0
        self.device = OBSOLETE_ONES

    @property
    def is_lba(self) -> bool:
        """Whether the address is a sector number, not cylinder, head and sector."""
        return bool(self.device & LBA)

    def sectors(self, wide: bool) -> int:
        """The Count register as a number of sectors; 0 stands for the most that fits."""
        if wide:
            return self.count or 0x10000
        return self.count & 0xFF or 0x100

    def address(self, wide: bool, translation: Translation) -> int | None:
        """The sector that the registers name; None for a sector that the translation does not have."""
        low, mid, high = self.lba_low, self.lba_mid, self.lba_high
        if wide:
            if not self.is_lba:
                return None
            previous = (high >> 8) << 16 | mid & 0xFF00 | low >> 8
            return previous << 24 | (high & 0xFF) << 16 | (mid & 0xFF) << 8 | low & 0xFF
        low, mid, high = low & 0xFF, mid & 0xFF, high & 0xFF
        if self.is_lba:
            return (self.device & 0x0F) << 24 | high << 16 | mid << 8 | low
        head, cylinder = self.device & 0x0F, high << 8 | mid
        if head >= translation.heads or not 1 <= low <= translation.sectors:
            return None
        return (cylinder * translation.heads + head) * translation.sectors + low - 1

    def set_address(self, sector: int, wide: bool, translation: Translation) -> None:
        """Make the registers name a sector, in the form in which the command named one."""
        if wide:
            previous = sector >> 24
            self.lba_low = (previous & 0xFF) << 8 | sector & 0xFF
            self.lba_mid = previous & 0xFF00 | sector >> 8 & 0xFF
            self.lba_high = previous >> 8 & 0xFF00 | sector >> 16 & 0xFF
            return
        if self.is_lba:
            head = sector >> 24
        else:
            track, sector_in_track = divmod(sector, translation.sectors)
            cylinder, head = divmod(track, translation.heads)
            sector = cylinder << 8 | sector_in_track + 1
        self.device = self.device & 0xF0 | head & 0x0F
        self.lba_low = self.lba_low << 8 & 0xFF00 | sector & 0xFF
        self.lba_mid = self.lba_mid << 8 & 0xFF00 | sector >> 8 & 0xFF
        self.lba_high = self.lba_high << 8 & 0xFF00 | sector >> 16 & 0xFF

    def save(self) -> dict[str, int]:
        """The registers as plain data."""
        return asdict(self)

    def load(self, state: dict[str, int]) -> None:
        """Restore what save() gave."""
        for name, value in state.items():
            setattr(self, name, value)
