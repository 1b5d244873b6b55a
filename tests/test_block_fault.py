"""Faults: the rule's text says which request fails, how and how often; breakpoints hold a coroutine until told."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.aio import Scheduler, VirtualClock
from e2kdisk.block import MemoryNode
from e2kdisk.block.fault import FaultNode
from e2kdisk.block.fault_rules import EVENTS, REQUESTS, FaultRule, parse_rules
from e2kdisk.block.recorder import RecorderNode
from e2kdisk.errors import DeadlockError, UsageError


def make_fault(rules="", seed=0, size=1 << 20):
    return FaultNode(MemoryNode(Scheduler(VirtualClock()), size), rules, seed=seed)


def outcome(fault, name, *arguments):
    """None, or the errno of a request or event."""
    if name in ("read", "write"):
        offset, length = arguments
        arguments = (offset, [memoryview(bytearray(b"w" * length))])
    request = fault.event(name) if name in EVENTS else getattr(fault, name)(*arguments)
    try:
        fault.scheduler.run(request)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize(
    ("rule", "outcomes"),
    [
        ("write: EIO once", [5, None, None, None]),
        ("write: EIO", [5, 5, 5, 5]),
        ("write: ENOSPC sticky", [28, 28, 28, 28]),
        ("write@3: EIO once", [None, None, 5, None]),
        ("write@2: EIO 2 times", [None, 5, 5, None]),
        ("any@4: EIO", [None, None, None, 5]),
        ("read: EIO", [None, None, None, None]),
        ("write state 2: EIO", [None, None, None, None]),
        ("write chance 0%: EIO", [None, None, None, None]),
        ("write@2: set-state 2; write state 2: EIO once", [None, None, 5, None]),
    ],
)
def test_a_rule_fails_the_requests_it_names(rule, outcomes):
    fault = make_fault(rule)
    assert [outcome(fault, "write", 0, 512) for _ in outcomes] == outcomes


@pytest.mark.parametrize(
    ("rule", "offset", "length", "hit"),
    [
        ("read sector 0x1200: EIO 3 times", 0x1200 * 512, 1, True),
        ("read sector 0x1200: EIO", 0x1200 * 512 - 1, 1, False),
        ("read sector 0x1200: EIO", 0x1200 * 512 - 1, 2, True),
        ("read sector 0x1200: EIO", 0x1201 * 512, 512, False),
        ("read sectors 2+3: EIO", 4 * 512, 10, True),
        ("read bytes 100+10: EIO", 109, 1, True),
        ("read bytes 100+10: EIO", 110, 1, False),
        ("any bytes 0+1: EIO", 0, 1, True),
    ],
)
def test_a_range_is_what_the_request_touches(rule, offset, length, hit):
    assert outcome(make_fault(rule), "read", offset, length) == (5 if hit else None)


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_kind_of_request_can_fail_before_or_after_it_is_done(kind):
    arguments = {"flush": (), "truncate": (100,), "read": (0, 512), "write": (0, 512)}.get(kind, (0, 512))
    for late in ("", " late"):
        fault = make_fault(f"{kind}: EIO{late} once")
        fault.file.data[:] = b"o" * fault.size
        assert outcome(fault, kind, *arguments) == errno.EIO
        changed = fault.file.data != b"o" * (1 << 20)
        assert changed == (bool(late) and kind not in ("read", "flush"))
        assert outcome(fault, kind, *arguments) is None
        assert fault.seen[kind] == 2
        assert fault.injected == [f"EIO at {kind}"]


def test_an_event_fails_where_it_is_announced():
    fault = make_fault("l2_update@2: ENOSPC once")
    assert [outcome(fault, "l2_update") for _ in range(3)] == [None, errno.ENOSPC, None]
    assert outcome(fault, "l2_load") is None
    assert fault.seen == {"l2_update": 3, "l2_load": 1}


def test_any_means_requests_not_events():
    assert outcome(make_fault("any: EIO"), "l2_update") is None


def test_an_unknown_event_is_a_mistake_of_the_format():
    with pytest.raises(UsageError, match="'l2_updat' is no event"):
        make_fault().scheduler.run(make_fault().event("l2_updat"))


def test_there_are_47_events():
    assert len(EVENTS) == 47


def test_without_rules_everything_passes():
    fault = make_fault()
    for kind, *arguments in (("write", 0, 10), ("read", 0, 10), ("flush",), ("truncate", 5), ("discard", 0, 5)):
        assert outcome(fault, kind, *arguments) is None
    assert fault.size == 5
    assert fault.try_read(0, [memoryview(bytearray(1))]) == 0


def test_the_error_names_the_file_and_the_place():
    fault = make_fault("flush: EIO")
    with pytest.raises(OSError, match=r"injected at flush\): 'memory'"):
        fault.scheduler.run(fault.flush())


def test_delays_take_time_of_the_schedulers_clock():
    fault = make_fault("delay 5ms")
    assert outcome(fault, "write", 0, 1) is None
    assert fault.scheduler.clock.now_ns() == 5_000_000


def test_random_faults_repeat_from_the_seed():
    def run(seed):
        fault = make_fault("write chance 30%: EIO", seed)
        return [outcome(fault, "write", 0, 1) for _ in range(200)]

    assert run(1) == run(1) != run(2)
    assert 30 < run(1).count(5) < 90


# -- breakpoints -----------------------------------------------------------------------------------


def test_a_coroutine_stops_at_a_break_until_it_is_resumed():
    fault = make_fault()
    fault.break_at("write_aio", "A")
    done = []

    async def request():
        await fault.event("write_aio")
        await fault.write(0, [memoryview(b"x")])

    fault.scheduler.start(request(), lambda _result, error: done.append(error))
    assert fault.suspended("A") == 1
    assert outcome(fault, "write_aio") is None  # a break catches one
    assert fault.file.data[0] == 0
    assert not done
    fault.resume("A")
    fault.scheduler.drain()
    assert done == [None]
    assert fault.file.data[0] == ord("x")
    assert fault.suspended("A") == 0
    with pytest.raises(UsageError, match="nothing is suspended at break 'A'"):
        fault.resume("A")


def test_waiting_for_a_break_ends_when_it_is_reached():
    fault = make_fault("write: break A")
    order = []

    async def watch():
        await fault.wait_break("A")
        order.append("reached")
        await fault.wait_break("A")  # still suspended: at once
        fault.resume("A")

    async def request():
        await fault.write(0, [memoryview(b"x")])
        order.append("written")

    fault.scheduler.start(watch())
    assert order == []
    fault.scheduler.start(request())
    fault.scheduler.drain()
    assert order == ["reached", "written"]


def test_a_break_that_nobody_resumes_is_named_in_the_deadlock():
    fault = make_fault("l2_load: break A")
    with pytest.raises(DeadlockError, match="suspended at l2_load, break A"):
        fault.scheduler.run(fault.event("l2_load"))


def test_cancelling_does_not_tear_a_suspended_request():
    fault = make_fault("write: break A")
    done = []
    task = fault.scheduler.start(fault.write(0, [memoryview(b"x")]), lambda _result, error: done.append(error))
    task.cancel()
    assert fault.scheduler.wait(timeout=0) is False
    fault.clear()
    fault.scheduler.drain()
    assert done == [None]
    assert fault.file.data[0] == ord("x")


def test_an_error_rule_acts_after_the_break():
    fault = make_fault("write: break A; write: EIO once")
    done = []
    fault.scheduler.start(fault.write(0, [memoryview(b"x")]), lambda _result, error: done.append(error))
    fault.resume("A")
    fault.scheduler.drain()
    assert [error.errno for error in done] == [errno.EIO]


# -- events through other nodes --------------------------------------------------------------------


def test_nobody_listens_without_a_fault_node():
    assert MemoryNode(Scheduler()).event is None
    assert RecorderNode(MemoryNode(Scheduler()), b"").event is None


def test_events_reach_every_fault_node_below():
    lower = make_fault()
    upper = FaultNode(RecorderNode(lower, bytes(lower.size)))
    upper.scheduler.run(upper.event("cow_read"))
    assert upper.seen["cow_read"] == lower.seen["cow_read"] == 1


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must look like"),
        ("write", "must look like"),
        ("write: EIO thrice", "must look like"),
        ("wrte: EIO", "unknown event or request 'wrte'; requests are read, write,"),
        ("write: ENOSUCH", "ENOSUCH is no error of this system"),
        ("l2_update sector 5: EIO", "l2_update is an event"),
        ("flush sector 5: EIO", "flush has no such range"),
        ("write sector x: EIO", "'x' is no number"),
        ("write bytes 5+0: EIO", "write has no such range"),
        ("write: delay 5ms late", "only an error can be late"),
        ("write@0: EIO", "counts begin at 1"),
        ("write chance 101%: EIO", "chances lie between 0% and 100%"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(text, message):
    with pytest.raises(UsageError) as caught:
        FaultRule.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_rules_are_lines_or_parted_by_semicolons():
    rules = parse_rules("write: EIO once; flush: ENOSPC\n# comment\n\nany: delay 2us  # slow\n")
    assert [str(rule) for rule in rules] == ["write: EIO once", "flush: ENOSPC", "any: delay 2000ns"]


@st.composite
def any_rules(draw):
    on = draw(st.sampled_from([*REQUESTS, "any", *sorted(EVENTS)]))
    action = draw(st.sampled_from(["error", "delay", "set-state", "break"]))
    value = {
        "error": {"errno": draw(st.sampled_from([5, 28, 122]))},
        "delay": {"delay_ns": draw(st.integers(0, 10**9))},
    }
    value |= {"set-state": {"new_state": draw(st.integers(1, 9))}, "break": {"tag": draw(st.sampled_from("AB"))}}
    fields = value[action]
    if on in REQUESTS and on not in ("flush", "truncate") and draw(st.booleans()):
        fields["start"] = draw(st.integers(0, 1 << 40))
        fields["end"] = fields["start"] + draw(st.integers(1, 1 << 20))
    return FaultRule(
        on,
        action,
        late=action == "error" and on in REQUESTS and draw(st.booleans()),
        first=draw(st.integers(1, 9)),
        times=draw(st.none() | st.integers(1, 9)),
        state=draw(st.integers(0, 3)),
        chance=draw(st.sampled_from([100.0, 50.0, 0.5, 0.0])),
        **fields,
    )


@given(any_rules())
def test_a_rule_read_from_its_own_text_is_the_same(rule):
    assert FaultRule.parse(str(rule)) == rule
