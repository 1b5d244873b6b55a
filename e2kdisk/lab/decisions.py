"""Decisions: the one place where a run of the laboratory may differ from another.

Every choice has a name ("disk0 write 0x50000: latency"), a number of options, and the option taken. Option 0 is always
the natural one (at once, in order, no error), so an empty list replays the plainest run and shrinking means zeroes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from e2kdisk.errors import E2kDiskError


class Decision(NamedTuple):
    """One choice that was made."""

    name: str
    options: int
    choice: int

    def __str__(self) -> str:
        return f"{self.name} = {self.choice} of {self.options}"


class ReplayError(E2kDiskError):
    """A list of decisions that does not fit the run: the code or the scenario has changed since."""


class Source(Protocol):
    """Makes the choices of one run."""

    def pick(self, name: str, options: int, rare: bool) -> int:
        """An option from 0 to options - 1; `rare` says that others than 0 should not be the rule."""
        ...


class Natural:
    """Always the natural option."""

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick."""
        return 0


class Seeded:
    """Random options from a seed; rare ones with a chance that the seed chooses, too.

    A fixed chance would make runs with very many and with very few of them equally unlikely to be met.
    """

    CHANCES = (0.005, 0.02, 0.1)

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._dice = random.Random(seed)
        self._chance = self._dice.choice(self.CHANCES)

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick."""
        if not rare:
            return self._dice.randrange(options)
        return self._dice.randrange(1, options) if self._dice.random() < self._chance else 0


class Replay:
    """The options of a list, then the natural ones.

    With `strict` the list is one of a whole run: names and numbers of options must be those that the run asks for.
    """

    def __init__(self, decisions: Sequence[Decision], *, strict: bool = True) -> None:
        self._decisions = decisions
        self._strict = strict
        self._at = 0

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick. Raises ReplayError."""
        if self._at == len(self._decisions):
            return 0
        decision = self._decisions[self._at]
        self._at += 1
        if self._strict and (decision.name, decision.options) != (name, options):
            raise ReplayError(
                f"decision {self._at} of the list is {decision.name!r} with {decision.options} options, "
                f"but the run asks for {name!r} with {options}"
            )
        return min(decision.choice, options - 1)


class Continued:
    """The options of a list that must fit, then those of another source."""

    def __init__(self, decisions: Sequence[Decision], source: Source) -> None:
        self._begin = Replay(decisions)
        self._left = len(decisions)
        self._source = source

    def pick(self, name: str, options: int, rare: bool) -> int:
        """Source.pick. Raises ReplayError."""
        if not self._left:
            return self._source.pick(name, options, rare)
        self._left -= 1
        return self._begin.pick(name, options, rare)


class Decisions:
    """The choices of one run, as they are made."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.made: list[Decision] = []
        self.on_decision: Callable[[Decision], None] | None = None
        """Called with each: the trace."""

    def choose(self, name: str, options: int, *, rare: bool = False) -> int:
        """Let the source choose; what has one option only is no decision."""
        if options < 2:
            return 0
        decision = Decision(name, options, self.source.pick(name, options, rare))
        self.made.append(decision)
        if self.on_decision is not None:
            self.on_decision(decision)
        return decision.choice


def every_run(
    run: Callable[[Source], Sequence[Decision]], begin: Sequence[Decision] = ()
) -> Iterator[Sequence[Decision]]:
    """Make every possible run that begins with these decisions once, in lexical order.

    run(source) makes one and returns its decisions. Runs must be functions of their decisions: the same first choices
    ask for the same next one.
    """
    prefix = list(begin)
    while True:
        made = list(run(Replay(prefix)))
        yield list(made)
        while len(made) > len(begin) and made[-1].choice == made[-1].options - 1:
            made.pop()
        if len(made) <= len(begin):
            return
        last = made.pop()
        prefix = [*made, last._replace(choice=last.choice + 1)]
