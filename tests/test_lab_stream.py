"""The stream of events of a run is complete: what begins ends, and a file call is told with its request."""

import re
from collections import Counter
from pathlib import Path

import pytest

import e2kdisk.qcow2
from e2kdisk.aio.clock import VirtualClock
from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.open import Opener, open_disk
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.errors import CorruptImage
from e2kdisk.lab.decisions import Decisions, Natural, Seeded
from e2kdisk.lab.pages import Pages
from e2kdisk.lab.rules import FAULTS, PLAIN, POWER, TIMING
from e2kdisk.lab.scenario import find_scenario
from e2kdisk.lab.volume import Traffic, VolumeNode
from e2kdisk.qcow2.create import create

QCOW2 = Path(e2kdisk.qcow2.__file__).parent

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


def opened(image, note):
    """A qcow2 node over a file in memory that tells `note` what it decides; and the volume below it."""
    scheduler = Scheduler(VirtualClock())
    traffic = Traffic(scheduler, lambda: 0)
    traffic.begin(PLAIN, Decisions(Natural()))
    volume = VolumeNode(traffic, "disk0", Pages.of_file(image))
    volume.note = note
    opener = Opener(AutoEngine(scheduler), OpenPolicy.permissive())
    return scheduler.run(opener.open_format(volume, OpenOptions("d.qcow2", format="qcow2"))), volume


def test_growing_tables_copying_and_freeing_are_told_and_telling_changes_nothing(tmp_path):
    create(tmp_path / "d.qcow2", 1 << 20, cluster_size=512)
    told = set()

    def work(note):
        node, volume = opened(tmp_path / "d.qcow2", note)
        run = node.scheduler.run
        for offset in range(0, 1 << 20, 512):
            run(node.write(offset, [memoryview(bytes([offset >> 9 & 255]) * 300)]))  # the rest is filled up
        run(node.discard(0, 1 << 18))
        run(node.flush())
        run(node.truncate(64 << 20))
        for offset in range(8 << 20, 17 << 20, 1 << 18):
            run(node.write(offset, [memoryview(bytes(1 << 18))]))
        run(node.close())
        return volume.content.read(0, volume.size)

    assert work(lambda what, **fields: told.add((what, fields.get("table")))) == work(None)
    words = {what for what, _ in told}
    assert {"allocate", "free", "cow", "l2 table", "l1 grown", "refcount block", "refcount table grown"} <= words
    assert {("load", "l1"), ("load", "reftable"), ("update", "l2"), ("update", "refblock"), ("update", "l1")} <= told


def test_a_refusal_to_write_on_metadata_is_told(tmp_path):
    create(tmp_path / "d.qcow2", 1 << 20, cluster_size=512)
    with open_disk(tmp_path / "d.qcow2", format="qcow2") as disk:
        disk.pwrite(0, b"x" * 512)
    told = []
    node, volume = opened(tmp_path / "d.qcow2", lambda what, **fields: told.append((what, fields)))
    l1 = int.from_bytes(volume.content.read(40, 8), "big")
    l2 = int.from_bytes(volume.content.read(l1, 8), "big") & 0x00FF_FFFF_FFFF_FE00
    volume.content.write(l2, (1 << 63 | l1).to_bytes(8, "big"))  # the guest's first cluster is the L1 table
    with pytest.raises(CorruptImage):
        node.scheduler.run(node.write(0, [memoryview(b"y" * 512)]))
    assert [fields["why"] for what, fields in told if what == "refused"]


def test_every_word_of_the_format_can_stand_in_the_stream(scenario):
    """Its fields must not be called as those of an event are."""
    calls = re.findall(r"note\(\n?(.*?)\)\n", "".join(file.read_text() for file in QCOW2.glob("*.py")), re.DOTALL)
    names = {name for call in calls for name in re.findall(r"\b(\w+)=", call)}
    assert {"host", "length", "why", "table"} <= names and not names & {"what", "kind", "source", "file", "request"}
    scenario.rig.drives[0].volume.note("refused", **dict.fromkeys(names, 1))
