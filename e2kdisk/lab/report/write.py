"""write_report: make a run again from its decisions, look at it from all sides, and write the page about it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2kdisk.lab.aftermath import Content
from e2kdisk.lab.decisions import Replay
from e2kdisk.lab.report.collect import Collector
from e2kdisk.lab.report.image_map import changed, map_of
from e2kdisk.lab.report.page import Disk, page

if TYPE_CHECKING:
    from e2kdisk.lab.record import Record
    from e2kdisk.lab.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Written:
    """What the page of a report was made from."""

    events: int
    hash: str
    """Of the run as it was made for the report."""


def write_report(path: str | os.PathLike[str], scenario: Scenario, record: Record, command: str) -> Written:
    """Write the page; `command` is what makes the run again. Raises OSError."""
    collector = Collector()
    run = scenario.run(Replay(record.decisions, strict=False), record.rules, listeners=[collector.event])
    disks = []
    for drive, base, found in zip(scenario.rig.drives, scenario.rig.base.volumes, scenario.found, strict=True):
        before, after = (map_of(pages, Content(pages, drive.options)) for pages in (base, found))
        cluster = before.cluster if before.file else after.cluster  # the unit of both: of one that can be read
        disks.append(Disk(drive.name, cluster, before, after, changed(base, found, cluster)))
    text = page(record, run, collector, disks, command)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return Written(run.events, run.hash)
