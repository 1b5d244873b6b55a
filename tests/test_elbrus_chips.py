"""The chips of the Elbrus board: serial ports, interrupt controllers, system registers, power."""

import json

import pytest

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.pci import PciBus
from e2kdisk.machine.chips.escc import Channel, Escc
from e2kdisk.machine.chips.ioapic import IoApic
from e2kdisk.machine.chips.iohub import IOAPIC_DEFAULT, IoApicWindow, PowerControl, SerialPorts, SystemControl
from e2kdisk.machine.chips.lapic import LocalApic
from e2kdisk.machine.chips.sic import Sic
from tests.serial_line import Line

A, B = 0, 2
LINUX_INIT = (
    *((9, 0xC0), (1, 0x00), (4, 0x44), (7, 0x80), (6, 0x15), (3, 0xC0), (5, 0x60), (10, 0x00), (11, 0x50)),
    *((12, 0x1E), (13, 0x00), (14, 0x00), (3, 0xC1), (5, 0x68)),
)
"""What Linux/e2k writes into a channel, in order."""


class Port:
    """One channel as a driver sees it."""

    def __init__(self, chip, base):
        self.chip, self.base = chip, base

    def put(self, number, value):
        self.chip.write(self.base, 1, number)
        self.chip.write(self.base, 1, value)

    def get(self, number):
        self.chip.write(self.base, 1, number)
        return self.chip.read(self.base, 1)

    def send(self, byte):
        assert self.get(0) & 4
        self.chip.write(self.base + 1, 1, byte)

    def receive(self):
        return self.chip.read(self.base + 1, 1)


@pytest.fixture
def escc():
    chip = Escc(IrqLine())
    for channel in chip.channels:
        channel.line = Line()
    return chip


def shown(chip):
    return [bytes(channel.line.shown) for channel in chip.channels]


# -- ESCC -------------------------------------------------------------------------------------------


def test_two_stores_to_the_control_port_enable_the_transmitter_of_their_own_channel(escc):
    for base, byte in ((A, b"a"), (B, b"b")):
        port = Port(escc, base)
        port.send(ord("x"))  # dropped: not enabled
        port.put(5, 0x68)
        port.send(byte[0])
    assert shown(escc) == [b"a", b"b"]


def test_the_initialisation_of_linux_opens_both_directions(escc):
    port = Port(escc, A)
    escc.channels[0].line.typed += b"hello, this is more than eight bytes"
    for number, value in LINUX_INIT:
        port.put(number, value)
    received = bytearray()
    while port.get(0) & 1:
        received.append(port.receive())
    assert received == b"hello, this is more than eight bytes"
    port.send(ord("!"))
    assert shown(escc) == [b"!", b""]


def test_typed_text_waits_outside_until_the_receiver_is_enabled(escc):
    escc.channels[0].line.typed += b"early"
    escc.channels[0].refill()
    assert not Port(escc, A).get(0) & 1 and escc.channels[0].line.typed == b"early"
    Port(escc, A).put(3, 0xC1)
    assert Port(escc, A).get(0) & 1 and Port(escc, A).receive() == ord("e")


def test_the_register_pointer_falls_back_to_zero_after_each_access(escc):
    port = Port(escc, A)
    port.put(12, 0x34)
    assert port.get(12) == 0x34
    assert escc.read(A, 1) & 0x44 == 0x44, "RR0 again"
    port.put(13, 0x12)
    escc.write(A, 1, 13)
    assert [escc.read(A, 1), escc.read(A, 1) & 0x44] == [0x12, 0x44]


def test_the_receiver_interrupts_while_it_holds_data_and_rr3_says_whose_it_is(escc):
    irq = IrqLine()
    escc._irq = irq
    b = Port(escc, B)
    b.put(3, 0xC1)
    b.put(1, 0x10)
    escc.channels[1].line.typed += b"z"
    escc.channels[1].refill()
    assert not irq.level, "the master enable is off"
    b.put(9, 0x08)
    assert irq.level
    assert [Port(escc, A).get(3), b.get(3)] == [0x04, 0]
    assert b.receive() == ord("z")
    assert not irq.level and Port(escc, A).get(3) == 0


def test_the_transmitter_interrupts_when_a_byte_has_left_until_it_is_told_that_there_is_no_more(escc):
    irq = IrqLine()
    escc._irq = irq
    a = Port(escc, A)
    a.put(9, 0x08)
    a.put(5, 0x68)
    a.put(1, 0x02)
    assert not irq.level
    a.send(ord("x"))
    assert irq.level and a.get(3) == 0x10
    escc.write(A, 1, 0x28)
    assert not irq.level


@pytest.mark.parametrize(("master", "base", "expected"), [(0x08, 0x40, 0x4C), (0x18, 0x00, 0x30), (0x08, 0xFF, 0xFD)])
def test_the_vector_read_through_channel_b_tells_the_reason(escc, master, base, expected):
    a = Port(escc, A)
    a.put(2, base)
    a.put(9, master)
    a.put(3, 0xC1)
    a.put(1, 0x10)
    escc.channels[0].line.typed += b"q"
    escc.channels[0].refill()
    assert [a.get(2), Port(escc, B).get(2)] == [base, expected]


def test_a_channel_reset_silences_one_channel_and_a_hardware_reset_both(escc):
    a, b = Port(escc, A), Port(escc, B)
    for port in (a, b):
        port.put(5, 0x68)
    a.put(9, 0x40)
    for port in (a, b):
        port.send(ord("1"))
    assert shown(escc) == [b"1", b""]
    b.put(9, 0xC0)
    a.send(ord("2"))
    assert shown(escc) == [b"1", b""]


def test_local_loopback_returns_what_is_sent(escc):
    a = Port(escc, A)
    for number, value in ((3, 0xC1), (5, 0x68), (14, 0x11)):
        a.put(number, value)
    a.send(0x5A)
    assert a.get(0) & 1 and a.receive() == 0x5A and shown(escc) == [b"", b""]


# -- interrupts -------------------------------------------------------------------------------------


class Apics:
    """IOAPIC and local APIC, connected as on the board."""

    def __init__(self):
        self.output = IrqLine()
        self.lapic = LocalApic(self.output)
        self.ioapic = IoApic(self.lapic.accept)
        self.lapic.on_end = self.ioapic.end
        self.lapic.write(0xF0, 4, 0x1FF)

    def route(self, pin, entry):
        for half in range(2):
            self.ioapic.write(0, 4, 0x10 + 2 * pin + half)
            self.ioapic.write(0x10, 4, entry >> 32 * half & 0xFFFF_FFFF)

    def entry(self, pin):
        self.ioapic.write(0, 4, 0x10 + 2 * pin)
        return self.ioapic.read(0x10, 4)

    def take(self):
        return self.lapic.read(0xFF0, 4)

    def end(self):
        self.lapic.write(0xB0, 4, 0)


LEVEL, MASKED = 0x8000, 0x1_0000


@pytest.fixture
def apics():
    return Apics()


def test_an_ioapic_has_24_pins_all_masked(apics):
    apics.ioapic.write(0, 4, 1)
    assert apics.ioapic.read(0x10, 4) == 0x0017_0020
    assert all(apics.entry(pin) == MASKED for pin in range(24))
    apics.ioapic.line(5).set(True)
    assert not apics.output.level


def test_a_level_is_sent_once_until_its_end_and_again_if_it_is_still_there(apics):
    line = apics.ioapic.line(11)
    apics.route(11, 0x31 | LEVEL)
    line.set(True)
    assert apics.output.level and apics.take() == 0x31 and not apics.output.level
    assert apics.entry(11) & 0x4000, "remote IRR"
    apics.end()
    assert apics.output.level and apics.take() == 0x31
    line.set(False)
    apics.end()
    assert not apics.output.level and not apics.entry(11) & 0x4000
    assert apics.take() == 0xFF, "nothing: the spurious vector"


def test_a_level_under_a_mask_waits_and_an_edge_there_is_lost(apics):
    level, edge = apics.ioapic.line(1), apics.ioapic.line(2)
    level.set(True)
    edge.set(True)
    apics.route(1, 0x41 | LEVEL)
    apics.route(2, 0x52)
    assert [apics.take(), apics.take()] == [0x41, 0xFF]
    edge.set(False)
    edge.set(True)
    assert apics.take() == 0x52


def test_the_end_register_of_the_ioapic_ends_a_vector_by_itself(apics):
    line = apics.ioapic.line(3)
    apics.route(3, 0x51 | LEVEL)
    line.set(True)
    assert apics.take() == 0x51
    line.set(False)
    apics.ioapic.write(0x40, 4, 0x51)
    assert not apics.entry(3) & 0x4000


def test_vectors_nest_by_priority_and_the_task_priority_holds_them_back(apics):
    apics.lapic.accept(0x35)
    apics.lapic.accept(0x82)
    assert apics.take() == 0x82
    assert not apics.output.level, "a lower one waits for the end of the higher"
    apics.lapic.accept(0x91)
    assert apics.take() == 0x91
    apics.end()
    apics.end()
    apics.lapic.write(0x80, 4, 0x30)
    assert not apics.output.level
    apics.lapic.write(0x80, 4, 0x2F)
    assert apics.output.level and apics.take() == 0x35


def test_a_local_apic_that_is_switched_off_takes_nothing(apics):
    apics.lapic.reset()
    apics.lapic.accept(0x40)
    assert not apics.output.level


def test_the_ioapic_is_where_function_02_1_says():
    resets = []
    control, chip = SystemControl(lambda: resets.append(True)), IoApic(lambda vector: None)
    bus = PciBus(memory=(0, 1 << 20))
    bus.add(0x11, control)
    window = IoApicWindow(chip, control, IOAPIC_DEFAULT, 0x20_0000)
    window.write(0, 4, 1)
    assert window.read(0x10, 4) == 0x0017_0020
    bus.config_write(0, 0x11, 0x40, 4, 0xFEC0_5000)
    assert window.read(0x10, 4) == 0xFFFF_FFFF
    assert window.read(0x5010, 4) == 0x0017_0020 and window.register_name(0x5010) == "IOWIN"
    bus.config_write(0, 0x11, 0x64, 4, 1)
    assert resets == [True] and bus.config_read(0, 0x11, 0x64, 4) == 0


# -- system registers and power ---------------------------------------------------------------------


class Events(list):
    """A trace."""

    def event(self, source, kind, **fields):
        self.append((source, kind))


def test_sic_registers_keep_what_is_written_but_there_is_no_iommu_to_enable():
    sic = Sic()
    sic.trace = events = Events()
    assert [sic.read(offset, 4) for offset in (0x10, 0x14, 0x20, 0x30, 0x40, 0x50, 0x70, 0x80, 0x90)] == [
        *(0x0B, 0x30, 0xFFFF, 0xF800, 0xF800, 0xF000, 0xFFFF_FFFF, 0, 0x40),
    ]
    sic.write(0x42, 2, 0x7800)
    assert sic.read(0x40, 4) == 0x7800_F800
    sic.write(0x380, 4, 0x1001)
    assert sic.read(0x380, 4) == 0x1000 and events == [("sic", "guest mistake")]
    sic.reset()
    assert sic.read(0x40, 4) == 0xF800


def test_only_the_soft_off_state_switches_off():
    now, off = [0], []
    power = PowerControl(lambda: now[0], lambda: off.append(True))
    power.write_config(0x4C, 4, 0x0001)
    power.write_config(0x4C, 4, 1 << 13)  # S0, as Linux writes first
    assert not off and power.read_config(0x4C, 4) == 0
    power.write_config(0x4C, 4, 1 << 13 | 5 << 10)
    assert off == [True]


def test_the_power_timer_counts_3_58_million_ticks_a_second_in_24_or_32_bits():
    now = [1_000_000_000]
    power = PowerControl(lambda: now[0], lambda: None)
    assert power.read_config(0x40, 4) == 3_579_545
    now[0] = 5_000_000_000
    assert power.read_config(0x40, 4) == 5 * 3_579_545 & 0xFF_FFFF
    power.write_config(0x48, 4, 2)
    assert power.read_config(0x40, 4) == 5 * 3_579_545


# -- all of them ------------------------------------------------------------------------------------


def _busy_escc():
    chip = Escc(IrqLine())
    chip.channels[1].line = Line(b"abc")
    for number, value in LINUX_INIT:
        Port(chip, B).put(number, value)
    chip.channels[1].refill()
    chip.write(A, 1, 12)
    return chip


def _busy_apic(name):
    apics = Apics()
    apics.route(7, 0x77 | LEVEL)
    apics.ioapic.line(7).set(True)
    apics.lapic.accept(0x31)
    apics.take()
    return getattr(apics, name)


def _busy_sic():
    sic = Sic()
    sic.write(0x40, 4, 0x1234)
    return sic


def _busy_serial():
    serial = SerialPorts(0x8000_1000)
    serial.write_config(0x14, 4, 0x9000_0000)
    serial.escc.write(A, 1, 9)
    return serial


@pytest.mark.parametrize(
    ("busy", "fresh"),
    [
        (_busy_escc, lambda: Escc(IrqLine())),
        (lambda: _busy_apic("ioapic"), lambda: IoApic(lambda vector: None)),
        (lambda: _busy_apic("lapic"), lambda: LocalApic(IrqLine())),
        (_busy_sic, Sic),
        (_busy_serial, lambda: SerialPorts(0x8000_1000)),
    ],
)
def test_state_survives_save_and_load_as_plain_data(busy, fresh):
    chip, copy = busy(), fresh()
    assert copy.save() != chip.save()
    copy.load(json.loads(json.dumps(chip.save())))
    assert copy.save() == chip.save()


def test_a_local_apic_interrupts_again_after_it_is_restored():
    saved = Apics()
    saved.lapic.accept(0x61)
    apics = Apics()
    apics.lapic.load(saved.lapic.save())
    assert apics.output.level and apics.take() == 0x61


def test_an_edge_that_was_sent_before_the_machine_was_saved_is_not_sent_again():
    saved = Apics()
    saved.route(7, 0x77)
    saved.ioapic.line(7).set(True)
    assert saved.take() == 0x77
    apics = Apics()
    apics.lapic.load(saved.lapic.save())
    apics.ioapic.load(saved.ioapic.save())
    line = apics.ioapic.line(7)
    line.set(True)  # as the device does that is restored last
    apics.end()
    assert apics.take() == 0xFF
    line.set(False)
    line.set(True)
    assert apics.take() == 0x77


@pytest.mark.parametrize("chip", [Channel, Escc, IoApic, LocalApic, Sic])
def test_every_register_says_what_it_is_and_where_it_is_defined(chip):
    assert all(register.name and register.meaning and register.section for register in chip.registers)


def test_any_access_of_any_width_is_answered():
    apics = Apics()
    for device in (Escc(IrqLine()), apics.ioapic, apics.lapic, Sic()):
        for offset in range(0, 0x400, 3):
            for size in (1, 2, 4, 8):
                device.write(offset, size, 0xA5A5_A5A5_A5A5_A5A5 & (1 << 8 * size) - 1)
                assert 0 <= device.read(offset, size) < 1 << 8 * size
