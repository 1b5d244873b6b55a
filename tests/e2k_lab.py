"""Runs e2k programs: source or bytes in, a CPU with some memory out."""

import json
from functools import cache, lru_cache
from pathlib import Path

from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.cpu.e2k.adapter import E2kCpu
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.ram import GuestRam

BASE = 0x1_0000_0000
DATA = 0x1_0008_0000
RAM = 1 << 20
VECTORS = Path(__file__).parent / "data" / "e2k_vectors.json"


@cache
def vectors():
    """The recorded instructions: what qemu-e2k did with them."""
    return json.loads(VECTORS.read_text())


class Lab:
    """A CPU with 1 MiB of RAM from BASE."""

    def __init__(self, program="", /, **registers):
        self.cpu = E2kCpu()
        self.ram = GuestRam(RAM)
        self.cpu.map_ram(BASE, self.ram)
        self.symbols = {}
        self.cpu.reset({"pc": BASE})
        if program:
            self.put(program)
        for name, value in registers.items():
            self.cpu.write_register(name, value)

    @staticmethod
    @lru_cache(maxsize=64)
    def _assembled(program):
        return Lab(program)

    @classmethod
    def again(cls, program, /, **registers):
        """The same Lab for the same text, back at its start; registers not given are what they were."""
        lab = cls._assembled(program)
        lab.cpu.write_register("pc", BASE)
        for name, value in registers.items():
            lab.cpu.write_register(name, value)
        return lab

    def put(self, program, address=BASE):
        """Place source text or bytes."""
        if isinstance(program, str):
            assembled = assemble(program, base=address)
            self.symbols |= assembled.symbols
            program = assembled.code
        self.poke(address, program)
        self.cpu.invalidate(address, address + len(program))

    def poke(self, address, content):
        self.ram.view[address - BASE : address - BASE + len(content)] = content

    def peek(self, address, size=8):
        return int.from_bytes(self.ram.view[address - BASE : address - BASE + size], "little")

    def run(self, budget=10_000):
        """Until it stops by itself, which it must."""
        done, reason = self.cpu.run(budget)
        assert reason is not Reason.BUDGET, f"still at {self.cpu.pc:#x} after {done}"
        return reason

    def step(self, count=1):
        """Exactly so many wide instructions."""
        assert self.cpu.run(count) == (count, Reason.BUDGET), self.cpu.fault
        return self

    def trap(self):
        """Run into a trap and return its kind."""
        assert self.run() is Reason.FAULT
        return self.cpu.fault.trap

    def __getitem__(self, name):
        return self.cpu.read_register(name)
