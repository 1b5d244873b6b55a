"""What the e2k adapter promises to a machine, and to whoever programs it: order, windows, traps, exact counts."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.machine.bus import Bus
from e2kdisk.machine.cpu.cpu import Cpu, Reason
from e2kdisk.machine.cpu.e2k.adapter import MAX_BLOCKS, RUN_LENGTH, E2kCpu
from e2kdisk.machine.cpu.e2k.trap import E2kFault, Trap
from tests.e2k_lab import BASE, DATA, Lab, vectors

IO, PORTS = 0x8000_1000, 0x1_0100_0000


class Registers:
    """A device that notes its accesses and calls back."""

    name = "registers"
    size = 0x1000

    def __init__(self, base=IO):
        self.base = base
        self.seen = []
        self.on_access = lambda: None

    def read(self, offset, size):
        self.seen.append(("read", offset, size))
        self.on_access()
        return 0x1122334455667788  # more than was asked for

    def write(self, offset, size, value):
        self.seen.append(("write", offset, size, value))
        self.on_access()

    def register_name(self, offset):
        return ""

    def reset(self):
        pass


def with_device(program, **registers):
    lab, device = Lab(program, **registers), Registers()
    bus = Bus()
    bus.add(IO, device)
    for window in bus.windows():
        lab.cpu.map_io(window)
    return lab, device


def test_it_is_a_cpu_like_the_others():
    cpu: Cpu = E2kCpu()
    assert cpu.run(0) == (0, Reason.BUDGET)
    cpu.close()


NESTED = """
    # r0! by recursion: each call has a window of its own
        addd 0, 10 -> r8
        disp ctpr1, factorial
        call ctpr1, wbs=4
        addd r8, 0 -> r1
    stop: branch stop
    factorial:                      # r0 -> r0
        setwd wsz=8
        cmpbedb r0, 1 -> p0
        branch more ? ~p0
        { addd 0, 1 -> r0; return ctpr3 }
        ct ctpr3
    more:
        { subd r0, 1 -> r8; disp ctpr1, factorial }
        call ctpr1, wbs=4
        { muld r0, r8 -> r0; return ctpr3 }
        ct ctpr3
"""


@pytest.mark.parametrize("slice_size", [1, 2, 7, 1000])
def test_nested_calls_keep_each_callers_registers(slice_size):
    lab = Lab(NESTED)
    total = 0
    while True:
        done, reason = lab.cpu.run(slice_size)
        total += done
        if reason is not Reason.BUDGET:
            break
    assert (reason, lab["r1"], lab.cpu.window) == (Reason.WFI, 3628800, 0)
    assert lab.cpu.pc == lab.symbols["stop"]
    assert total == Lab(NESTED).cpu.run(10_000)[0]


def test_recursion_without_end_stops_with_a_stack_trap():
    lab = Lab("again: setwd wsz=8\n disp ctpr1, again\n call ctpr1, wbs=8")
    assert lab.run(1_000_000) is Reason.FAULT
    assert lab.cpu.fault.trap is Trap.STACK
    assert Lab("return ctpr3\nct ctpr3").trap() is Trap.STACK


def test_a_loop_counts_memory_and_predicates():
    lab = Lab(
        """
            addd 0, data -> r1
            addd 0, 0 -> r2
        loop:
            { ldb [r1] -> r3; addd r1, 1 -> r1 }
            { addd r2, r3 -> r2; cmpedb r3, 0 -> p0 }
            branch loop ? ~p0
            addd 0, data -> r1
            std r2 -> [r1 + 16]
        stop: branch stop
        data: .asciz "Elbrus"
        """
    )
    assert lab.run() is Reason.WFI
    assert lab.peek(lab.symbols["data"] + 16) == lab["r2"] == sum(b"Elbrus")


def test_everything_is_read_before_anything_is_written():
    lab = Lab(
        "{ addd,0 r1, 0 -> r2; addd,5 r2, 0 -> r1; cmpedb,1 r1, 5 -> p1; addd,3 0, 9 -> r4 ? p1 }", r1=5, r2=6, r4=1
    )
    lab.step()
    assert [lab[name] for name in ("r1", "r2", "p1", "r4")] == [6, 5, 1, 1]


def test_of_two_writes_the_highest_channel_wins():
    text = "{ addd,0 r1, 1 -> r3; addd,1 r3, 0 -> r4; addd,2 r1, 2 -> r3; addd,3 r1, 3 -> r5; addd,5 r1, 4 -> r5 }"
    lab = Lab(text, r1=0, r3=7).step()
    assert (lab["r3"], lab["r4"], lab["r5"]) == (2, 7, 4)


def test_memory_acts_in_channel_order():
    lab = Lab("{ ldd,0 [r1] -> r3; std,2 r2 -> [r1]; ldd,5 [r1] -> r4 }", r1=DATA, r2=7, r3=1, r4=1).step()
    assert (lab["r3"], lab["r4"]) == (0, 7)


def test_a_predicate_holds_from_the_next_wide_instruction():
    program = "{ cmpedb 0, 0 -> p0; branch far ? p0 }\n{ branch far ? p0 }\n nop\n far: addd 0, 1 -> r1"
    lab = Lab(program, p0=0).step()
    assert lab.cpu.pc == BASE + 16
    assert lab.step().cpu.pc == lab.symbols["far"]


@pytest.mark.parametrize("p1", [0, 1])
@pytest.mark.parametrize("p2", [0, 1])
def test_predicate_operations_and_predicated_ones(p1, p2):
    lab = Lab(
        """
            { p3 = p1 & ~p2; p4 = ~p1 && ~p2 }
            { p5 = ~p2 if p1 }
            { addd 0, 1 -> r1 ? p1; adds,3 0, 2 -> r2 ? ~p2; stb r1 -> [r6] ? p1 | p2 }
        """,
        p1=p1, p2=p2, p5=1, r1=9, r2=9 << 32, r6=DATA,
    )  # fmt: skip
    lab.step(3)
    assert [lab["p3"], lab["p4"], lab["p5"]] == [p1 and not p2, not p1 and not p2, (not p2) if p1 else 1]
    assert (lab["r1"], lab["r2"]) == (1 if p1 else 9, 9 << 32 | (0 if p2 else 2))
    assert lab.peek(DATA, 1) == (9 if p1 or p2 else 0)


def test_chained_predicate_operations_use_earlier_results():
    # CLP0 = p1 & p2, CLP1 = CLP0 & ~p3 -> p4
    lab = Lab("pls 0x61620040, 0x63630000 | 4 << 10 | 1 << 9 | 2 << 6 | 1 << 5 | 4", p1=1, p2=1, p3=0, p4=0)
    assert lab.step()["p4"] == 1


def test_setwd_doubled_clears_the_upper_half():
    lab = Lab("setwd wsz=8, dbl=1\nadds 0, 1 -> r1\nsetwd wsz=8\nadds 0, 2 -> r2", r1=-1, r2=-1).step(4)
    assert (lab["r1"], lab["r2"]) == (1, 0xFFFF_FFFF_0000_0002)


def test_the_based_window_turns():
    lab = Lab("setbn rbs=2, rsz=1, rcur=0\n{ addd 0, 7 -> b0; advance }\naddd b2, 1 -> b0").step(3)
    assert (lab["r4"], lab["r6"], lab["b2"]) == (7, 8, 7)


@pytest.mark.parametrize(
    ("program", "trap"),
    [
        ("ldd [r1 + 1] -> r2", Trap.UNALIGNED),
        ("stw r2 -> [r1 + 2]", Trap.UNALIGNED),
        ("ldd [0x10] -> r2", Trap.LOAD),
        ("std r2 -> [0x10]", Trap.STORE),
        ("ldb,io [r1] -> r2", Trap.LOAD),
        ("ldb,mas=7 [r1] -> r2", Trap.UNSUPPORTED),
        ("addd r16, 0 -> r1", Trap.WINDOW_BOUNDS),
        ("addd b2, 0 -> r1", Trap.WINDOW_BOUNDS),
        ("setwd wsz=3", Trap.ILLEGAL),
        ("setwd wsz=113", Trap.ILLEGAL),
        ("ct ctpr1", Trap.ILLEGAL),
        ("{ addd 0, 1 -> r1; udivd r2, 0 -> r3 }", Trap.DIVISION),
        (".word 0x04000001, 0x0d818283", Trap.ILLEGAL),
        (".word 0x04000001, 0x38818283", Trap.UNSUPPORTED),
        (".word 0x04000c01, 0x10818283", Trap.UNSUPPORTED),
        (".word 0x04000001, 0x0e818283", Trap.ILLEGAL),
    ],
)
def test_a_trap_names_the_place_and_changes_nothing(program, trap):
    lab = Lab(f"addd 0, 1 -> r9\n{program}", r1=DATA)
    before = {f"r{n}": lab[f"r{n}"] for n in range(16)} | {"r9": 1}
    assert lab.cpu.run(100) == (1, Reason.FAULT)
    fault = lab.cpu.fault
    assert isinstance(fault, E2kFault)
    assert (fault.trap, fault.pc, lab.cpu.pc) == (trap, BASE + 8, BASE + 8)
    assert {f"r{n}": lab[f"r{n}"] for n in range(16)} == before
    assert fault.code.hex() in str(fault)
    assert fault.instruction
    assert lab.cpu.run(100) == (0, Reason.FAULT)  # and does so again


@pytest.mark.parametrize("target", [0x10, BASE + 4, BASE + (1 << 20)])
def test_a_jump_to_where_no_code_is_stops_there(target):
    lab = Lab("ct ctpr1", ctpr1=target)
    assert lab.cpu.run(100) == (1, Reason.FAULT)
    assert (lab.cpu.fault.trap, lab.cpu.fault.pc) == (Trap.FETCH, target)


def test_speculative_operations_do_not_trap():
    lab = Lab("ldd,sm [r1] -> r2\nudivd,5,sm r3, 0 -> r4", r1=1, r2=9, r4=9).step(2)
    assert (lab["r2"], lab["r4"]) == (0, 0)


def test_a_device_sees_pc_and_the_exact_count():
    lab, device = with_device("addd r2, 1 -> r2\nldw [r1 + 4] -> r3\naddd r2, 1 -> r2\nstd r3 -> [r1]\nnop", r1=IO)
    places = []
    device.on_access = lambda: places.append((lab.cpu.pc, lab.cpu.executed()))
    assert lab.cpu.run(5) == (5, Reason.BUDGET)
    assert places == [(BASE + 8, 2), (BASE + 24, 4)]
    assert device.seen == [("read", 4, 4), ("write", 0, 8, 0x55667788)]
    assert lab.cpu.executed() == 0


@pytest.mark.parametrize("call", ["stop", "kick"])
def test_stop_and_kick_end_the_run_after_this_instruction(call):
    lab, device = with_device("ldw [r1] -> r3\naddd r2, 1 -> r2\nbranch .-0x10", r1=IO, r2=0)
    device.on_access = getattr(lab.cpu, call)
    reason = Reason.STOPPED if call == "stop" else Reason.BUDGET
    assert lab.cpu.run(1000) == (1, reason)
    assert (lab.cpu.pc, lab["r2"]) == (BASE + 8, 0)
    device.on_access = lambda: None
    assert lab.cpu.run(7) == (7, Reason.BUDGET)


def test_a_kick_from_another_thread_ends_an_endless_loop():
    lab = Lab("loop: addd r1, 1 -> r1\nbranch loop")
    timer = threading.Timer(0.05, lab.cpu.kick)
    timer.start()
    done, reason = lab.cpu.run(1 << 40)
    timer.join()
    assert reason is Reason.BUDGET
    assert done > RUN_LENGTH


def test_an_error_of_the_host_is_raised_from_run():
    lab, device = with_device("ldw [r1] -> r3", r1=IO)

    def fail():
        raise OSError("disk")

    device.on_access = fail
    with pytest.raises(OSError, match="disk"):
        lab.cpu.run(5)


def test_io_ports_are_a_space_of_their_own():
    lab, ports = Lab("ldh,io [r1 + 0x1f0] -> r2\nstb,io r2 -> [r1 + 0x1f7]", r1=PORTS), Registers(PORTS)
    lab.cpu.map_ports(ports)
    lab.step(2)
    assert ports.seen == [("read", 0x1F0, 2), ("write", 0x1F7, 1, 0x88)]
    assert Lab("ldh [r1 + 0x1f0] -> r2", r1=PORTS).trap() is Trap.LOAD


def test_rom_ignores_stores():
    lab = Lab("std r2 -> [r1]\nldd [r1] -> r3", r1=0x1000, r2=1)
    lab.cpu.map_rom(0x1000, b"\x11" * 8, 0x1000)
    assert lab.step(2)["r3"] == 0x1111_1111_1111_1111


def test_code_may_change_itself_even_in_the_run_that_it_is_in():
    lab = Lab("std r2 -> [r1]\naddd 0, 1 -> r3\naddd 0, 1 -> r4", r1=BASE + 8, r2=0x11C2C083_04000001)
    assert lab.step(3)["r3"] == 2


def test_dma_makes_new_code_visible():
    lab = Lab("addd 0, 1 -> r3\nbranch .-8").step(2)
    code = bytes.fromhex("0100000483c2c011")
    view = lab.cpu.memory.target(BASE, 8)
    view[:] = code
    lab.cpu.memory.written(BASE, view)
    lab.cpu.memory.publish()
    assert lab.step(2)["r3"] == 2


def test_a_branch_to_itself_waits():
    lab = Lab("stop: branch stop")
    assert lab.cpu.run(1000) == (1, Reason.WFI)
    lab.cpu.set_irq(True, 3)
    assert not lab.cpu.irq_pending()  # a guest that takes none would not wake up


def test_saved_in_the_middle_of_a_call_it_goes_on_elsewhere():
    lab = Lab(NESTED)
    lab.step(37)
    other = Lab(NESTED)
    other.cpu.load(lab.cpu.save())
    assert other.cpu.save() == lab.cpu.save()
    assert (other.run(), other["r1"]) == (Reason.WFI, 3628800)


def test_a_reset_leaves_memory_and_nothing_else():
    lab = Lab("addd 0, 5 -> r1\nsetwd wsz=20\naddd 0, 1 -> r30\naddd r1, 0 -> g3\ncmpedb 0, 0 -> p1").step(5)
    assert lab["g3"] == 5
    lab.cpu.reset({"pc": BASE})
    assert [lab[name] for name in ("r1", "g3", "p1", "pairs", "pc")] == [0, 0, 0, 8, BASE]
    assert lab.step()["r1"] == 5


def test_a_guest_that_runs_everywhere_does_not_fill_the_hosts_memory(monkeypatch):
    monkeypatch.setattr("e2kdisk.machine.cpu.e2k.adapter.MAX_BLOCKS", 50)
    lab = Lab("")
    lab.poke(BASE, bytes.fromhex("12500000200000000200000000000000") * 1000)  # each branches over nothing
    assert lab.cpu.run(500) == (500, Reason.BUDGET)
    blocks = [block for tables in lab.cpu._translations.values() for table in tables for block in table]
    assert len(blocks) <= 51 < MAX_BLOCKS


@given(
    picks=st.lists(st.sampled_from(vectors()), min_size=1, max_size=4),
    flips=st.lists(st.integers(0, 4095), max_size=6),
    values=st.lists(st.sampled_from([0, 1, 8, DATA, DATA + 8, BASE, BASE + 16, 1 << 63, (1 << 64) - 1]), min_size=16),
    noise=st.binary(max_size=64),
)
def test_whatever_the_code_a_run_ends_as_it_should(picks, flips, values, noise):
    code = bytearray(b"".join(bytes.fromhex(pick["code"]) for pick in picks) + noise)
    for flip in flips:
        code[flip // 8 % len(code)] ^= 1 << flip % 8
    outcomes = []
    for slice_size in (1, 50):
        lab = Lab(bytes(code), **{f"r{n}": value for n, value in enumerate(values[:16])})
        left, reason = 50, Reason.BUDGET
        while left and reason is Reason.BUDGET:
            done, reason = lab.cpu.run(min(slice_size, left))
            assert 0 <= done <= min(slice_size, left)
            left -= done
        assert reason in (Reason.BUDGET, Reason.FAULT, Reason.WFI)
        assert (lab.cpu.fault is not None) == (reason is Reason.FAULT)
        outcomes.append((left, reason, str(lab.cpu.fault), lab.cpu.save(), bytes(lab.ram.view)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["r64", "x1", "p32", "g32", "ctpr4", ""])
def test_there_is_no_other_register(name):
    with pytest.raises(KeyError):
        Lab()[name]
