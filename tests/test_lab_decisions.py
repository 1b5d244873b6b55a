"""Decisions: every run once, replay, and what shrinking leaves."""

import itertools

import pytest

from e2kdisk.lab.decisions import Decision, Decisions, Natural, Replay, ReplayError, Seeded, every_run


def choices(source):
    decisions = Decisions(source)
    first = decisions.choose("a", 3)
    for number in range(first):
        decisions.choose(f"b{number}", 2)
    decisions.choose("only one", 1)
    return decisions.made


def test_every_run_is_made_once():
    runs = [tuple(decision.choice for decision in made) for made in every_run(choices)]
    expected = [(0,), *[(1, b) for b in range(2)], *[(2, *bs) for bs in itertools.product(range(2), repeat=2)]]
    assert runs == expected


def test_the_runs_of_all_beginnings_are_all_runs():
    parts = [list(every_run(choices, [Decision("a", 3, choice)])) for choice in range(3)]
    assert [len(part) for part in parts] == [1, 2, 4]


@pytest.mark.parametrize("seed", range(5))
def test_a_run_replays_from_its_list_and_a_seed_is_a_list(seed):
    made = choices(Seeded(seed))
    assert choices(Seeded(seed)) == made == choices(Replay(made))


def test_a_list_of_another_run_is_refused_and_not_bent():
    with pytest.raises(ReplayError, match="decision 1 of the list is 'z'"):
        choices(Replay([Decision("z", 3, 1)]))
    assert [d.choice for d in choices(Replay([Decision("z", 9, 8)], strict=False))] == [2, 0, 0]


def test_the_natural_run_has_zeros_only():
    assert {decision.choice for decision in choices(Natural())} == {0}
