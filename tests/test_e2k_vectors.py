"""The e2k CPU does what was recorded on qemu-e2k, and its text forms say the same."""

import random

import pytest

from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.cpu.e2k.adapter import E2kCpu
from e2kdisk.machine.cpu.e2k.assembler import assemble
from e2kdisk.machine.cpu.e2k.bundle import length_of, pack, unpack
from e2kdisk.machine.cpu.e2k.decode import decode
from e2kdisk.machine.cpu.e2k.disassembler import disassemble, listing
from e2kdisk.machine.cpu.e2k.trap import Trap
from e2kdisk.machine.ram import GuestRam
from tests.e2k_lab import vectors

CODE, MEMORY = 0x1_0000_0000, 0x400_0000
MAX_STEPS = 1000
TRAPS = {
    "illegal_opcode": {Trap.ILLEGAL},
    "window_bounds": {Trap.WINDOW_BOUNDS},
    "division": {Trap.DIVISION},
    # The emulator died of these; here they are traps like others.
    "emulator_crash": {Trap.UNALIGNED, Trap.DIVISION},
    None: {None},
}
SECTION_5 = {
    "addd 0, 0x12345678 -> r1": "11000004 81d8c011 00000000 78563412",
    "addd 0, 0x110000000 -> r4": "11000004 84dcc011 01000000 00000010",
    "stb,2 r1 -> [r0 + 2]": "01000010 81c28024",
    "ldb,2 [r0 + 2] -> r2": "01000010 82c28064",
    "andd,0 r2, 4 -> r3": "01000004 83c48201",
    "cmpesb,0 r3, 0 -> p0": "01000004 40c08320",
    "branch . - 0x30 ? p0": "12500000 40000000 faffff0f 00000000",
    "branch .": "12500000 20000000 00000000 00000000",
    "ldw,2 [r4 + 0x12000] -> r5": "11000010 85d88466 00000000 00200100",
    "ldb,2,io [r4 + 0] -> r6": "12800010 86c08464 00800160 00000000",
    "stb,2,io r6 -> [r4 + 0]": "12800010 86c08424 00800160 00000000",
}

each_vector = pytest.mark.parametrize("vector", [pytest.param(v, id=v["name"]) for v in vectors()])


@pytest.fixture(scope="module")
def machine():
    """One CPU for all vectors, with its code and data memory."""
    cpu, code, memory = E2kCpu(), GuestRam(2 << 20), GuestRam(1 << 20)
    cpu.map_ram(CODE, code)
    cpu.map_ram(MEMORY, memory)
    yield cpu, code, memory
    cpu.close()


def prepare(machine, vector):
    """Everything that the vector does not name holds noise, which must stay."""
    cpu, code_ram, memory = machine
    noise = random.Random(vector["name"])
    address, code = int(vector["addr"], 16), bytes.fromhex(vector["code"])
    code_ram.view[address - CODE : address - CODE + len(code)] = code
    registers = {f"r{n}": noise.getrandbits(64) for n in range(16)}
    registers |= {f"p{n}": noise.getrandbits(1) for n in range(32)}
    registers |= {name: int(value, 16) for name, value in vector["in"].items() if name != "r18"}
    registers |= {f"p{n}": value for n, value in vector.get("preds_in", {}).items()}
    cpu.reset({"pc": address, **registers})
    for where, content in vector.get("mem_in", {}).items():
        content, at = bytes.fromhex(content), int(where, 16) - MEMORY
        memory.view[at : at + len(content)] = content
    return registers, address + len(code)


def run_to(cpu, end, slice_size):
    steps = 0
    while cpu.pc != end and steps < MAX_STEPS:
        done, reason = cpu.run(slice_size)
        steps += done
        if reason is Reason.FAULT:
            return cpu.fault
    return None


@each_vector
def test_a_recorded_instruction_does_what_was_recorded(machine, vector):
    cpu, _, memory = machine
    registers, end = prepare(machine, vector)
    fault = run_to(cpu, end, 1)
    if "trap" in vector:
        assert (fault.trap if fault else None) in TRAPS[vector["trap"]]
        return
    if vector.get("unspecified") and fault is not None:
        assert fault.trap is Trap.DIVISION
        return
    assert fault is None
    expected = registers | {name: int(value, 16) for name, value in vector["out"].items()}
    expected |= {f"p{n}": value for n, value in vector.get("preds", {}).items()}
    assert {name: cpu.read_register(name) for name in expected} == expected
    for where, content in vector.get("mem_out", {}).items():
        content, at = bytes.fromhex(content), int(where, 16) - MEMORY
        assert bytes(memory.view[at : at + len(content)]) == content


@pytest.mark.parametrize("vector", [v for v in vectors() if v["category"] in ("call", "decode", "parallel", "regs")])
def test_slices_make_no_difference(machine, vector):
    cpu = machine[0]
    states = []
    for slice_size in (1, 3, 2):
        _, end = prepare(machine, vector)
        code = bytes.fromhex(vector["code"])
        count = 0
        while cpu.pc != end:
            count += cpu.run(1)[0]
        prepare(machine, vector)
        left = count
        while left:
            left -= cpu.run(min(slice_size, left))[0]
        assert cpu.pc == end, code.hex()
        states.append(cpu.save())
    assert states[0] == states[1] == states[2]


@each_vector
def test_disassembled_and_assembled_it_is_the_same_bytes(vector):
    code, address = bytes.fromhex(vector["code"]), int(vector["addr"], 16)
    text = "\n".join(line for _, _, line in listing(code, address))
    assert assemble(text, base=address).code == code
    if not vector.get("trap", ""):
        assert ".word" not in text


@each_vector
def test_unpacked_and_packed_it_is_the_same_bytes(vector):
    code = bytes.fromhex(vector["code"])
    while code:
        part, code = code[: length_of(code[0])], code[length_of(code[0]) :]
        if vector["name"] != "trap_mdl_bad":
            assert pack(unpack(part)) == part


@pytest.mark.parametrize(("text", "code"), SECTION_5.items())
def test_the_encodings_that_ran_on_qemu_e2k(text, code):
    code = bytes.fromhex(code)
    assert assemble(text, base=CODE).code == code
    again = disassemble(code, CODE)
    assert assemble(again, base=CODE).code == code
    assert decode(unpack(code)).length == len(code)
