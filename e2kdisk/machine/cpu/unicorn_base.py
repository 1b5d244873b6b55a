"""What the Unicorn adapters share: address space, running in slices, stopping, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from unicorn import unicorn_const as const

from e2kdisk.devices.memory import RamMemory
from e2kdisk.errors import UsageError
from e2kdisk.machine.cpu import unicorn_raw as raw
from e2kdisk.machine.cpu.cpu import Fault, IoWindow, Ram, Reason
from e2kdisk.machine.cpu.unicorn_flat import FlatTlb

MASKED_SLICE = 500
"""Instructions between two looks at the interrupt mask while an interrupt waits: bounds its latency."""

_MEMORY_ERRORS = {
    const.UC_ERR_READ_UNMAPPED: "load where nothing is",
    const.UC_ERR_WRITE_UNMAPPED: "store where nothing is",
    const.UC_ERR_FETCH_UNMAPPED: "instruction fetch where nothing is",
    const.UC_ERR_READ_PROT: "load from unreadable memory",
    const.UC_ERR_WRITE_PROT: "store to protected memory",
    const.UC_ERR_FETCH_PROT: "instruction fetch from memory that is not executable",
    const.UC_ERR_READ_UNALIGNED: "unaligned load",
    const.UC_ERR_WRITE_UNALIGNED: "unaligned store",
    const.UC_ERR_FETCH_UNALIGNED: "unaligned instruction fetch",
}


class UnicornCpu:
    """The shared half of a CPU adapter; a subclass adds the architecture."""

    takes_interrupts = True
    PC: ClassVar[int]
    REGISTERS: ClassVar[dict[str, int]]
    """Lower-case name -> Unicorn's number."""

    def __init__(self) -> None:
        self.memory = RamMemory(on_written=self.invalidate)
        self.fault: Fault | None = None
        self.on_hypercall: Callable[[], Reason | None] | None = None
        self.on_counter: Callable[[], int] | None = None
        self._irqs = 0
        self._done = 0
        self._stop_reason: Reason | None = None
        self._kicked = False
        self._error: BaseException | None = None
        self._fault: tuple[str, int | None] | None = None
        self._mappings: list[Callable[[], None]] = []
        self._keep: list[object] = []
        self._open()

    # -- architecture -----------------------------------------------------------------------------

    def _create(self) -> raw.Engine:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Set up a new engine beyond its registers: hooks."""
        raise NotImplementedError

    def _is_data(self, page: int) -> bool:
        """Whether the guest may read and write a page at its own physical address, see FlatTlb."""
        raise NotImplementedError

    def _is_code(self, page: int) -> bool:
        """Whether the guest may run a page at its own physical address."""
        raise NotImplementedError

    def _take_irq(self) -> bool:
        """Enter the interrupt handler if the guest accepts interrupts now; False if they are masked."""
        raise NotImplementedError

    def _decoder(self) -> Any:
        """A capstone disassembler."""
        raise NotImplementedError

    # -- engine -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._uc = self._create()
        self._handle = raw.handle_of(self._uc)
        self._keep.clear()
        self._count = raw.Count(self._uc, raw.find_counter())
        self._running = False
        self._used = False
        self._flat = FlatTlb(self._uc, self._is_data, self._is_code, self._remember)
        self._prepare()

    def reset(self, registers: dict[str, int]) -> None:
        """Cpu.reset: a new engine, the only complete reset that Unicorn has."""
        if self._used:
            self._open()
            for remap in self._mappings:
                remap()
        self._irqs = 0
        self.fault = self._fault = None
        for name, value in registers.items():
            self.write_register(name, value)

    def close(self) -> None:
        """Cpu.close."""
        self._mappings.clear()
        # Hooks lead back to us: without these two lines the engine would live until the garbage collector comes.
        self._uc._callbacks.clear()
        self.on_counter = self.on_hypercall = None
        self._keep.clear()
        del self._uc  # its finalizer frees the engine

    # -- address space ----------------------------------------------------------------------------

    def _map(self, action: Callable[[], None]) -> None:
        action()
        self._mappings.append(action)

    def map_ram(self, base: int, ram: Ram) -> None:
        """Cpu.map_ram: the guest works in the host's pages, so DMA needs no copy."""
        self._map(lambda: self._uc.mem_map_ptr(base, ram.view.nbytes, const.UC_PROT_ALL, ram.address))
        self.memory.add_bank(base, ram.view)

    def map_rom(self, base: int, content: bytes, size: int) -> None:
        """Cpu.map_rom: memory of the engine's own, since a store refused on a mem_map_ptr range lands all the same."""

        def action() -> None:
            self._uc.mem_map(base, size, const.UC_PROT_READ | const.UC_PROT_EXEC)
            if content:
                self._uc.mem_write(base, bytes(content))
            # For these addresses only: a memory hook on RAM would put every store there on Unicorn's slow path.
            self._uc.hook_add(const.UC_HOOK_MEM_WRITE_PROT, self._discard_store, None, base, base + size - 1)

        self._map(action)

    def map_io(self, window: IoWindow) -> None:
        """Cpu.map_io."""
        self._map(
            lambda: self._keep.append(raw.MmioMapping(self._uc, window.base, window.size, window, self._remember))
        )

    def invalidate(self, start: int, end: int) -> None:
        """Cpu.invalidate: Unicorn does not see what the host writes, and would run the old code again."""
        if self._flat.active:
            self._flat.invalidate(start, end)
        else:
            self._uc.ctl_remove_cache(start, end)

    # -- running ----------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[int, Reason]:
        """Cpu.run."""
        self._stop_reason = None
        self._kicked = False
        self._used = True
        self._done = 0
        while self._done < budget:
            slice_budget = budget - self._done
            if self._irqs and not self._take_irq():
                slice_budget = min(slice_budget, MASKED_SLICE)
            reason = self._slice(slice_budget)
            if reason is not Reason.BUDGET or self._kicked:
                return self._done, reason
        return self._done, Reason.BUDGET

    def _slice(self, budget: int) -> Reason:
        count = self._count
        self._running = True
        status = raw.library.uc_emu_start(self._handle, self._entry(), raw.NOWHERE, 0, budget)
        self._running = False
        self._done += count.executed()
        if self._flat.declined is not None:
            self._done -= self._flat.leave()
            return Reason.BUDGET
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._stop_reason is not None:
            return self._stop_reason
        if status or self._fault is not None:
            self.fault = self._describe_fault(status)
            return Reason.FAULT
        return Reason.WFI if count.ended_early() else Reason.BUDGET

    def _entry(self) -> int:
        """Where to go on, as emu_start wants it."""
        return self.pc

    def executed(self) -> int:
        """Cpu.executed."""
        return self._done + self._count.executed() if self._running else 0

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """Cpu.stop."""
        self._stop_reason = self._stop_reason or reason
        self._count.end_after_this()

    def take_stop_reason(self) -> Reason | None:
        """Cpu.take_stop_reason."""
        reason, self._stop_reason = self._stop_reason, None
        return reason

    def kick(self) -> None:
        """Cpu.kick."""
        self._kicked = True
        self._count.end_after_this()

    def set_irq(self, level: bool, line: int = 0) -> None:
        """Cpu.set_irq: called from a device while the guest runs, it ends the slice, so that run() can deliver it."""
        bit = 1 << line
        if level and not self._irqs & bit:
            self._irqs |= bit
            self._count.end_after_this()
        elif not level:
            self._irqs &= ~bit

    def irq_pending(self) -> bool:
        """Cpu.irq_pending."""
        return self._irqs != 0

    def _remember(self, error: BaseException) -> None:
        self._error = self._error or error
        self._count.end_after_this()

    def _refuse(self, what: str, address: int | None = None) -> None:
        """Called in a hook: the run ends as a fault."""
        self._fault = self._fault or (what, address)
        self._count.end_after_this()

    # -- faults -----------------------------------------------------------------------------------

    @staticmethod
    def _discard_store(uc: raw.Engine, access: int, address: int, size: int, value: int, data: object) -> bool:
        return True  # "handled": the store to ROM has no effect and the guest goes on

    def _describe_fault(self, status: int) -> Fault:
        pc = self.pc
        if self._fault is not None:
            what, address = self._fault
        else:
            what = _MEMORY_ERRORS.get(status, str(raw.UcError(status)))
            address = self._repeat_to_find_address() if status in _MEMORY_ERRORS else None
        return Fault(what, pc, self.disassemble(pc), address)

    def _repeat_to_find_address(self) -> int | None:
        """Run the faulting instruction again under a hook that tells the address.

        A hook on invalid accesses from the start would put every access of the guest on Unicorn's slow path.
        """
        seen: list[int] = []

        def note(uc: raw.Engine, access: int, address: int, size: int, value: int, data: object) -> bool:
            seen.append(address)
            return False

        hook = self._uc.hook_add(const.UC_HOOK_MEM_INVALID, note)
        raw.library.uc_emu_start(self._handle, self._entry(), raw.NOWHERE, 0, 1)
        self._uc.hook_del(hook)
        return seen[0] if seen else None

    # -- state ------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Cpu.pc."""
        return int(self._uc.reg_read(self.PC))

    def read_register(self, name: str) -> int:
        """Cpu.read_register."""
        return int(self._uc.reg_read(self.REGISTERS[name]))

    def write_register(self, name: str, value: int) -> None:
        """Cpu.write_register."""
        self._uc.reg_write(self.REGISTERS[name], value)

    def disassemble(self, address: int) -> str:
        """Cpu.disassemble."""
        try:
            code = bytes(self._uc.mem_read(address, 4))
        except raw.UcError:
            return ""
        for instruction in self._decoder().disasm(code, address, 1):
            return f"{instruction.mnemonic} {instruction.op_str}".strip()
        return f".word {int.from_bytes(code, 'little'):#010x}"

    def save(self) -> dict[str, object]:
        """Cpu.save: the library's own picture of the CPU, which has more in it than registers with a number."""
        return {
            "version": 2,
            "emulator": raw.VERSION,
            "irqs": self._irqs,
            "flat": self._flat.active,
            "context": bytes(self._uc.context_save()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Cpu.load: translated code stays, so whoever changes memory with it says what (invalidate)."""
        if (state["version"], state["emulator"]) != (2, raw.VERSION):
            raise UsageError(
                f"a CPU saved by {state.get('emulator', 'another version')} cannot go on here, with {raw.VERSION}"
            )
        if state["flat"] and not self._flat.active:
            self.reset({})
        elif self._flat.active and not state["flat"]:
            self._flat.leave()
        self._used = True
        self._irqs = state["irqs"]
        self.fault = self._fault = None
        raw.restore(self._uc, state["context"])
        self._translation_changed()

    def _translation_changed(self) -> None:
        """Registers that govern address translation may have any value now."""
