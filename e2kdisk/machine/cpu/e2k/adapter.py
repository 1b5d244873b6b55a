"""The e2k CPU as a machine sees it: the Cpu protocol over translated wide instructions.

Guests poll: interrupt inputs are kept and told by irq_pending(), but none is ever taken. A wide instruction that does
nothing but branch to itself waits for ever, and ends a run with WFI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from e2kdisk.devices.memory import RamMemory
from e2kdisk.machine.cpu.cpu import Fault, IoWindow, Ram, Reason
from e2kdisk.machine.cpu.e2k.bundle import MAX_BYTES, length_of, unpack
from e2kdisk.machine.cpu.e2k.decode import MASK64, Instruction, decode
from e2kdisk.machine.cpu.e2k.memory import LINE_SHIFT, AddressSpace
from e2kdisk.machine.cpu.e2k.translate import HELPERS, Block, Frame, place, translate
from e2kdisk.machine.cpu.e2k.trap import E2kFault, GuestTrap, Trap

RUN_LENGTH = 32
"""Wide instructions in one translated run: bounds how late a kick from another thread is seen."""
FIRST_REGISTERS = 1 << 9
MAX_REGISTERS = 1 << 16
"""Registers of all windows together; an Elbrus spills to memory what its own file does not hold."""
MAX_BLOCKS = 20_000
MAX_FRAMES = 2_000
"""Translations kept at most: a guest must not fill the host's memory with them."""
WINDOW_ROOM = 256
"""At least this much lies above the start of a window."""


class Activation(NamedTuple):
    """A caller, as it will be found again."""

    pc: int
    window: int
    frame: Frame
    predicates: tuple[int, ...]


class E2kCpu:
    """Cpu for Elbrus version 4, physical addresses, tags off."""

    takes_interrupts = False
    RETURN = -1
    """A ctpr prepared for the return."""

    def __init__(self) -> None:
        self.memory = RamMemory(on_written=self.invalidate)
        self.space = AddressSpace(self.invalidate)
        self.fault: Fault | None = None
        self.on_hypercall: Callable[[], Reason | None] | None = None
        self.on_counter: Callable[[], int] | None = None
        self._irqs = 0
        self._running = False
        self._done = 0
        self._stop_reason: Reason | None = None
        self._kicked = False
        self._translations: dict[Frame, tuple[dict[int, Block], dict[int, Block]]] = {}
        self._on_line: dict[int, list[tuple[dict[int, Block], int]]] = {}
        self._block_count = 0
        self._namespace: dict[str, object] = {}
        self.registers = [0] * FIRST_REGISTERS
        self.globals = [0] * 32
        self.predicates: list[int] = [0] * 32
        # What translated code uses.
        self.attention = False
        """Something wants to be looked at before the next wide instruction."""
        self.ran = 0
        """How many of its wide instructions a run has carried out, when it left early."""
        self.k = 0
        """Which wide instruction of the run makes the present access."""
        self.window = 0
        self.ctpr: list[int | None] = [None] * 4
        self._power_on()

    def _power_on(self) -> None:
        self.registers[:] = [0] * FIRST_REGISTERS
        self.globals[:] = [0] * 32
        self.predicates[:] = [0] * 32
        self.ctpr[:] = [None] * 4
        self.window = 0
        self._calls: list[Activation] = []
        self._pc = 0
        self._block = Block(lambda cpu: 0, 0, (0,), 0)
        self.set_frame(tuple(Frame()))

    def reset(self, registers: dict[str, int]) -> None:
        """Cpu.reset."""
        self._power_on()
        self._forget_all()
        self._irqs = 0
        self.fault = None
        for name, value in registers.items():
            self.write_register(name, value)

    def close(self) -> None:
        """Cpu.close."""
        self._forget_all()
        self.on_counter = self.on_hypercall = None

    # -- address space ----------------------------------------------------------------------------

    def map_ram(self, base: int, ram: Ram) -> None:
        """Cpu.map_ram."""
        self.space.add_bank(base, ram.view, writable=True)
        self.memory.add_bank(base, ram.view)
        self._forget_all()

    def map_rom(self, base: int, content: bytes, size: int) -> None:
        """Cpu.map_rom."""
        self.space.add_bank(base, memoryview(bytes(content) + bytes(size - len(content))), writable=False)
        self._forget_all()

    def map_io(self, window: IoWindow) -> None:
        """Cpu.map_io."""
        self.space.add_window(window)

    def map_ports(self, window: IoWindow) -> None:
        """Registers in the I/O space: loads and stores with MAS mode 6 find them, at window.base upwards."""
        self.space.add_ports(window)

    def _drop_blocks(self) -> None:
        self._translations.clear()
        self._on_line.clear()
        self.space.code_lines.clear()
        self._block_count = 0

    def _forget_all(self) -> None:
        self._drop_blocks()
        self._namespace = {}
        self.set_frame(tuple(self.frame))

    def invalidate(self, start: int, end: int) -> None:
        """Cpu.invalidate."""
        lines = self.space.code_lines
        touched = range(start >> LINE_SHIFT, (end - 1 >> LINE_SHIFT) + 1)
        stale = (
            lines.intersection(touched) if len(touched) < len(lines) else {line for line in lines if line in touched}
        )
        for line in stale:
            lines.discard(line)
            for table, pc in self._on_line.pop(line, ()):
                table.pop(pc, None)
        if stale:
            self.attention = True

    # -- translation ------------------------------------------------------------------------------

    def fetch(self, pc: int) -> bytes:
        """The bytes of the wide instruction at an address; raises GuestTrap where there is none."""
        bank = self.space.bank_of(pc, 8)
        if bank is None or pc & 7:
            raise GuestTrap(Trap.FETCH, "" if bank is None else "not a multiple of 8", pc)
        offset = pc - bank.base
        code = bank.view[offset : offset + MAX_BYTES]
        return bytes(code[: length_of(code[0])])

    def _instruction(self, pc: int) -> Instruction:
        return decode(unpack(self.fetch(pc)))

    def _translate(self, pc: int, limit: int, table: dict[int, Block]) -> Block:
        if not self._namespace:
            self._namespace = self._make_namespace()
        block = translate(self._instruction, pc, self.frame, limit, self._namespace)
        table[pc] = block
        for line in range(pc >> LINE_SHIFT, (block.end - 1 >> LINE_SHIFT) + 1):
            self._on_line.setdefault(line, []).append((table, pc))
            self.space.code_lines.add(line)
        return block

    def _make_namespace(self) -> dict[str, object]:
        names = HELPERS | {"R": self.registers, "G": self.globals, "P": self.predicates}
        for size in (1, 2, 4, 8):
            names[f"load{size}"] = self.space.fast_load(size, self._slow_load)
            names[f"store{size}"] = self.space.fast_store(size, self._slow_store)
        return names

    # -- what translated code calls ---------------------------------------------------------------

    def _slow_load(self, address: int, size: int, index: int) -> int:
        self.k = index
        return self.space.load(address, size)

    def _slow_store(self, address: int, value: int, size: int, index: int) -> None:
        self.k = index
        self.space.store(address, value, size)

    def load_by(self, address: int, size: int, mas: int, speculative: bool, index: int) -> int:
        """A load with MAS, or a speculative one, which gives 0 where others trap."""
        self.k = index
        try:
            return self.space.load(address, size, mas)
        except GuestTrap:
            if speculative:
                return 0
            raise

    def store_by(self, address: int, value: int, size: int, mas: int, index: int) -> None:
        """A store with MAS."""
        self.k = index
        self.space.store(address, value, size, mas)

    @staticmethod
    def speculate(compute: Callable[[], int]) -> int:
        """The result of a speculative operation: 0 where others trap, since there are no tags to say so."""
        try:
            return compute()
        except GuestTrap:
            return 0

    def set_frame(self, frame: tuple[int, ...]) -> None:
        """Go on with another frame's translations."""
        self.frame = Frame._make(frame)
        if len(self._translations) >= MAX_FRAMES:
            self._drop_blocks()
        self.blocks, self._singles = self._translations.setdefault(self.frame, ({}, {}))

    def prepared(self, ctpr: int, index: int, calls: bool) -> int:
        """Where a ctpr leads."""
        self.k = index
        target = self.ctpr[ctpr]
        if target is None:
            raise GuestTrap(Trap.ILLEGAL, f"ctpr{ctpr} is not prepared")
        if target == self.RETURN and calls:
            raise GuestTrap(Trap.ILLEGAL, f"ctpr{ctpr} is prepared for a return, not for a call")
        if target == self.RETURN and not self._calls:
            raise GuestTrap(Trap.STACK, "return without a call")
        return target

    def call(self, target: int, base: int, back: int, frame: tuple[int, ...], index: int) -> int:
        """Enter a procedure; `base` is where its window starts in that of the caller."""
        self._calls.append(Activation(back, self.window, self.frame, tuple(self.predicates)))
        self.window += 2 * base
        if self.window + WINDOW_ROOM > MAX_REGISTERS or len(self._calls) > MAX_REGISTERS:
            self._leave()
            self.k = index
            raise GuestTrap(Trap.STACK, "calls are nested too deeply")
        self._make_room()
        self.ctpr[:] = [None] * 4
        self.set_frame(frame)
        return target

    def _make_room(self) -> None:
        missing = self.window + WINDOW_ROOM - len(self.registers)
        if missing > 0:
            self.registers.extend([0] * max(missing, FIRST_REGISTERS))

    def _leave(self) -> Activation:
        caller = self._calls.pop()
        self.window = caller.window
        self.predicates[:] = caller.predicates
        return caller

    def give_back(self, index: int) -> int:
        """Return from a procedure."""
        caller = self._leave()
        self.ctpr[:] = [None] * 4
        self.set_frame(tuple(caller.frame))
        return caller.pc

    def wait(self, pc: int) -> int:
        """A branch to itself: nothing will ever change for this guest."""
        self._stop_reason = self._stop_reason or Reason.WFI
        self.attention = True
        return pc

    # -- running ----------------------------------------------------------------------------------

    def run(self, budget: int) -> tuple[int, Reason]:
        """Cpu.run."""
        self._stop_reason = None
        self._kicked = self.attention = False
        self.ran = 0
        self._running = True
        try:
            return self._run(budget)
        except GuestTrap as trap:
            self._pc = self.pc
            self._done += self.k
            self.fault = self._describe(trap)
            return self._done, Reason.FAULT
        except BaseException:
            self._pc = self.pc
            raise
        finally:
            self._running = False

    def _run(self, budget: int) -> tuple[int, Reason]:
        done, pc = 0, self._pc
        while done < budget:
            block = self.blocks.get(pc) or self._enter(pc, RUN_LENGTH, done)
            if block.steps > budget - done:
                block = self._singles.get(pc) or self._enter(pc, 1, done)
            self._block = block
            self._done = done
            done += block.steps
            pc = block.run(self)
            if self.attention:
                if self.ran:
                    done += self.ran - block.steps
                    self.ran = 0
                self.attention = False
                if self._stop_reason is not None or self._kicked:
                    break
        self._pc = pc
        return done, self._stop_reason or Reason.BUDGET

    def _enter(self, pc: int, limit: int, done: int) -> Block:
        # A bundle that is refused traps here, where pc must already be its address.
        self._block, self._done, self.k = Block(self._block.run, 0, (pc,), pc), done, 0
        self._block_count += 1
        if self._block_count > MAX_BLOCKS:
            self._drop_blocks()
            self.set_frame(tuple(self.frame))
        return self._translate(pc, limit, self.blocks if limit > 1 else self._singles)

    def executed(self) -> int:
        """Cpu.executed."""
        return self._done + self.k + 1 if self._running else 0

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """Cpu.stop."""
        self._stop_reason = self._stop_reason or reason
        self.attention = True

    def take_stop_reason(self) -> Reason | None:
        """Cpu.take_stop_reason."""
        reason, self._stop_reason = self._stop_reason, None
        return reason

    def kick(self) -> None:
        """Cpu.kick."""
        self._kicked = True
        self.attention = True

    def set_irq(self, level: bool, line: int = 0) -> None:
        """Cpu.set_irq: only kept, see above."""
        self._irqs = self._irqs | 1 << line if level else self._irqs & ~(1 << line)

    def irq_pending(self) -> bool:
        """Cpu.irq_pending: no interrupt ends the waiting of a guest that does not take any."""
        return False

    def _describe(self, trap: GuestTrap) -> E2kFault:
        try:
            code = self.fetch(self._pc)
        except GuestTrap:
            code = b""
        return E2kFault(str(trap), self._pc, self.disassemble(self._pc), trap.address, trap.trap, code)

    # -- state ------------------------------------------------------------------------------------

    @property
    def pc(self) -> int:
        """Cpu.pc."""
        addresses = self._block.addresses
        return addresses[min(self.k, len(addresses) - 1)] if self._running else self._pc

    def _register(self, name: str) -> tuple[list[int], int]:
        file, number = name[:1], int(name[1:]) if name[1:].isdecimal() else -1
        if file in "rb" and 0 <= number < 64:
            from e2kdisk.machine.cpu.e2k.decode import Register

            text = place(Register(file, number), self.frame)
            return self.registers, self.window + (int(text[6:-1]) if "+" in text else 0)
        if file == "g" and 0 <= number < 32:
            return self.globals, number
        if file == "p" and 0 <= number < 32:
            return self.predicates, number
        raise KeyError(name)

    def read_register(self, name: str) -> int:
        """Cpu.read_register: r0.., b0.., g0..31, p0..31, ctpr1..3 (0 if not prepared), window fields, pc."""
        if name == "pc":
            return self.pc
        if name in Frame._fields:
            return int(getattr(self.frame, name))
        if name in ("ctpr1", "ctpr2", "ctpr3"):
            return self.ctpr[int(name[4])] or 0
        table, index = self._register(name)
        return int(table[index])

    def write_register(self, name: str, value: int) -> None:
        """Cpu.write_register."""
        if name == "pc":
            self._pc = value
        elif name in Frame._fields:
            fields = self.frame._asdict() | {name: value}
            self.set_frame(tuple(fields.values()))
        elif name in ("ctpr1", "ctpr2", "ctpr3"):
            self.ctpr[int(name[4])] = value
        else:
            table, index = self._register(name)
            table[index] = value & (1 if table is self.predicates else MASK64)

    def disassemble(self, address: int) -> str:
        """Cpu.disassemble."""
        from e2kdisk.machine.cpu.e2k.disassembler import disassemble

        try:
            return disassemble(self.fetch(address), address)
        except GuestTrap:
            return ""

    def save(self) -> dict[str, object]:
        """Cpu.save."""
        used = self.window + WINDOW_ROOM
        return {
            "version": 1,
            "pc": self._pc,
            "irqs": self._irqs,
            "registers": self.registers[:used],
            "globals": list(self.globals),
            "predicates": [int(value) for value in self.predicates],
            "ctpr": list(self.ctpr),
            "window": self.window,
            "frame": list(self.frame),
            "calls": [[call.pc, call.window, list(call.frame), list(call.predicates)] for call in self._calls],
        }

    def load(self, state: dict[str, object]) -> None:
        """Cpu.load."""
        values: dict[str, list[int]] = {name: value for name, value in state.items() if isinstance(value, list)}
        self.reset({})
        self._pc, self._irqs, self.window = (int(str(state[name])) for name in ("pc", "irqs", "window"))
        self._make_room()
        self.registers[: len(values["registers"])] = values["registers"]
        self.globals[:] = values["globals"]
        self.predicates[:] = values["predicates"]
        self.ctpr[:] = values["ctpr"]
        calls: Any = state["calls"]
        self._calls = [Activation(pc, window, Frame._make(f), tuple(p)) for pc, window, f, p in calls]
        self.set_frame(tuple(values["frame"]))
