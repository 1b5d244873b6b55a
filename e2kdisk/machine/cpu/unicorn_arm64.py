"""Cortex-A53 on Unicorn: start at EL1, firmware calls by HVC or SMC, the system counter, interrupts."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from unicorn import arm64_const
from unicorn import unicorn_const as const

from e2kdisk.machine.cpu import unicorn_raw as raw
from e2kdisk.machine.cpu.arm64_tables import IdentityTables
from e2kdisk.machine.cpu.unicorn_base import UnicornCpu

SystemRegister = tuple[int, int, int, int, int]
"""crn, crm, op0, op1, op2: the order in which Unicorn wants them."""

SCR_EL3: SystemRegister = (1, 1, 3, 6, 0)
HCR_EL2: SystemRegister = (1, 1, 3, 4, 0)
SP_EL1: SystemRegister = (4, 1, 3, 4, 0)

SYSTEM_REGISTERS: dict[str, SystemRegister] = {
    "sctlr_el1": (1, 0, 3, 0, 0),
    "cpacr_el1": (1, 0, 3, 0, 2),
    "ttbr0_el1": (2, 0, 3, 0, 0),
    "ttbr1_el1": (2, 0, 3, 0, 1),
    "tcr_el1": (2, 0, 3, 0, 2),
    "mair_el1": (10, 2, 3, 0, 0),
    "vbar_el1": (12, 0, 3, 0, 0),
    "spsr_el1": (4, 0, 3, 0, 0),
    "elr_el1": (4, 0, 3, 0, 1),
    "sp_el0": (4, 1, 3, 0, 0),
    "tpidr_el0": (13, 0, 3, 3, 2),
    "tpidr_el1": (13, 0, 3, 0, 4),
}

EXCEPTIONS = {
    1: "undefined instruction",
    2: "SVC",
    3: "prefetch abort",
    4: "data abort",
    7: "BRK",
    11: "HVC",
    13: "SMC",
}
HYPERCALLS = (11, 13)

PSTATE_SP = 1 << 0
PSTATE_EL = 3 << 2
PSTATE_I = 1 << 7
PSTATE_DAIF = 0xF << 6
EL1 = 1 << 2
EL1H = 0b0101

VECTOR_IRQ_EL1T = 0x080
VECTOR_IRQ_EL1H = 0x280
VECTOR_IRQ_EL0 = 0x480

TRANSLATION_CRN = (1, 2)
"""CRn of SCTLR_EL1 and of TTBR0_EL1, TTBR1_EL1, TCR_EL1 (D13.2)."""

CNTCRN, CNTCRM, CNTPCT, CNTVCT = 14, 0, 1, 2
"""CNTPCT_EL0 and CNTVCT_EL0 as the system counter's reads are encoded (D13.8)."""


class _CpRegister(ctypes.Structure):
    """Unicorn's uc_arm64_cp_reg."""

    _fields_ = [
        ("crn", ctypes.c_uint32),
        ("crm", ctypes.c_uint32),
        ("op0", ctypes.c_uint32),
        ("op1", ctypes.c_uint32),
        ("op2", ctypes.c_uint32),
        ("value", ctypes.c_uint64),
    ]


_INSTRUCTION_HOOK = ctypes.CFUNCTYPE(
    ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(_CpRegister), ctypes.c_void_p
)


@cache
def _capstone() -> Any:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)


class Arm64Cpu(UnicornCpu):
    """Cpu for 64-bit Arm."""

    PC = arm64_const.UC_ARM64_REG_PC
    REGISTERS: ClassVar[dict[str, int]] = {
        **{f"x{n}": getattr(arm64_const, f"UC_ARM64_REG_X{n}") for n in range(31)},
        **{f"q{n}": getattr(arm64_const, f"UC_ARM64_REG_Q{n}") for n in range(32)},
        "sp": arm64_const.UC_ARM64_REG_SP,
        "pstate": arm64_const.UC_ARM64_REG_PSTATE,
        "pc": arm64_const.UC_ARM64_REG_PC,
    }

    def __init__(self) -> None:
        self._tables: IdentityTables
        super().__init__()

    def _create(self) -> raw.Engine:
        read = self.read_register
        self._tables = IdentityTables(self.memory, lambda: (read("sctlr_el1"), read("tcr_el1"), read("ttbr0_el1")))
        return raw.open_engine(const.UC_ARCH_ARM64, const.UC_MODE_ARM, arm64_const.UC_CPU_ARM64_A53)

    def _prepare(self) -> None:
        # Without these two, EL1 page tables are taken for AArch32 ones.
        self._write_system(SCR_EL3, 0x531)  # NS | HCE | RW
        self._write_system(HCR_EL2, 1 << 31)  # RW
        self._uc.hook_add(const.UC_HOOK_INTR, self._exception)
        self._hook(arm64_const.UC_ARM64_INS_MRS, self._on_mrs)
        self._hook(arm64_const.UC_ARM64_INS_MSR, self._on_msr)

    def _read_system(self, register: SystemRegister) -> int:
        return int(self._uc.reg_read(arm64_const.UC_ARM64_REG_CP_REG, register))

    def _write_system(self, register: SystemRegister, value: int) -> None:
        self._uc.reg_write(arm64_const.UC_ARM64_REG_CP_REG, (*register, value))

    def read_register(self, name: str) -> int:
        """Cpu.read_register."""
        if name in SYSTEM_REGISTERS:
            return self._read_system(SYSTEM_REGISTERS[name])
        return super().read_register(name)

    def write_register(self, name: str, value: int) -> None:
        """Cpu.write_register."""
        if name in SYSTEM_REGISTERS:
            self._write_system(SYSTEM_REGISTERS[name], value)
            self._tables.forget()
        else:
            super().write_register(name, value)

    # -- what the guest asks for ------------------------------------------------------------------

    def _exception(self, uc: raw.Engine, number: int, data: object) -> None:
        if number in HYPERCALLS and self.on_hypercall is not None:
            reason = self.on_hypercall()
            if reason is not None:
                self.stop(reason)
        else:
            self._refuse(f"unhandled exception ({EXCEPTIONS.get(number, number)})")

    def _on_mrs(self, target: int, register: Any) -> int:
        """Answer reads of the system counter, which Unicorn would take from the host's clock."""
        if register.crn != CNTCRN or register.crm != CNTCRM or register.op2 not in (CNTPCT, CNTVCT):
            return 0
        if self.on_counter is None:
            return 0
        self._uc.reg_write(target, self.on_counter())
        return 1

    def _on_msr(self, target: int, register: Any) -> int:
        if register.crn in TRANSLATION_CRN:
            self._tables.forget()
        return 0

    def _hook(self, instruction: int, answer: Callable[[int, Any], int]) -> None:
        """Call answer(register number, system register) before each such instruction; 1 says that it is done."""

        def on_instruction(_handle: int, target: int, register: Any, _user: int) -> int:
            try:
                return answer(target, register.contents)
            except BaseException as error:
                self._remember(error)
                return 0

        hook = ctypes.c_size_t()
        callback = _INSTRUCTION_HOOK(on_instruction)
        raw.check(
            raw.library.uc_hook_add(
                self._handle,
                ctypes.byref(hook),
                const.UC_HOOK_INSN,
                callback,
                None,
                ctypes.c_uint64(1),
                ctypes.c_uint64(0),
                ctypes.c_int(instruction),
            )
        )
        self._keep.append(callback)

    def _is_data(self, page: int) -> bool:
        return self._tables.is_data(page)

    def _is_code(self, page: int) -> bool:
        return self.read_register("pstate") & PSTATE_EL == EL1 and self._tables.is_code(page)

    # -- interrupts -------------------------------------------------------------------------------

    def _take_irq(self) -> bool:
        """Enter the IRQ vector as the architecture does (Arm ARM D1.10); Unicorn has no interrupt input."""
        pstate = self.read_register("pstate")
        if pstate & PSTATE_I:
            return False
        if pstate & PSTATE_SP:
            entry = VECTOR_IRQ_EL1H
        else:
            entry = VECTOR_IRQ_EL1T if pstate & PSTATE_EL else VECTOR_IRQ_EL0
            # Writing PSTATE does not change stacks as an exception does.
            self.write_register("sp_el0", self.read_register("sp"))
            self.write_register("sp", self._read_system(SP_EL1))
        self.write_register("elr_el1", self.pc)
        self.write_register("spsr_el1", pstate)
        self.write_register("pstate", PSTATE_DAIF | EL1H)
        vector = self.read_register("vbar_el1")
        # Any system register will do: only such a write makes Unicorn look at the new PSTATE.
        self.write_register("vbar_el1", vector)
        self.write_register("pc", vector + entry)
        return True

    def _translation_changed(self) -> None:
        self._tables.forget()

    def _decoder(self) -> Any:
        return _capstone()
