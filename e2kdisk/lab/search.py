"""Searching: every run there is, by the states that decisions lead to; what two runs come to is followed once.

Counting the ways through the states gives the number of runs that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


class Known(Exception):
    """The run has come to a state that has been seen: whoever runs it ends it in any way, and judges nothing."""


@dataclass(slots=True)
class Search:
    """What a search has found."""

    states: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    """Each state and those that follow, None for the end; the first is where all runs begin."""
    runs: int = 0
    complete: bool = False

    @property
    def orders(self) -> int:
        """How many sequences of decisions, from the beginning to the end, the states stand for."""
        if not self.states:
            return 1
        counts: dict[bytes | None, int] = {None: 1}
        first = next(iter(self.states))
        stack = [first]
        while stack:
            state = stack[-1]
            missing = [after for after in self.states[state] if after not in counts]
            if missing:
                stack += [after for after in missing if after is not None]
            else:
                counts[state] = sum(counts[after] for after in self.states[state])
                stack.pop()
        return counts[first]


Choose = Callable[[int, Callable[[], bytes]], int]
Run = Callable[[Choose], None]


def search(run: Run, limit: int) -> Search:
    """Call run(choose) until every state has been left in every way, or `limit` states have been seen.

    choose(width, state) picks one of `width` decisions; it raises Known at a state that is another run's already.
    """
    found = Search()
    todo: list[tuple[list[int], bytes]] = [([], b"")]
    while todo and len(found.states) < limit:
        prefix, last = todo.pop()
        _one_run(run, prefix, last, found, todo)
        found.runs += 1
    found.complete = not todo
    return found


def _one_run(run: Run, prefix: list[int], last: bytes, found: Search, todo: list[tuple[list[int], bytes]]) -> None:
    """Make the run that begins with these choices, the last of them in a state that is known, and go on from there."""
    taken: list[int] = []
    at = last

    def choose(width: int, state: Callable[[], bytes]) -> int:
        nonlocal at
        depth = len(taken)
        if depth < len(prefix):
            taken.append(prefix[depth])
            return prefix[depth]
        mark = state()
        if at:
            found.states[at].append(mark)
        if mark in found.states:
            raise Known
        found.states[mark] = []
        todo.extend(([*taken, other], mark) for other in range(width - 1, 0, -1))
        taken.append(0)
        at = mark
        return 0

    try:
        run(choose)
    except Known:
        return
    except BaseException as error:
        error.add_note(f"order of completion: {taken}")
        raise
    if at:
        found.states[at].append(None)
