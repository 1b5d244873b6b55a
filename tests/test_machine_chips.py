"""Interrupt controllers, timers and serial ports behave as their manuals say where drivers depend on it."""

import json

import pytest

from e2kdisk.devices.irq import IrqLine
from e2kdisk.machine.chips.clint import Clint
from e2kdisk.machine.chips.gicv2 import SPURIOUS, Gic, GicDistributor, GicInterface
from e2kdisk.machine.chips.pl011 import Pl011
from e2kdisk.machine.chips.plic import Plic
from e2kdisk.machine.chips.sifive_test import SifiveTest
from e2kdisk.machine.chips.uart16550 import Uart16550
from tests.serial_line import Line


@pytest.fixture
def gic():
    output = IrqLine()
    gic = Gic(output)
    distributor, interface = GicDistributor(gic, "gicd"), GicInterface(gic, "gicc")
    distributor.write(0x000, 4, 1)
    interface.write(0x00, 4, 1)
    interface.write(0x04, 4, 0xF0)
    return gic, distributor, interface, output


def test_a_gic_line_interrupts_only_when_enabled_and_above_the_mask(gic):
    gic, distributor, interface, output = gic
    line = gic.line(40)
    line.set(True)
    assert not output.level
    distributor.write(0x104, 4, 1 << 8)
    assert output.level
    interface.write(0x04, 4, 0x00)
    assert not output.level


def test_the_gic_serves_by_priority_and_a_level_again_after_its_end(gic):
    gic, distributor, interface, output = gic
    low, high = gic.line(40), gic.line(41)
    distributor.write(0x104, 4, 3 << 8)
    distributor.write(0x428, 1, 0x80)
    distributor.write(0x429, 1, 0x40)
    low.set(True)
    high.set(True)
    assert interface.read(0x0C, 4) == 41
    assert not output.level, "one of lower priority does not interrupt the one that is served"
    high.set(False)
    interface.write(0x10, 4, 41)
    assert interface.read(0x0C, 4) == 40
    interface.write(0x10, 4, 40)
    assert output.level
    low.set(False)
    assert interface.read(0x0C, 4) == SPURIOUS


def test_an_edge_is_remembered_and_a_software_interrupt_needs_no_enable(gic):
    gic, distributor, interface, output = gic
    distributor.write(0xC08, 4, 2 << 16)  # line 40: edge
    distributor.write(0x104, 4, 1 << 8)
    line = gic.line(40)
    line.set(True)
    line.set(False)
    assert interface.read(0x0C, 4) == 40
    interface.write(0x10, 4, 40)
    distributor.write(0xF00, 4, 0x0001_0003)
    assert output.level and interface.read(0x0C, 4) == 3


def test_the_plic_gives_each_claim_once_until_it_is_completed():
    outputs = IrqLine(), IrqLine()
    plic = Plic(outputs)
    lines = [plic.line(source) for source in (3, 5)]
    for source, priority in ((3, 1), (5, 2)):
        plic.write(4 * source, 4, priority)
    plic.write(0x2000, 4, 1 << 3 | 1 << 5)
    for line in lines:
        line.set(True)
    assert [output.level for output in outputs] == [True, False]
    assert [plic.read(0x20_0004, 4) for _ in range(3)] == [5, 3, 0]
    assert not outputs[0].level
    plic.write(0x20_0004, 4, 5)
    assert outputs[0].level and plic.read(0x20_0004, 4) == 5
    plic.write(0x20_0000, 4, 7)
    plic.write(0x20_0004, 4, 3)
    assert not outputs[0].level, "the threshold masks all"


def test_the_clint_interrupts_at_its_time_and_reads_at_any_width():
    now, timers, timer, software = [0], [], IrqLine(), IrqLine()
    clint = Clint(lambda: now[0], lambda when, call: timers.append((when, call)) or (lambda: None), timer, software)
    clint.write(0x4000, 4, 0x500)
    clint.write(0x4004, 4, 0)
    assert not timer.level
    when, call = timers[-1]
    assert when == 0x500 * 100
    now[0] = when
    call()
    assert timer.level
    now[0] = 0x1_2345_6789 * 100
    assert [clint.read(0xBFF8, 8), clint.read(0xBFF8, 4), clint.read(0xBFFC, 4)] == [0x1_2345_6789, 0x2345_6789, 1]
    clint.write(0x4000, 8, 1 << 62)
    assert not timer.level
    clint.write(0x0000, 4, 1)
    assert software.level


@pytest.mark.parametrize("uart_type", [Pl011, Uart16550])
def test_typed_text_of_any_length_arrives_whole(uart_type):
    text = bytes(range(1, 256)) * 3
    uart = uart_type(IrqLine())
    uart.line = Line(text)
    received = bytearray()

    def has_data():
        return not uart.read(0x18, 4) & 0x10 if uart_type is Pl011 else uart.read(5, 1) & 1

    uart.refill()
    assert len(uart.line.typed) == len(text) - uart.FIFO, "what has no room waits outside"
    while has_data():
        received.append(uart.read(0, 1 if uart_type is Uart16550 else 4))
    assert received == text


def test_pl011_interrupts_while_there_is_data_and_once_when_it_has_sent():
    irq = IrqLine()
    uart = Pl011(irq)
    uart.line = Line(b"a")
    uart.write(0x38, 4, 0x30)
    uart.refill()
    assert irq.level and uart.read(0x40, 4) == 0x10
    assert uart.read(0, 4) == ord("a")
    assert not irq.level
    uart.write(0, 4, ord("b"))
    assert irq.level and uart.line.shown == b"b"
    uart.write(0x44, 4, 0x20)
    assert not irq.level


def test_16550_divisor_and_data_share_an_address():
    uart = Uart16550(IrqLine())
    uart.line = Line()
    uart.write(3, 1, 0x83)
    uart.write(0, 1, 0x34)
    uart.write(1, 1, 0x12)
    assert (uart.read(0, 1), uart.read(1, 1)) == (0x34, 0x12)
    uart.write(3, 1, 0x03)
    uart.write(0, 1, ord("x"))
    assert (uart.read(1, 1), uart.line.shown) == (0, b"x")


def test_16550_announces_data_before_an_empty_transmitter():
    irq = IrqLine()
    uart = Uart16550(irq)
    uart.line = Line(b"a")
    uart.write(1, 1, 0x03)
    assert irq.level and uart.read(2, 1) & 0xF == 0x2
    assert not irq.level, "reading the identification acknowledges the transmitter"
    uart.refill()
    assert irq.level and uart.read(2, 1) & 0xF == 0x4
    uart.read(0, 1)
    assert not irq.level


def test_the_test_finisher_passes_words_and_codes_on():
    seen = []
    finisher = SifiveTest(lambda word, code: seen.append((word, code)))
    for value in (0x5555, 0x7777, 0x12_3333, 0x1234):
        finisher.write(0, 4, value)
    assert seen == [(0x5555, 0), (0x7777, 0), (0x3333, 0x12)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pl011(IrqLine()),
        lambda: Uart16550(IrqLine()),
        lambda: Plic((IrqLine(),) * 2),
        lambda: GicDistributor(Gic(IrqLine()), "gicd"),
        lambda: Clint(lambda: 0, lambda when, call: lambda: None, IrqLine(), IrqLine()),
        lambda: SifiveTest(lambda word, code: None),
    ],
)
def test_state_survives_save_and_load(make):
    chip = make()
    for register in chip.registers:
        if register.offset and register.access.value != "read":
            chip.write(register.offset, register.width, 5)
    copy = make()
    copy.load(json.loads(json.dumps(chip.save())))
    assert copy.save() == chip.save()
    assert copy.save() != make().save() or isinstance(chip, SifiveTest)


@pytest.mark.parametrize("chip", [Pl011, Uart16550, Plic, Clint, GicDistributor, GicInterface, SifiveTest])
def test_every_register_says_what_it_is_and_where_it_is_defined(chip):
    assert all(register.name and register.meaning and register.section for register in chip.registers)
    assert chip.registers.document().count("\n") == len(chip.registers.registers) + 1
