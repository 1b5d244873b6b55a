"""MSI-X: a message for every reason, delayed by masks and never lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.devices.pci.msix import Msix

ADDRESS = 0xFEE0_0000


def make(vectors=4, *, enable=True, program=True):
    sent = []
    msix = Msix("msix", vectors, deliver=lambda address, data: sent.append((address, data)), on_control=lambda: None)
    msix.allow(True)
    if program:
        for vector in range(vectors):
            msix.write(16 * vector, 8, ADDRESS + 16 * vector)
            msix.write(16 * vector + 8, 8, 0x40 + vector)  # and unmasked
    if enable:
        msix.set_control(1 << 15)
    return msix, sent


def test_a_message_is_the_address_and_data_of_its_vector():
    msix, sent = make()
    msix.write(16 + 4, 4, 0x12)
    for vector in (1, 3, 0):
        msix.notify(vector)
    assert sent == [(0x12_FEE0_0010, 0x41), (0xFEE0_0030, 0x43), (0xFEE0_0000, 0x40)]


def test_a_vector_that_does_not_exist_sends_nothing():
    msix, sent = make()
    for vector in (4, 0x7FF, 0xFFFF):
        msix.notify(vector)
    assert not sent
    assert msix.read(0x800, 8) == 0


def test_vectors_are_masked_at_reset_and_their_entries_empty():
    msix, sent = make(program=False)
    assert [msix.read(offset, 4) for offset in range(0, 64, 4)] == [0, 0, 0, 1] * 4
    msix.notify(2)
    assert not sent
    assert msix.read(0x800, 4) == 4


@pytest.mark.parametrize(
    ("hold", "release"),
    [
        (lambda msix: msix.write(16 + 12, 4, 1), lambda msix: msix.write(16 + 12, 4, 0)),
        (lambda msix: msix.write(16 + 12, 1, 1), lambda msix: msix.write(16 + 8, 8, 0x41)),
        (lambda msix: msix.set_control(3 << 14), lambda msix: msix.set_control(1 << 15)),
        (lambda msix: msix.set_control(0), lambda msix: msix.set_control(1 << 15)),
        (lambda msix: msix.allow(False), lambda msix: msix.allow(True)),
    ],
    ids=["vector", "vector, odd widths", "function", "not enabled", "no bus master"],
)
def test_what_cannot_go_now_is_pending_and_goes_once_when_it_can(hold, release):
    msix, sent = make()
    hold(msix)
    msix.notify(1)
    msix.notify(1)
    assert not sent
    assert msix.read(0x800, 4) == 2
    msix.write(0x800, 8, 0)  # pending bits cannot be written
    assert msix.read(0x800, 1) == 2
    release(msix)
    assert sent == [(ADDRESS + 16, 0x41)]
    assert msix.read(0x800, 4) == 0
    release(msix)
    assert len(sent) == 1
    msix.notify(1)
    assert len(sent) == 2


def test_a_masked_vector_does_not_hold_back_another():
    msix, sent = make()
    msix.write(12, 4, 1)
    msix.notify(0)
    msix.notify(1)
    assert sent == [(ADDRESS + 16, 0x41)]


def test_a_new_message_of_a_masked_vector_is_the_one_that_is_sent():
    msix, sent = make()
    msix.write(16 + 12, 4, 1)
    msix.notify(1)
    msix.write(16, 8, 0x1_0000_0000)
    msix.write(16 + 8, 4, 0x99)
    msix.write(16 + 12, 4, 0)
    assert sent == [(0x1_0000_0000, 0x99)]


def test_bits_that_do_not_exist_are_not_kept():
    msix, _ = make(1)
    msix.write(0, 8, 0xFFFF_FFFF_FFFF_FFFF)
    msix.write(8, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert msix.read(0, 8) == 0xFFFF_FFFF_FFFF_FFFC
    assert msix.read(8, 8) == 0x0000_0001_FFFF_FFFF


@pytest.mark.parametrize(
    ("vectors", "pending_at", "size"), [(1, 0x800, 0x1000), (128, 0x800, 0x1000), (2048, 0x8000, 0x10000)]
)
def test_table_and_pending_bits_have_room(vectors, pending_at, size):
    msix, _ = make(vectors, program=False)
    bar, capability = msix.bar(1), msix.capability(1)
    assert bar.size == msix.size == size
    registers = {register.offset: register.reset for register in capability.registers}
    assert registers == {2: vectors - 1, 4: 1, 8: pending_at | 1}
    msix.notify(vectors - 1)
    assert msix.read(pending_at + (vectors - 1) // 8, 1) == 1 << (vectors - 1) % 8
    assert msix.read(16 * vectors, 4) == 0 or 16 * vectors == pending_at
    assert msix.register_name(0x0C) == "vector 0 control"
    assert msix.register_name(pending_at) == "pending"


@pytest.mark.parametrize("vectors", [0, 2049])
def test_impossible_numbers_of_vectors_are_refused(vectors):
    with pytest.raises(ValueError, match="MSI-X vectors"):
        make(vectors)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("notify"), st.integers(0, 4)),
        st.tuples(st.just("mask"), st.tuples(st.integers(0, 3), st.booleans())),
        st.tuples(st.just("control"), st.sampled_from((0, 1 << 14, 1 << 15, 3 << 14))),
        st.tuples(st.just("master"), st.booleans()),
        st.tuples(st.just("save"), st.none()),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_no_interrupt_is_lost_or_made_up_whatever_is_masked_when(actions):
    msix, sent = make()
    masked, control, master = [False] * 4, 1 << 15, True
    waiting, expected = set(), []
    for kind, value in actions:
        if kind == "notify":
            msix.notify(value)
            if value < 4:
                waiting.add(value)
        elif kind == "mask":
            vector, flag = value
            masked[vector] = flag
            msix.write(16 * vector + 12, 4, int(flag))
        elif kind == "control":
            control = value
            msix.set_control(value)
        elif kind == "master":
            master = value
            msix.allow(value)
        else:
            twin, sent_by_twin = make(enable=False, program=False)
            twin.load(msix.save(), control, bus_master=master)
            assert twin.save() == msix.save()
            assert not sent_by_twin
            sent_by_twin += sent
            msix, sent = twin, sent_by_twin
        if control == 1 << 15 and master:
            ready = sorted(vector for vector in waiting if not masked[vector])
            expected += [(ADDRESS + 16 * vector, 0x40 + vector) for vector in ready]
            waiting -= set(ready)
        assert sent == expected
        assert msix.read(0x800, 4) == sum(1 << vector for vector in waiting)


@given(st.lists(st.tuples(st.integers(0, 0xFFF), st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1))))
def test_no_store_raises_or_changes_how_large_the_table_is(stores):
    msix, _ = make(3)
    for offset, size, value in stores:
        msix.write(offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= msix.read(offset, size) < 1 << 8 * size
        assert isinstance(msix.register_name(offset), str)
        msix.notify(offset % 5)
    assert len(bytes.fromhex(msix.save()["table"])) == 48


def test_state_of_another_table_is_refused():
    msix, _ = make(3)
    state = msix.save()
    for wrong in ({"version": 2}, {"table": "00" * 16}):
        with pytest.raises(ValueError, match="another device or version"):
            msix.load(state | wrong, 0, bus_master=True)
