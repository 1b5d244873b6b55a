"""Reports of runs: a page that loads nothing, shows the run, and takes nothing that it shows for markup."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from e2kdisk.block.open import open_disk
from e2kdisk.lab.decisions import Natural, Seeded
from e2kdisk.lab.events import Event
from e2kdisk.lab.record import Record
from e2kdisk.lab.report.collect import Collector
from e2kdisk.lab.report.image_map import cells
from e2kdisk.lab.report.lanes import Picture
from e2kdisk.lab.report.write import write_report
from e2kdisk.lab.rules import PLAIN, POWER, TIMING
from e2kdisk.lab.scenarios import GuestArm64
from e2kdisk.tools.main import main
from tests.browser import Browser

pytestmark = pytest.mark.guest

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&\n\u2028\x00\x1b[31m"


async def early_flush(device, request):
    return 0  # VIRTIO_BLK_S_OK, and nothing is durable


class EarlyFlush(GuestArm64):
    """A controller whose FLUSH does nothing, and a scenario that says hostile things."""

    def build(self):
        rig = super().build()
        device = rig.machine.board.controllers[0].device
        commands = dict(device.commands)
        number = next(number for number, command in commands.items() if command.name == "FLUSH")
        device.commands = {**commands, number: replace(commands[number], run=early_flush)}
        return rig

    def act(self, rig):
        rig.decisions.choose(HOSTILE, 3)
        rig.events.event(HOSTILE, HOSTILE, **{HOSTILE: HOSTILE})
        rig.events.event("virtio-blk0", "guest-error", what=HOSTILE)
        super().act(rig)
        raise AssertionError(HOSTILE)


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    scenario = EarlyFlush(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


@pytest.fixture(scope="module")
def passing(tmp_path_factory):
    scenario = GuestArm64(tmp_path_factory.mktemp("lab"))
    yield scenario
    scenario.close()


def report(scenario, path, rules=TIMING, source=None):
    run = scenario.run(source or Seeded(3), rules)
    record = Record(HOSTILE, rules, run.decisions, run.hash, run.violations, 3)
    written = write_report(path, scenario, record, f"e2kdisk lab replay '{HOSTILE}'")
    assert written.hash == run.hash
    return run


class Seen(HTMLParser):
    """Elements, and the text of those whose text matters."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], {}
        self.open = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.open = dict(attrs).get("id") or tag

    def handle_data(self, text):
        self.texts[self.open] = self.texts.get(self.open, "") + text


def read(path):
    seen = Seen()
    seen.feed(path.read_text())
    return seen


def data_of(path):
    return json.loads(read(path).texts["data"])


# -- the page as a file -----------------------------------------------------------------------------


def test_the_page_says_what_failed_and_how_to_make_it_again(failing, tmp_path):
    run = report(failing, tmp_path / "r.html")
    seen = read(tmp_path / "r.html")
    assert "FlushIsDurable" in run.violations[0]
    assert seen.texts["h1"].strip() == run.violations[0]
    assert "e2kdisk lab replay" in seen.texts["command"]
    assert len(re.findall("class='chosen'", (tmp_path / "r.html").read_text())) == sum(
        decision.choice != 0 for decision in run.decisions
    )


def test_hostile_strings_are_text_wherever_they_stand(failing, tmp_path):
    report(failing, tmp_path / "r.html")
    seen = read(tmp_path / "r.html")
    assert seen.tags.count("script") == 2 and seen.tags.count("style") == 1 and "img" not in seen.tags
    assert not [name for _, name, _ in seen.attributes if name.startswith("on") or name in ("src", "href")]
    text = (tmp_path / "r.html").read_text()
    assert "\x00" not in text and "\x1b" not in text
    assert any("onerror" in event[3] for event in data_of(tmp_path / "r.html")["events"])


def test_the_page_loads_nothing(failing, tmp_path):
    report(failing, tmp_path / "r.html")
    (policy,) = [
        value for tag, name, value in read(tmp_path / "r.html").attributes if (tag, name) == ("meta", "content")
    ][:1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert not re.search(r"https?://|url\(|@import|\bimport\(|fetch\(", (tmp_path / "r.html").read_text())


def test_the_maps_agree_with_what_the_format_says_of_its_file(passing, tmp_path):
    run = report(passing, tmp_path / "r.html", source=Natural())
    assert not run.failed
    (disk,) = data_of(tmp_path / "r.html")["disks"]
    before, after = disk["maps"]
    image = tmp_path / "after.qcow2"
    passing.found[0].to_file(image)
    from tests import oracles

    runs = json.loads(oracles.qemu_img("map", "--output=json", image))
    expected = ["."] * len(after["guest"])
    for item in runs:
        for cluster in range(item["start"] // 4096, (item["start"] + item["length"]) // 4096):
            if item["data"]:
                expected[cluster] = "d"
                offset = item["offset"] + cluster * 4096 - item["start"]
                assert after["hosts"][cluster] == offset and after["file"][offset // 4096] == "d"
    assert after["guest"] == "".join(expected)
    assert before["file"].count("d") < after["file"].count("d")
    assert after["file"][0] == "h" and {"1", "2", "t", "b"} <= set(after["file"]) and "l" not in after["file"]
    assert {
        number for number, letter in enumerate(after["file"]) if before["file"][number : number + 1] != letter
    } <= set(disk["changed"])


def test_a_leaked_cluster_is_seen_in_the_map(tmp_path):
    from e2kdisk.block.options import OpenOptions
    from e2kdisk.lab.aftermath import Content
    from e2kdisk.lab.pages import Pages
    from e2kdisk.lab.report.image_map import map_of
    from e2kdisk.qcow2.create import create

    image = tmp_path / "d.qcow2"
    create(image, 1 << 20, cluster_size=4096)
    with open_disk(image, format="qcow2") as disk:
        disk.pwrite(0, b"x" * 8192)
    pages = Pages.of_file(image)
    pages.write(pages.size, bytes(4096))
    letters = map_of(pages, Content(pages, OpenOptions(str(image), format="qcow2"))).file
    block = letters.index("b") * 4096
    last = len(letters) - 1
    pages.write(block + 2 * last, b"\0\1")  # counted once, and nothing points there
    letters = map_of(pages, Content(pages, OpenOptions(str(image), format="qcow2"))).file
    assert letters[last] == "l" and letters.count("l") == 1
    pages.write(block + 2 * letters.index("d"), b"\0\0")
    assert "!" in map_of(pages, Content(pages, OpenOptions(str(image), format="qcow2"))).file
    pages.write(0, b"QFI\xfb" + b"\xff" * 100)
    assert map_of(pages, Content(pages, OpenOptions(str(image), format="qcow2"))).trouble


def test_cells_of_several_clusters_show_what_matters_most():
    assert cells("hdd....l.", 3) == "h.l"
    assert cells("h1d", 1) == "h1d"


def test_a_long_run_is_thinned_out_and_the_page_says_so(failing, tmp_path, monkeypatch):
    monkeypatch.setattr("e2kdisk.lab.report.write.Collector", lambda: Collector(200, 200))
    run = report(failing, tmp_path / "r.html")
    data = data_of(tmp_path / "r.html")
    shown = [event for event in data["events"] if event[3] != "violation"]
    assert len(shown) == 400
    left_out = re.search(r"([\d,]+) of its ([\d,]+) events are left out", (tmp_path / "r.html").read_text())
    assert int(left_out[1].replace(",", "")) + len(data["events"]) == int(left_out[2].replace(",", "")) >= run.events
    # Around the first of its failures, with all that failed later.
    failures = [event[0] for event in data["events"] if event[3] == "violation"]
    assert len(failures) == len(run.violations) > 3
    assert shown[0][0] < failures[0] < shown[-1][0] < failures[-1]


def test_marks_of_what_never_ends_or_never_began_stay_in_the_picture():
    events = [
        Event(5, "c", "submit", {"request": 1}),
        Event(7, "c", "request", {"request": 2}),
        Event(9, "c", "reset", {}),
    ]
    collector = Collector()
    for event in events:
        collector.event(event)
    (mark, _) = Picture(collector.events).marks[::-1]
    assert (mark.begin_ns, mark.end_ns, mark.look) == (5, 9, "unfinished")


@pytest.mark.slow
def test_the_command_line_writes_a_report_of_each_action(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"{__file__}:EarlyFlush"
    assert main(["lab", "run", name, "--report", "run.html"]) == 2
    assert main(["lab", "replay", "failure.json", "--report", "replay.html"]) == 2
    assert main(["lab", "shrink", "failure.json", "--report", "shrink.html"]) == 2
    assert main(["lab", "explore", name, "--seeds=2", "--rules=plain", "--report", "explore.html"]) == 2
    for page in ("run", "replay", "shrink", "explore"):
        seen = read(tmp_path / f"{page}.html")
        assert "FlushIsDurable" in seen.texts["h1"] and seen.texts["command"] == "e2kdisk lab replay failure.json"


# -- the page in a browser --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def place_of(browser, which):
    """Middle of a mark on the screen, which is an expression over a mark `m` and its event `e`."""
    browser.value("canvas.scrollIntoView()")
    return browser.value(
        f"""(() => {{ const m = orderedMarks.filter(m => {{ const e = data.events[m.event]; return {which}; }})[0];
        const [x, y, wide, high] = box(m), at = canvas.getBoundingClientRect();
        return [at.x + x + wide / 2, at.y + y + high / 2]; }})()"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_draws_the_page_without_a_complaint_and_loads_nothing_else(failing, browser, tmp_path, dark):
    run = report(failing, tmp_path / "r.html")
    browser.trouble.clear(), browser.requests.clear()
    browser.open(tmp_path / "r.html", dark=dark)
    assert browser.value("document.body.dataset.ready") == "yes"
    assert browser.value("document.title") != "taken"
    assert int(browser.value("canvas.dataset.drawn")) == len(data_of(tmp_path / "r.html")["marks"]) > run.events // 2
    names = browser.value("[...document.querySelectorAll('#labels div')].map(label => label.textContent)")
    assert names[0] == "guest CPU" and {"virtio-blk0 requests", "file calls", "decisions", "alarms"} <= set(names)
    assert browser.trouble == []
    # Something is painted in every lane, in more than one colour.
    colours = browser.value(
        """tops.map(top => { const ratio = canvas.width / canvas.clientWidth, seen = new Set(),
        bytes = canvas.getContext('2d').getImageData(0, (top + 5) * ratio, canvas.width, 1).data;
        for (let at = 0; at < bytes.length; at += 4) seen.add(bytes.slice(at, at + 3).join()); return seen.size; })"""
    )
    assert all(number > 1 for number in colours)
    browser.screenshot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert {address.partition(":")[0] for address in browser.requests} == {"file"} and len(browser.requests) == 1


@pytest.mark.slow
def test_pointing_tells_of_the_event_and_the_wheel_zooms_there(failing, browser, tmp_path):
    report(failing, tmp_path / "r.html")
    browser.trouble.clear()
    browser.open(tmp_path / "r.html")
    x, y = place_of(browser, "e[3] === 'submit' && m.end - m.begin > 5e6")
    browser.mouse("mouseMoved", x, y)
    assert browser.value("document.getElementById('tip').textContent").startswith("virtio-blk0 submit\nat ")
    begin, end = (float(browser.value(f"canvas.dataset.{name}")) for name in ("from", "to"))
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-1200)
    browser.value("new Promise(requestAnimationFrame)")
    closer, nearer = (float(browser.value(f"canvas.dataset.{name}")) for name in ("from", "to"))
    assert begin <= closer < nearer <= end and nearer - closer < (end - begin) / 4
    browser.click(*place_of(browser, "m === hovered"))
    assert browser.value("document.querySelector('tr.selected td:nth-child(4)').textContent") == "submit"
    assert browser.trouble == []


@pytest.mark.slow
def test_buttons_and_filter_work(failing, browser, tmp_path):
    report(failing, tmp_path / "r.html")
    browser.trouble.clear()
    browser.open(tmp_path / "r.html")
    browser.value("document.getElementById('alarm').click()")
    begin, end = (float(browser.value(f"canvas.dataset.{name}")) for name in ("from", "to"))
    first = next(event[1] for event in data_of(tmp_path / "r.html")["events"] if event[3] == "violation")
    assert begin <= first <= end
    browser.value("document.getElementById('whole').click(), document.getElementById('squeeze').click()")
    browser.value("filterBox = document.getElementById('filter'), filterBox.value = 'violation', filterBox.oninput()")
    assert browser.value("document.querySelectorAll('#events tbody tr').length") == len(
        [event for event in data_of(tmp_path / "r.html")["events"] if "violation" in " ".join(map(str, event[2:]))]
    )
    browser.value("document.getElementById('copy').click()")
    assert browser.value("getComputedStyle(document.querySelector('tr.natural')).display") == "none"
    browser.value("document.getElementById('all').click()")
    assert browser.value("getComputedStyle(document.querySelector('tr.natural')).display") == "table-row"
    assert browser.trouble == []


@pytest.mark.slow
def test_a_run_that_ended_by_a_power_cut_shows_where(passing, browser, tmp_path):
    seed = next(seed for seed in range(40) if passing.run(Seeded(seed), POWER).cut)
    run = report(passing, tmp_path / "r.html", POWER, Seeded(seed))
    assert run.cut
    browser.open(tmp_path / "r.html", dark=True)
    assert browser.value("document.getElementById('alarm').textContent") == "The power cut"
    assert browser.value("data.alarms.length") == 1


@pytest.mark.slow
def test_an_empty_run_is_a_page_too(browser, tmp_path, tmp_path_factory):
    class Nothing(GuestArm64):
        def act(self, rig):
            pass

    scenario = Nothing(tmp_path_factory.mktemp("lab"))
    report(scenario, tmp_path / "r.html", PLAIN)
    scenario.close()
    browser.trouble.clear()
    browser.open(tmp_path / "r.html")
    assert browser.value("document.body.dataset.ready") == "yes" and browser.trouble == []
