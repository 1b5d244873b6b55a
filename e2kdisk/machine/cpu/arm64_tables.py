"""Whether a 64-bit Arm guest's page tables map an address to itself (Arm ARM D5.2, D5.3: 4 KiB granule, EL1)."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.devices.memory import RamMemory

SCTLR_M = 1 << 0
TCR_TG0 = 3 << 14
TCR_EPD0 = 1 << 7
TABLE_ADDRESS = 0x0000_FFFF_FFFF_F000
TABLE_RESTRICTIONS = 0x1F << 59
"""NSTable, APTable, XNTable, PXNTable."""
AF = 1 << 10
AP_READ_ONLY = 1 << 7
PXN = 1 << 53

REGION_SHIFT = 21
"""What a path is remembered for: a block of 2 MiB, or a part of a larger one."""


class IdentityTables:
    """Walks the tables at each TLB miss, as hardware does: whatever the guest changes in them is seen.

    A path that was walked is remembered by its descriptors, and holds as long as they are what they were.
    """

    def __init__(self, memory: RamMemory, registers: Callable[[], tuple[int, int, int]]) -> None:
        """registers() gives SCTLR_EL1, TCR_EL1 and TTBR0_EL1."""
        self._memory = memory
        self._registers = registers
        self._paths: dict[int, tuple[tuple[memoryview, int], ...]] = {}
        self.forget()

    def forget(self) -> None:
        """A register may have changed."""
        self._known = False
        self._paths.clear()

    def _learn(self) -> None:
        sctlr, tcr, ttbr0 = self._registers()
        self._known = True
        self._on = bool(sctlr & SCTLR_M)
        self._bits = 64 - (tcr & 0x3F)
        self._supported = not tcr & (TCR_TG0 | TCR_EPD0) and 25 <= self._bits <= 48
        self._top = ttbr0 & TABLE_ADDRESS

    def is_data(self, page: int) -> bool:
        """Whether EL1 may read and write this page at its physical address."""
        path = self._paths.get(page >> REGION_SHIFT)
        if path is not None:
            for entry, descriptor in path:
                if entry[0] != descriptor:
                    break
            else:
                return True
        return self._is_identity(page, fetch=False)

    def is_code(self, page: int) -> bool:
        """Whether EL1 may run this page at its physical address."""
        return self._is_identity(page, fetch=True)

    def _is_identity(self, page: int, fetch: bool) -> bool:
        if not self._known:
            self._learn()
        if not self._on:
            self._paths[page >> REGION_SHIFT] = ()
            return True
        return self._supported and self._walk(page, fetch)

    def _walk(self, page: int, fetch: bool) -> bool:
        table, path = self._top, []
        first = 4 - (self._bits - 12 + 8) // 9
        if page >> self._bits:
            return False
        for level in range(first, 4):
            shift = 12 + 9 * (3 - level)
            index = page >> shift & 0x1FF
            view = self._memory.source(table + 8 * index, 8)
            if view is None:
                return False
            entry = view.cast("Q")
            descriptor = entry[0]
            path.append((entry, descriptor))
            kind = descriptor & 3
            if kind == 3 and level < 3:
                if descriptor & TABLE_RESTRICTIONS:
                    return False
                table = descriptor & TABLE_ADDRESS
                continue
            if kind != (3 if level == 3 else 1) or (level == 0):
                return False
            if not self._allows(descriptor, fetch) or (descriptor & TABLE_ADDRESS) >> shift != page >> shift:
                return False
            if shift >= REGION_SHIFT and not fetch:
                self._paths[page >> REGION_SHIFT] = tuple(path)
            return True
        return False

    @staticmethod
    def _allows(descriptor: int, fetch: bool) -> bool:
        return bool(descriptor & AF) and not descriptor & AP_READ_ONLY and not (fetch and descriptor & PXN)
