"""Every order of completion of the requests that each controller can have in flight at once."""

import pytest

from e2kdisk.lab.decisions import every_run
from e2kdisk.lab.rules import ORDER
from tests.lab_orders import EVERY_CONTROLLER

pytestmark = pytest.mark.guest
LEAST = {"IdeOrders": 38, "IdePio": 20, "PlatformOrders": 4}
"""Orders that there are at least: a channel has one command at a time, a ring has four requests."""


@pytest.fixture(params=EVERY_CONTROLLER, ids=lambda scenario: scenario.__name__)
def scenario(request, tmp_path):
    scenario = request.param(tmp_path)
    yield scenario
    scenario.close()


def test_every_order_of_completion_gives_each_request_its_own_answer(scenario):
    hashes = []

    def run(source):
        made = scenario.run(source, ORDER)
        assert made.violations == []
        hashes.append(made.hash)
        return made.decisions

    runs = list(every_run(run))
    print(f"{type(scenario).__name__}: {len(runs)} orders of {len(scenario.MIXES)} mixes of requests, all of them")
    assert len(set(hashes)) == len(runs) >= LEAST.get(type(scenario).__name__, 64)


def test_events_name_the_drive_that_they_are_about(tmp_path):
    from tests.lab_orders import IdeOrders

    scenario, seen = IdeOrders(tmp_path), {}
    scenario.rig.run(scenario.act, rules=ORDER, listeners=[lambda event: seen.setdefault(drive_of(scenario, event))])
    scenario.close()
    assert {name for name in seen if name} == {"disk0", "disk1", "disk2", "disk3"}


def drive_of(scenario, event):
    drive = scenario.rig.drive_of(event) if event.kind == "submit" else None
    return drive and drive.name
