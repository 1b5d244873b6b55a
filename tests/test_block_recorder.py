"""Recorder: what a crash may leave, and nothing else; the same recording gives the same states."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import AutoEngine, Scheduler
from e2kdisk.block import MemoryNode, open_disk
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.recorder import RecorderNode
from e2kdisk.block.recording import Change, Kind, Outcome
from e2kdisk.block.recording_file import load_recording, save_recording
from e2kdisk.errors import ImageError, UnsupportedFeature
from e2kdisk.qcow2.create import create


def make_recorder(size=8192, rules=""):
    memory = MemoryNode(Scheduler(), size)
    memory.data[:] = random.Random(size).randbytes(size)
    fault = FaultNode(memory, rules)
    return memory.scheduler.run(RecorderNode.start(fault)), fault, memory


@pytest.fixture
def recorder():
    return make_recorder()[0]


def do(recorder, *requests):
    for name, *arguments in requests:
        if name == "write":
            arguments[1] = [memoryview(arguments[1])]
        recorder.scheduler.run(getattr(recorder, name)(*arguments))


def contents(recording, epoch, **more):
    return [bytes(state.content) for state in recording.snapshots_after(epoch, **more)]


def test_everything_passes_through(recorder):
    do(recorder, ("write", 100, b"abc"), ("write_zeroes", 0, 10), ("discard", 20, 5), ("truncate", 5000), ("flush",))
    buffer = bytearray(200)
    recorder.scheduler.run(recorder.read(0, [memoryview(buffer)]))
    assert buffer[100:103] == b"abc"
    assert buffer[:10] == bytes(10)
    assert recorder.size == 5000
    assert recorder.try_read(0, [memoryview(buffer)]) == recorder.file.try_read(0, [memoryview(buffer)])


def test_a_flush_makes_durable_what_completed_before_it(recorder):
    before = bytes(recorder.file.file.data)
    do(recorder, ("write", 0, b"one"), ("flush",), ("write", 0, b"two"))
    recording = recorder.recording()
    assert [(change.issued, change.durable) for change in recording.changes] == [(0, 1), (1, None)]
    assert contents(recording, 0) == [before, b"one" + before[3:]]
    assert contents(recording, 1) == [b"one" + before[3:], b"two" + before[3:]]


def test_a_write_in_flight_when_the_flush_starts_may_be_lost():
    recorder, fault, memory = make_recorder()
    run = memory.scheduler.run
    before = bytes(memory.data)
    fault.add("write: break w")
    recorder.scheduler.start(recorder.write(0, [memoryview(b"late")]))
    fault.add("flush: break f")
    recorder.scheduler.start(recorder.flush())
    fault.resume("w")  # completes while the flush runs
    recorder.scheduler.poll()
    do(recorder, ("write", 512, b"next"))
    fault.resume("f")
    recorder.scheduler.poll()
    assert recorder.epoch == 1
    recording = recorder.recording()
    assert [change.durable for change in recording.changes] == [None, None]
    assert before in contents(recording, 1)
    run(recorder.flush())
    assert [change.durable for change in recorder.recording().changes] == [2, 2]


def test_a_flush_that_ends_first_may_cover_more_than_an_older_one():
    recorder, fault, _ = make_recorder()
    do(recorder, ("write", 0, b"a"))
    fault.break_at("flush", "old")
    recorder.scheduler.start(recorder.flush())
    do(recorder, ("write", 1, b"b"), ("flush",), ("write", 2, b"c"))
    fault.resume("old")
    recorder.scheduler.poll()
    assert [change.durable for change in recorder.recording().changes] == [1, 1, None]
    assert recorder.epoch == 2


def test_a_failed_flush_promises_nothing_and_a_failed_write_may_be_there():
    recorder, _, memory = make_recorder(rules="flush: EIO once; write@2: EIO once")
    before = bytes(memory.data)
    do(recorder, ("write", 0, b"a"))
    with pytest.raises(OSError, match="injected"):
        do(recorder, ("flush",))
    with pytest.raises(OSError, match="injected"):
        do(recorder, ("write", 1, b"b"))
    assert recorder.epoch == 0
    do(recorder, ("write", 2, b"c"), ("flush",))
    recording = recorder.recording()
    assert [change.outcome for change in recording.changes] == [Outcome.DONE, Outcome.FAILED, Outcome.DONE]
    assert contents(recording, 1) == [b"a" + before[1:2] + b"c" + before[3:], b"abc" + before[3:]]
    assert recording.content() == memory.data


def test_an_older_failed_write_never_covers_a_newer_durable_one():
    recorder = make_recorder(rules="write: EIO once")[0]
    with pytest.raises(OSError, match="injected"):
        do(recorder, ("write", 0, b"old"))
    do(recorder, ("write", 0, b"new"), ("flush",))
    assert {content[:3] for content in contents(recorder.recording(), 1)} == {b"new"}


def test_a_write_that_never_ends_may_be_there():
    recorder, fault, memory = make_recorder()
    before = bytes(memory.data)
    fault.break_at("write", "w")
    recorder.scheduler.start(recorder.write(0, [memoryview(b"w")]))
    recording = recorder.recording()
    assert contents(recording, 0) == [before, b"w" + before[1:]]
    assert recording.content() == before
    fault.clear()
    recorder.scheduler.drain()


def test_writes_tear_at_the_sectors_of_the_file_not_of_the_request():
    change = Change(Kind.WRITE, 1000, 4000, bytes(4000), 0)
    assert change.pieces(512)[:2] == [24, 536]
    assert change.pieces(4096) == [3096]
    assert Change(Kind.WRITE, 512, 512, bytes(512), 0).pieces(512) == []
    assert Change(Kind.TRUNCATE, 512, 0, b"", 0).pieces(512) == []


def test_torn_tails_of_every_write_are_tried():
    recorder, _, memory = make_recorder(size=4096)
    memory_before = bytes(memory.data)
    do(recorder, ("write", 0, b"x" * 1024), ("write", 2048, b"y" * 1024))
    seen = contents(recorder.recording(), 0)
    x, y, old = b"x" * 512, b"y" * 512, memory_before
    assert x + old[512:] in seen
    assert x + x + old[1024:2048] + y + old[2560:] in seen
    assert len(seen) == len(set(seen))


def test_all_subsets_are_tried_where_they_are_few():
    recorder, _, memory = make_recorder(size=4)
    memory.data[:] = bytes(4)
    recorder = memory.scheduler.run(RecorderNode.start(memory))
    do(recorder, *(("write", at, b"\1") for at in range(4)))
    seen = contents(recorder.recording(), 0)
    assert len(seen) == len(set(seen)) == 16
    assert seen[:5] == [bytes(4), b"\1\0\0\0", b"\1\1\0\0", b"\1\1\1\0", b"\1\1\1\1"]


def test_a_mark_names_a_moment(recorder):
    do(recorder, ("write", 0, b"a"), ("flush",))
    recorder.mark("guest was told")
    assert recorder.recording().marks == [(1, 1, "guest was told")]


# -- properties ------------------------------------------------------------------------------------

changes = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3000), st.binary(min_size=1, max_size=1500)),
    st.tuples(st.just("write_zeroes"), st.integers(0, 3000), st.integers(1, 1500)),
    st.tuples(st.just("discard"), st.integers(0, 3000), st.integers(1, 1500)),
    st.tuples(st.just("truncate"), st.integers(0, 5000)),
    st.tuples(st.just("flush")),
)


@given(st.lists(changes, max_size=25))
def test_replaying_everything_gives_the_file(requests):
    recorder, _, memory = make_recorder(size=2048)
    do(recorder, *requests)
    recording = recorder.recording()
    assert recording.content() == memory.data
    # The last prefix of the last epoch is the file, too.
    optional = recording.optional(recording.epochs)
    assert list(recording.snapshots_after(recording.epochs, bound=0))[len(optional)].content == memory.data


@given(st.lists(changes, max_size=20), st.integers(0, 3))
def test_states_are_made_of_optional_changes_only_each_once_and_repeatably(requests, seed):
    recorder, _, _ = make_recorder(size=2048)
    do(recorder, *requests)
    recording = recorder.recording()
    for epoch in range(recording.epochs + 1):
        optional = set(recording.optional(epoch))
        states = list(recording.snapshots_after(epoch, bound=40, seed=seed))
        assert len({state.pieces for state in states}) == len(states) <= max(40, len(optional) + 1)
        for state in states:
            assert {number for number, _, _ in state.pieces} <= optional
            assert recording.rebuild(epoch, state.pieces) == state.content
        again = recording.snapshots_after(epoch, bound=40, seed=seed)
        assert [str(state) for state in again] == [str(state) for state in states]


@given(st.lists(changes, max_size=20))
def test_each_prefix_continues_the_one_before(requests):
    recorder, _, _ = make_recorder(size=2048)
    do(recorder, *requests)
    recording = recorder.recording()
    for epoch in range(recording.epochs + 1):
        prefixes = [set(state.pieces) for state in recording.snapshots_after(epoch, bound=0)]
        assert all(first < second for first, second in pairwise(prefixes))


@given(st.lists(changes, max_size=20))
def test_what_is_durable_in_one_epoch_is_a_prefix_state_of_the_epoch_before(requests):
    recorder, _, _ = make_recorder(size=2048)
    do(recorder, *requests)
    recording = recorder.recording()
    for epoch in range(recording.epochs):
        assert bytes(recording.durable_content(epoch + 1)) in contents(recording, epoch, bound=0)


# -- files -----------------------------------------------------------------------------------------


@given(st.lists(changes, max_size=20))
def test_a_saved_recording_is_the_same_when_loaded(tmp_path_factory, requests):
    recorder, _, _ = make_recorder(size=2048)
    do(recorder, *requests)
    recorder.mark("ä mark")
    path = tmp_path_factory.getbasetemp() / "case.e2kdrec"
    save_recording(recorder.recording(), path)
    assert load_recording(path) == recorder.recording()


def test_a_broken_recording_is_named_not_believed(tmp_path, recorder):
    do(recorder, ("write", 0, b"abc"))
    path = tmp_path / "case"
    save_recording(recorder.recording(), path)
    raw = path.read_bytes()
    path.write_bytes(raw[:8] + b"\2\0\0\0" + raw[12:])
    with pytest.raises(UnsupportedFeature, match="case: recording version 2 is not supported"):
        load_recording(path)
    path.write_bytes(b"QFI\xfb" + raw[4:])
    with pytest.raises(ImageError, match="case: is no recording"):
        load_recording(path)
    for length in range(0, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(ImageError):
            load_recording(path)


# -- below qcow2 -----------------------------------------------------------------------------------


def test_a_qcow2_image_recorded_from_below_opens_in_every_state(tmp_path):
    path = tmp_path / "disk.qcow2"
    create(path, 1 << 20, cluster_size=4096)
    with open_disk(path, format="raw") as plain:
        initial = plain.pread(0, plain.size)
    memory = MemoryNode(Scheduler(), name="memory")
    memory.scheduler.run(memory.write(0, [memoryview(initial)]))
    recorder = memory.scheduler.run(RecorderNode.start(memory))
    opener = Opener(AutoEngine(memory.scheduler))
    image = memory.scheduler.run(opener.open_format(recorder, OpenOptions("memory", "qcow2")))
    do(image, ("write", 10_000, b"flushed" * 100), ("flush",), ("write", 30_000, b"unflushed" * 100))
    flushed = recorder.epoch
    memory.scheduler.run(image.close())
    states = 0
    for epoch in range(flushed, recorder.epoch + 1):
        for state in recorder.recording().snapshots_after(epoch, bound=60):
            copy = MemoryNode(Scheduler(), name="copy")
            copy.data[:] = state.content
            copy.size = len(copy.data)
            opener = Opener(AutoEngine(copy.scheduler))
            crashed = copy.scheduler.run(opener.open_format(copy, OpenOptions("copy", "qcow2", read_only=True)))
            buffer = bytearray(700)
            copy.scheduler.run(crashed.read(10_000, [memoryview(buffer)]))
            assert buffer == b"flushed" * 100, str(state)
            states += 1
    assert states >= 8
