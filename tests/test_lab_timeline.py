"""Timelines: text, JSON lines and the Trace Event Format, judged by what reads them."""

import io
import json
from collections import defaultdict

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.events import Event
from e2kdisk.lab.rules import FAULTS, POWER, TIMING
from e2kdisk.lab.scenario import find_scenario
from e2kdisk.lab.timeline import format_of, make_timeline
from e2kdisk.tools.main import main
from tests.lab_orders import IdeOrders, PciMessages

HOSTILE = 'a"b\\\n\r\x1b[31m</script>\u2028\x00é'

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    scenario = find_scenario("guest-arm64")(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


def written(format, events):
    file = io.StringIO()
    timeline = make_timeline(file, format)
    for event in events:
        timeline.event(event)
    timeline.finish()
    return file.getvalue()


def run_events(scenario, rules, seed=3):
    events = []
    scenario.run(Seeded(seed), rules, listeners=[events.append])
    return events


def hostile_events():
    fields = {"register": HOSTILE, "value": 1 << 64, HOSTILE: HOSTILE, "values": (1, HOSTILE), "pc": 16}
    for kind in ("read", "submit", "request", "dma", "interrupt", "violation", "call", "file read", "fault", HOSTILE):
        for source in ("file", "decision", "format", HOSTILE):
            yield Event(5, source, kind, fields)
            yield Event(5, source, kind, {})


# -- text and JSON lines ----------------------------------------------------------------------------


def test_text_has_one_printable_line_for_each_event_with_the_fields_in_columns(scenario):
    events = [*run_events(scenario, TIMING), *hostile_events()]
    lines = written("text", events).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(events)
    assert all(line.isprintable() for line in lines)
    time = len(f"{0:14.3f}")
    assert all(line[:time].strip() and line[time : time + 2] == "  " for line in lines)


def test_json_lines_give_the_events_back(scenario):
    events = [*run_events(scenario, FAULTS), *hostile_events()]
    lines = written("jsonl", events).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps([event._asdict() for event in events]))


def test_the_suffix_names_the_format_and_others_are_refused():
    assert [format_of(f"x.{suffix}") for suffix in ("txt", "jsonl", "json")] == ["text", "jsonl", "perfetto"]
    with pytest.raises(UsageError, match="--timeline-format"):
        format_of("x.trace")


# -- the Trace Event Format -------------------------------------------------------------------------

PHASES = {
    "M": {"name", "args"},
    "B": {"name", "cat", "ts"},
    "E": {"ts"},
    "i": {"name", "ts", "s"},
    "s": {"name", "cat", "id", "ts"},
    "f": {"name", "cat", "id", "ts", "bp"},
}
"""What each phase must have beside ph, pid and tid ("Trace Event Format", Event Descriptions)."""


def judge(text):
    """Check a trace against the format; returns its events."""
    trace = json.loads(text)
    assert isinstance(trace["traceEvents"], list)
    last, stacks, named, flows = defaultdict(float), defaultdict(list), set(), {}
    for item in trace["traceEvents"]:
        track = item["pid"], item["tid"]
        assert isinstance(item["pid"], int) and isinstance(item["tid"], int)
        assert set(item) - {"ph", "pid", "tid", "args"} >= PHASES[item["ph"]] - {"args"}
        if item["ph"] == "M":
            assert item["name"] in ("process_name", "thread_name") and isinstance(item["args"]["name"], str)
            named.add(track if item["name"] == "thread_name" else item["pid"])
            continue
        assert track in named and item["pid"] in named
        assert item["ts"] >= last[track]
        last[track] = item["ts"]
        match item["ph"]:
            case "B":
                stacks[track].append(item)
            case "E":
                stacks[track].pop()
            case "i":
                assert item["s"] in ("g", "p", "t")
            case "s":
                assert item["id"] not in flows and stacks[track], "an arrow begins in a slice"
                flows[item["id"]] = item
            case "f":
                assert item["bp"] == "e" and stacks[track], "an arrow ends in a slice"
                assert flows.pop(item["id"])["ts"] <= item["ts"]
    assert not any(stacks.values()) and not flows
    return trace["traceEvents"]


@pytest.mark.parametrize("rules", [TIMING, FAULTS, POWER], ids=["timing", "faults", "power"])
def test_the_trace_has_an_end_for_each_begin_and_time_never_goes_back_in_a_track(scenario, rules):
    for seed in range(2):
        events = run_events(scenario, rules, seed)
        items = judge(written("perfetto", events))
        begins = [item for item in items if item["ph"] == "B"]
        assert sum(event.kind in ("submit", "call") for event in events) == sum(
            item["name"] != "raised" for item in begins
        )
        assert sum(item["ph"] == "s" for item in items) > 10


def test_requests_that_overlap_have_tracks_of_their_own(scenario):
    items = judge(written("perfetto", run_events(scenario, TIMING)))
    tracks = {item["args"]["name"] for item in items if item["ph"] == "M" and item["name"] == "thread_name"}
    assert {"CPU", "registers", "guest memory", "interrupt", "decisions", "calls 0", "requests 0"} <= tracks
    assert "requests 5" in tracks and "requests 6" not in tracks  # the guest has six in flight


@pytest.mark.parametrize("kind", [PciMessages, IdeOrders], ids=["messages", "two drives"])
def test_every_controller_makes_a_whole_trace(kind, tmp_path):
    scenario = kind(tmp_path)
    events = run_events(scenario, kind.RULES)
    scenario.close()
    items = judge(written("perfetto", events))
    controllers = {event.source for event in events if event.kind == "submit"}
    named = {item["args"]["name"] for item in items if item["ph"] == "M" and item["name"] == "process_name"}
    assert controllers and controllers <= named
    if kind is PciMessages:
        assert any(item.get("name") == "message" for item in items)


def test_a_reset_ends_the_requests_of_its_drives_only():
    events = [Event(n, "ide0", "submit", {"request": n + 1, "drive": n, "type": "READ DMA"}) for n in range(2)]
    events += [Event(5, "ide0", "reset", {"drives": (0,)}), Event(9, "ide0", "request", {"request": 2, "drive": 1})]
    ends = [item for item in judge(written("perfetto", events)) if item["ph"] == "E"]
    assert [(item["ts"], item["args"]) for item in ends] == [
        (0.005, {"outcome": '"ended by a reset"'}),
        (0.009, {"status": "None"}),
    ]


def test_hostile_and_incomplete_events_make_a_whole_trace():
    judge(written("perfetto", hostile_events()))
    assert judge(written("perfetto", [])) == []


# -- the command line -------------------------------------------------------------------------------


def test_run_and_replay_write_the_same_timeline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "run", "guest-arm64", "--seed=4", "--record", "-o", "run.json", "--timeline=a.jsonl"]) == 0
    assert main(["lab", "replay", "run.json", "--timeline", "b.trace", "--timeline-format=jsonl"]) == 0
    first = (tmp_path / "a.jsonl").read_text()
    assert first == (tmp_path / "b.trace").read_text()
    assert f"{len(first.splitlines())} events" in capsys.readouterr().out


def test_a_timeline_of_no_known_format_is_one_line(tmp_path, capsys):
    assert main(["lab", "run", "guest-arm64", "--timeline", str(tmp_path / "x.bin")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x.bin").exists()
