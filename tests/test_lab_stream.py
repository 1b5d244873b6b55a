"""The stream of events of a run is complete: what begins ends, and a file call is told with its request."""

from collections import Counter

import pytest

from e2kdisk.lab.decisions import Seeded
from e2kdisk.lab.rules import FAULTS, POWER, TIMING
from e2kdisk.lab.scenario import find_scenario

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=["guest-arm64", "elbrus-ide-dma"])
def scenario(request, tmp_path_factory):
    scenario = find_scenario(request.param)(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


def events_of(scenario, rules, seed=3):
    events = []
    run = scenario.run(Seeded(seed), rules, listeners=[events.append])
    return run, events


@pytest.mark.parametrize("rules", [TIMING, FAULTS, POWER], ids=["timing", "faults", "power"])
def test_every_call_on_the_file_and_every_request_begins_once_and_ends_once(scenario, rules):
    run, events = events_of(scenario, rules)
    began = [event.fields["call"] for event in events if event.kind == "call"]
    ended = [event.fields["call"] for event in events if event.source == "file" and event.kind.startswith("file ")]
    assert began == list(range(1, len(began) + 1))
    assert sorted(ended) == began
    submitted = [event.fields["request"] for event in events if event.kind == "submit"]
    answered = [event.fields["request"] for event in events if event.kind == "request"]
    assert submitted == list(range(1, len(submitted) + 1))
    if not run.cut:
        assert sorted(answered) == submitted


def test_each_call_that_writes_data_names_the_request_that_it_belongs_to(scenario):
    _, events = events_of(scenario, TIMING)
    types = {event.fields["request"]: event.fields["type"] for event in events if event.kind == "submit"}
    calls = [event for event in events if event.kind == "call"]
    named = [types[event.fields["request"]] for event in calls if event.fields["request"]]
    assert len(named) == len(calls) > 10  # every call of a run comes from a request of the guest
    flushes = [event for event in calls if event.fields["what"] == "flush"]
    assert flushes and all("FLUSH" in types[event.fields["request"]] for event in flushes)


def test_what_the_format_decides_says_where_in_the_file(scenario):
    _, events = events_of(scenario, TIMING)
    decided = [event for event in events if event.source == "format"]
    kinds = Counter(event.kind for event in decided)
    assert {"load", "allocate", "update"} <= set(kinds)
    cluster = 4096
    for event in decided:
        if event.kind == "allocate":
            assert event.fields["host"] % cluster == 0 and event.fields["clusters"] > 0
    # Each cluster that was allocated was free before: none is given out twice while it is not given back.
    owned = set()
    for event in decided:
        if event.kind in ("allocate", "free", "give back"):
            first = event.fields["host"] // cluster
            clusters = set(range(first, first + event.fields["clusters"]))
            if event.kind == "allocate":
                assert not owned & clusters
                owned |= clusters
            else:
                owned -= clusters


def test_dma_stands_in_the_stream_in_both_directions_and_accesses_name_their_instruction(scenario):
    _, events = events_of(scenario, TIMING)
    directions = Counter(event.fields["direction"] for event in events if event.kind == "dma")
    assert set(directions) == {"to guest", "from guest"}
    assert all(event.fields["request"] for event in events if event.fields.get("direction") == "to guest")
    accesses = [event for event in events if event.kind in ("read", "write") and "register" in event.fields]
    assert accesses and all("pc" in event.fields for event in accesses)


def test_listening_changes_nothing(scenario):
    run, _ = events_of(scenario, TIMING)
    alone = scenario.run(Seeded(3), TIMING)
    assert (alone.hash, alone.decisions) == (run.hash, run.decisions)
