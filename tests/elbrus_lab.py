"""Machines of the Elbrus board that run a few lines of assembler."""

import struct

from e2kdisk import Machine
from e2kdisk.machine.cpu.e2k.assembler import assemble

FIRMWARE = 0x1_0000_0000
PORTS = 0x1_0100_0000
CONFIG = 0x2_0000_0000
SERIAL = 0x8000_1000
SPMC = CONFIG + (0x0C << 15)

PUT_CHARACTER = f"""
put:            # r1 = character, on console 0
    {{ setwd wsz=8; return ctpr3; addd 0, {SERIAL} -> r1 }}
    addd 0, 5 -> r2
    stb r2 -> [r1]
    addd 0, 0x68 -> r2
    stb r2 -> [r1]
    {{ ct ctpr3; stb r0 -> [r1 + 1] }}
"""


def function(device, number=0):
    """Address of a function's configuration space."""
    return CONFIG + (device << 15 | number << 12)


def elbrus(program="stop: branch stop", /, **options):
    """A machine that starts with this program, assembler or bytes, at its firmware's place."""
    if isinstance(program, str):
        program = assemble(program, base=FIRMWARE).code
    return Machine("elbrus", bios=program, **options)


def elf(segments, entry, machine=175):
    """An ELF file with these segments: (address, content, size in memory)."""
    table, start = b"", 64 + 56 * len(segments)
    for address, content, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, start, address, address, len(content), size, 8)
        start += len(content)
    rest = (2, machine, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    header = struct.pack("<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, *rest)
    return header + table + b"".join(content for _, content, _ in segments)


def peek(machine, address, size=8):
    """A number in guest memory."""
    return int.from_bytes(machine.cpu.memory.source(address, size), "little")


def load(machine, address, size=4, mas=0):
    """What the guest would read at an address."""
    return machine.cpu.space.load(address, size, mas)


def store(machine, address, value, size=4, mas=0):
    """Store as the guest would."""
    machine.cpu.space.store(address, value, size, mas)
