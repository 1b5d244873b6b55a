"""What a Unicorn adapter promises to a machine: exact counts, clean stops, clear faults, interrupts."""

import struct
import threading

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.machine.bus import Bus, Stub
from e2kdisk.machine.cpu.cpu import Reason
from e2kdisk.machine.cpu.unicorn_arm64 import Arm64Cpu
from e2kdisk.machine.cpu.unicorn_riscv64 import EXTERNAL, Riscv64Cpu
from e2kdisk.machine.ram import GuestRam

pytestmark = pytest.mark.guest

RAM, IO, ROM = 0x4000_0000, 0x0900_0000, 0x0
# ldr w1, [x0]; str w1, [x0, #4]; add x2, x2, #1; b to the load
LOOP = (0xB9400001, 0xB9000401, 0x91000442, 0x17FFFFFD)


class Registers:
    """A device that counts accesses and calls back at one of them."""

    name = "registers"
    size = 0x1000

    def __init__(self):
        self.reads, self.writes = 0, []
        self.on_read = self.on_write = lambda: None

    def read(self, offset, size):
        self.reads += 1
        self.on_read()
        return self.reads

    def write(self, offset, size, value):
        self.writes.append(value)
        self.on_write()

    def register_name(self, offset):
        return ""

    def reset(self):
        pass


@pytest.fixture
def machine():
    """A CPU with RAM and one device; calling it places code in RAM and points pc there."""
    cpus = []

    def make(code, cpu_type=Arm64Cpu, device=None):
        cpu = cpu_type()
        cpus.append(cpu)
        ram = GuestRam(1 << 20)
        ram.view[: 4 * len(code)] = struct.pack(f"<{len(code)}I", *code)
        bus = Bus()
        bus.add(IO, device or Registers())
        cpu.map_ram(RAM, ram)
        cpu.map_rom(ROM, b"\x11" * 64, 0x1000)
        for window in bus.windows():
            cpu.map_io(window)
        cpu.reset({"pc": RAM})
        return cpu

    yield make
    for cpu in cpus:
        cpu.close()


@pytest.mark.parametrize("slices", [[12], [5, 7], [1] * 12, [11, 1]])
def test_a_budget_is_exact_and_slices_make_no_difference(machine, slices):
    device = Registers()
    cpu = machine(LOOP, device=device)
    cpu.write_register("x0", IO)
    for budget in slices:
        assert cpu.run(budget) == (budget, Reason.BUDGET)
    assert (cpu.pc, cpu.read_register("x2"), device.reads) == (RAM, 3, 3)


@pytest.mark.parametrize("access", ["read", "write"])
def test_a_stop_inside_an_access_neither_repeats_nor_skips_anything(machine, access):
    device = Registers()
    cpu = machine(LOOP, device=device)
    cpu.write_register("x0", IO)

    def stop():
        if len(device.writes if access == "write" else range(device.reads)) == 2:
            cpu.stop()

    setattr(device, f"on_{access}", stop)
    done, reason = cpu.run(1000)
    assert reason is Reason.STOPPED
    assert (done, cpu.pc) == ((5, RAM + 4) if access == "read" else (6, RAM + 8))
    assert cpu.run(20 - done) == (20 - done, Reason.BUDGET)
    assert device.writes == [1, 2, 3, 4, 5]
    assert device.reads == cpu.read_register("x2") == 5


def test_a_kick_from_another_thread_ends_the_run_and_harms_nothing(machine):
    device = Registers()
    cpu = machine(LOOP, device=device)
    cpu.write_register("x0", IO)
    kicked = total = 0
    stop = threading.Event()

    def kick():
        while not stop.wait(0.0005):
            cpu.kick()

    thread = threading.Thread(target=kick)
    thread.start()
    try:
        while kicked < 20:
            done, reason = cpu.run(5_000_000)
            assert reason is Reason.BUDGET
            kicked += done < 5_000_000
            total += done
    finally:
        stop.set()
        thread.join()
    cpu.run(-total % 4)
    assert device.writes == list(range(1, device.reads + 1))
    assert cpu.read_register("x2") == device.reads


def test_an_error_in_a_device_comes_out_of_run(machine):
    device = Registers()
    cpu = machine(LOOP, device=device)
    cpu.write_register("x0", IO)

    def fail():
        raise ZeroDivisionError("in a device")

    device.on_write = fail
    with pytest.raises(ZeroDivisionError, match="in a device"):
        cpu.run(1000)
    assert len(device.writes) == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0xB9000001, "store where nothing is at 0x77770000, pc 0x40000000: str w1, [x0]"),
        (0xB9400001, "load where nothing is at 0x77770000, pc 0x40000000: ldr w1, [x0]"),
        (0xD61F0000, "instruction fetch where nothing is at 0x77770000, pc 0x77770000"),
        (0x00000000, "unhandled exception (undefined instruction), pc 0x40000000: udf #0"),
        (0xD4000001, "unhandled exception (SVC), pc 0x40000004"),
    ],
)
def test_a_fault_says_what_where_and_by_which_instruction(machine, code, text):
    cpu = machine([code])
    cpu.write_register("x0", 0x7777_0000)
    assert cpu.run(10)[1] is Reason.FAULT
    assert str(cpu.fault).startswith(text)


def test_a_store_to_rom_is_lost_and_the_guest_goes_on(machine):
    cpu = machine([0xB900001F, 0xB9400003, 0xD503207F, 0x14000000])  # str wzr, [x0]; ldr w3, [x0]; wfi; b .
    assert cpu.run(100) == (3, Reason.WFI)
    assert cpu.read_register("x3") == 0x11111111


def test_after_a_reset_nothing_is_left_of_the_run_but_memory(machine):
    cpu = machine([0x91000442, 0xB9000001])  # add x2, x2, #1; str w1, [x0]
    cpu.write_register("x0", 0x7777_0000)
    assert cpu.run(10)[1] is Reason.FAULT
    cpu.reset({"pc": RAM, "x0": RAM + 64})
    assert (cpu.fault, cpu.read_register("x2")) == (None, 0)
    assert cpu.run(2) == (2, Reason.BUDGET)


def test_registers_survive_save_and_load(machine):
    cpu = machine(LOOP)
    cpu.write_register("x0", IO)
    cpu.run(7)
    state, registers = cpu.save(), [cpu.read_register(f"x{number}") for number in range(31)]
    cpu.run(6)
    cpu.load(state)
    # Of the emulator's context only the registers: it also has addresses of the host, which differ by chance.
    assert cpu.save() | {"context": b""} == state | {"context": b""}
    assert [cpu.read_register(f"x{number}") for number in range(31)] == registers
    assert (cpu.pc, cpu.read_register("x2")) == (RAM + 12, 2)


def test_invalidated_code_is_translated_again(machine):
    cpu = machine([0x91000442, 0x17FFFFFF])  # add x2, x2, #1; b to it
    cpu.run(10)
    cpu.memory.target(RAM, 4)[:] = struct.pack("<I", 0x91001042)  # add x2, x2, #4
    cpu.memory.written(RAM, cpu.memory.target(RAM, 4))
    cpu.memory.publish()
    cpu.run(10)
    assert cpu.read_register("x2") == 5 + 20


def test_a_riscv_interrupt_enters_its_handler_and_mret_returns(machine):
    # csrw mtvec, a0; csrw mie, a1; csrsi mstatus, 8; addi a2, a2, 1; j to it; then at +0x40 the handler:
    code = [0x30551073, 0x30459073, 0x30046073, 0x00160613, 0xFFDFF06F]
    code += [0x13] * 11 + [0x00168693, 0x30200073]  # addi a3, a3, 1; mret
    cpu = machine(code, Riscv64Cpu)
    cpu.write_register("x10", RAM + 0x40)
    cpu.write_register("x11", 1 << EXTERNAL)
    cpu.run(6)
    cpu.set_irq(True, EXTERNAL)
    cpu.run(1)
    cpu.set_irq(False, EXTERNAL)
    cpu.run(10)
    assert cpu.read_register("x13") == 1
    assert cpu.read_register("mcause") == 1 << 63 | EXTERNAL
    assert RAM + 12 <= cpu.pc <= RAM + 16


def test_devices_may_not_overlap_and_holes_between_them_read_as_ones():
    bus = Bus()
    bus.add(0x1000, Stub("a", 0x200, ones=False))
    bus.add(0x1400, Stub("b", 0x200, ones=False))
    with pytest.raises(UsageError, match="c at 0x1500 overlaps b at 0x1400"):
        bus.add(0x1500, Stub("c", 0x200))
    [window] = bus.windows()
    assert (window.base, window.size) == (0x1000, 0x1000)
    assert [window.read(offset, 4) for offset in (0x1FC, 0x200, 0x400, 0xFFC)] == [0, 0xFFFFFFFF, 0, 0xFFFFFFFF]
