"""The page of a report: one HTML file that loads nothing, with the run as data and a script that draws it.

Everything that comes from a guest, an image or a scenario is escaped: as text of the document, or in the data, which
the script only ever puts into text nodes. A policy in the page lets no other script or style run, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from e2kdisk.lab.decisions import Decision
from e2kdisk.lab.record import Record
from e2kdisk.lab.report.collect import Collector
from e2kdisk.lab.report.image_map import KINDS, MOST_CELLS, FileMap, cells
from e2kdisk.lab.report.lanes import Picture
from e2kdisk.lab.rig import Run
from e2kdisk.lab.timeline_text import fields_text, value_text

MOST_DECISIONS = 3000
"""In the list of a page; unnatural ones go first."""
MOST_WORDS = 4000
"""Characters of any other text."""
MOST_VIOLATIONS = 10
"""Besides the first; the picture marks all."""
MOST_TEXT = 300
"""Characters of one string of an event."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One file of the run, before and after."""

    name: str
    cluster: int
    """Bytes of one."""
    before: FileMap
    after: FileMap
    changed: list[int]
    """Numbers of the file's clusters whose bytes changed."""


def page(record: Record, run: Run, collector: Collector, disks: list[Disk], command: str) -> str:
    """The whole file. Its size is bounded by what collector and maps hold."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("report.css", "report.js"))
    title = _headline(run, record)
    policy = f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    return PAGE.format(
        policy=policy,
        title=_text(title),
        verdict="failed" if run.failed else "passed",
        summary="".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in _summary(record, run, collector)),
        violations="".join(f"<li>{_text(what)}</li>" for what in _others(run.violations[1:])),
        command=_text(command),
        notes="".join(f"<p class='note'>{_text(note)}</p>" for note in _notes(record, run, collector)),
        decisions=_decisions(run.decisions),
        counts=_text(_decision_counts(run.decisions)),
        style=style,
        script=script,
        data=_embedded(_data(collector, disks)),
    )


def _others(violations: list[str]) -> list[str]:
    more = len(violations) - MOST_VIOLATIONS
    return violations[:MOST_VIOLATIONS] + ([f"... and {more:,} more"] if more > 0 else [])


def _headline(run: Run, record: Record) -> str:
    if run.violations:
        return run.violations[0]
    if record.violations:
        return f"This run no longer fails as it did when it was recorded: {record.violations[0]}"
    if run.cut:
        return "Nothing failed: after the power cut the image checks and the guest came back."
    return "Nothing failed: every contract held, and the image checks."


def _summary(record: Record, run: Run, collector: Collector) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{number:,} {value_text('', kind)}" for kind, number in collector.kinds.most_common(6))
    return [
        ("scenario", record.scenario),
        ("seed", "none: from a list of decisions" if record.seed is None else str(record.seed)),
        ("ended by", "a power cut" if run.cut else "its scenario"),
        ("events", f"{run.events:,} ({kinds}, ...)"),
        ("hash", run.hash),
    ]


def _notes(record: Record, run: Run, collector: Collector) -> list[str]:
    notes = []
    if run.hash != record.hash:
        notes.append(f"The run was made again for this page, and came out differently: it was {record.hash}.")
    if run.failed and not run.cut:
        notes.append("The image is shown as the failed run left it: what the format still held in memory is not in it.")
    if collector.dropped:
        notes.append(
            f"The run is long: {collector.dropped:,} of its {collector.count:,} events are left out of the picture "
            "and the table, those furthest from the first failure or from the end. --timeline FILE.json has all."
        )
    if len(run.decisions) > MOST_DECISIONS:
        notes.append(f"The list of decisions stops after {MOST_DECISIONS:,} of {len(run.decisions):,}.")
    return notes


def _decision_counts(decisions: list[Decision]) -> str:
    chosen = sum(decision.choice != 0 for decision in decisions)
    return f"{len(decisions):,} decisions, {chosen:,} of them not the natural ones"


def _decisions(decisions: list[Decision]) -> str:
    chosen = {at for at, decision in enumerate(decisions) if decision.choice}
    shown = sorted(sorted(range(len(decisions)), key=lambda at: (at not in chosen, at))[:MOST_DECISIONS])
    return "".join(
        f"<tr class='{'chosen' if at in chosen else 'natural'}'><td>{at}</td><td>{_text(decisions[at].name)}</td>"
        f"<td>{decisions[at].choice}</td><td>of {decisions[at].options}</td></tr>\n"
        for at in shown
    )


def _data(collector: Collector, disks: list[Disk]) -> dict[str, Any]:
    events = collector.events
    picture = Picture(events)
    return {
        "events": [
            [number, event.ns, _clip(event.source), _clip(event.kind), _clip(fields_text(event.fields))]
            for number, event in events
        ],
        "lanes": [[_clip(name), rows] for name, rows in zip(picture.names, picture.rows, strict=True)],
        "marks": picture.marks,
        "alarms": picture.alarms,
        "kinds": list(KINDS.items()),
        "disks": [_disk(disk) for disk in disks],
    }


def _disk(disk: Disk) -> dict[str, Any]:
    maps = (disk.before, disk.after)
    largest = max(len(letters) for its in maps for letters in (its.file, its.guest))
    per_cell = max(1, -(-largest // MOST_CELLS))
    return {
        "name": _clip(disk.name),
        "cluster": disk.cluster,
        "per_cell": per_cell,
        "changed": sorted({number // per_cell for number in disk.changed}),
        "maps": [
            {
                "file": cells(its.file, per_cell),
                "guest": cells(its.guest, per_cell),
                "hosts": its.hosts[::per_cell],
                "trouble": _clip(its.trouble),
            }
            for its in maps
        ],
    }


def _clip(text: str) -> str:
    text = value_text("", text)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "..."


def _text(text: str) -> str:
    return html.escape(value_text("", text[:MOST_WORDS]))


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header class="{verdict}">
<p class="verdict">{verdict}</p>
<h1>{title}</h1>
<ul class="violations">{violations}</ul>
</header>
<dl class="summary">{summary}</dl>
<div class="command"><code id="command">{command}</code><button id="copy" type="button">Copy</button></div>
{notes}
<section>
<h2>Timeline</h2>
<div class="bar">
<button type="button" id="whole">Whole run</button>
<button type="button" id="alarm">The failure</button>
<button type="button" id="in">Zoom in</button>
<button type="button" id="out">Zoom out</button>
<label><input type="checkbox" id="squeeze" checked> shorten idle time</label>
<span id="legend"></span>
</div>
<div id="timeline"><div id="labels"></div><div id="drawing"><canvas id="canvas"></canvas></div></div>
<p class="hint">Wheel or pinch to zoom at the pointer, drag to move, click to find the event in the table. Pointing at a
request shows its file calls and what the format did for it.</p>
</section>
<section>
<h2>Image</h2>
<p id="kinds"></p>
<div id="maps"></div>
</section>
<section>
<h2>Decisions</h2>
<p>{counts} <label><input type="checkbox" id="all"> show all</label></p>
<div class="scroll"><table id="decisions"><thead><tr><th>#</th><th>decision</th><th>option</th><th></th></tr></thead>
<tbody>
{decisions}</tbody></table></div>
</section>
<section>
<h2>Events</h2>
<div class="bar"><input id="filter" type="search" placeholder="filter: write disk0 !uart" size="40">
<button type="button" id="earlier">Earlier</button><button type="button" id="later">Later</button>
<span id="found"></span></div>
<table id="events"><thead><tr><th>#</th><th>us</th><th>source</th><th>kind</th><th>fields</th></tr></thead>
<tbody></tbody></table>
</section>
<div id="tip" hidden></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
