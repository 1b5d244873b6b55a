"""RV64GC on Unicorn: start in machine mode, machine-mode interrupts."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from unicorn import riscv_const
from unicorn import unicorn_const as const

from e2kdisk.machine.cpu import unicorn_raw as raw
from e2kdisk.machine.cpu.unicorn_base import UnicornCpu

SOFTWARE, TIMER, EXTERNAL = 3, 7, 11
"""Interrupt lines: the machine-mode bits of mip and mie, and the causes (privileged specification 3.1.9)."""
SUPERVISOR_EXTERNAL = 9

MACHINE = 3
"""The privilege level's number (1.2)."""
MSTATUS_MIE = 1 << 3
MSTATUS_MPIE = 1 << 7
MSTATUS_MPP = 3 << 11

EXCEPTIONS = {
    0: "misaligned instruction",
    1: "instruction access fault",
    2: "illegal instruction",
    3: "EBREAK",
    4: "misaligned load",
    5: "load access fault",
    6: "misaligned store",
    7: "store access fault",
    8: "ECALL from user mode",
    9: "ECALL from supervisor mode",
    11: "ECALL from machine mode",
    12: "instruction page fault",
    13: "load page fault",
    15: "store page fault",
}
ECALLS = (8, 9, 11)

CSRS = ("mstatus", "misa", "medeleg", "mideleg", "mie", "mtvec", "mscratch", "mepc", "mcause", "mtval", "mip", "satp")


@cache
def _capstone() -> Any:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)


class Riscv64Cpu(UnicornCpu):
    """Cpu for 64-bit RISC-V."""

    PC = riscv_const.UC_RISCV_REG_PC
    REGISTERS: ClassVar[dict[str, int]] = {
        **{f"x{n}": getattr(riscv_const, f"UC_RISCV_REG_X{n}") for n in range(1, 32)},
        **{f"f{n}": getattr(riscv_const, f"UC_RISCV_REG_F{n}") for n in range(32)},
        **{name: getattr(riscv_const, f"UC_RISCV_REG_{name.upper()}") for name in CSRS},
        "a0": riscv_const.UC_RISCV_REG_X10,
        "a1": riscv_const.UC_RISCV_REG_X11,
        "sp": riscv_const.UC_RISCV_REG_X2,
        "pc": riscv_const.UC_RISCV_REG_PC,
    }

    def _create(self) -> raw.Engine:
        return raw.open_engine(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64, riscv_const.UC_CPU_RISCV64_ANY)

    def _prepare(self) -> None:
        self._uc.hook_add(const.UC_HOOK_INTR, self._exception)

    def _is_data(self, page: int) -> bool:
        return True  # as long as the code is

    def _is_code(self, page: int) -> bool:
        # Machine mode does not translate (4.4.1); leaving it begins with a fetch.
        return bool(self._uc.reg_read(riscv_const.UC_RISCV_REG_PRIV) == MACHINE)

    def _exception(self, uc: raw.Engine, number: int, data: object) -> None:
        if number in ECALLS and self.on_hypercall is not None:
            reason = self.on_hypercall()
            if reason is not None:
                self.stop(reason)
        else:
            self._refuse(f"unhandled exception ({EXCEPTIONS.get(number, number)})")

    def _take_irq(self) -> bool:
        """Enter the machine-mode handler (privileged specification 3.1.6, 3.1.7, 3.1.9)."""
        waiting = self._irqs & self.read_register("mie")
        status = self.read_register("mstatus")
        if not waiting or not status & MSTATUS_MIE:
            return False
        cause = next(line for line in (EXTERNAL, SOFTWARE, TIMER) if waiting >> line & 1)
        self.write_register("mepc", self.pc)
        self.write_register("mcause", 1 << 63 | cause)
        self.write_register("mtval", 0)
        self.write_register("mstatus", status & ~MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP)
        vector = self.read_register("mtvec")
        self.write_register("pc", (vector & ~3) + (4 * cause if vector & 3 == 1 else 0))
        return True

    def irq_pending(self) -> bool:
        """Cpu.irq_pending: WFI ends for an interrupt enabled in mie, whatever mstatus says (3.3.3)."""
        return bool(self._irqs & self.read_register("mie"))

    def _decoder(self) -> Any:
        return _capstone()
