"""What a driver ends or masks stays ended or masked, whatever the latencies, and what was not lost comes later."""

import pytest

from e2kdisk.lab.decisions import every_run
from tests.lab_interruptions import EVERY_INTERRUPTION

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("kind", EVERY_INTERRUPTION, ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_a_command_that_is_ended_stays_silent_and_a_masked_message_comes_later(kind, tmp_path):
    scenario, broken = kind(tmp_path), []

    def run(source):
        made = scenario.run(source, kind.RULES)
        broken.extend(made.violations)
        return made.decisions

    runs = sum(1 for _ in every_run(run))
    scenario.close()
    print(f"{kind.__name__}: {runs} runs, all there are")
    assert broken == []
    assert runs > 100
