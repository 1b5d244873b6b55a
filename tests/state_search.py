"""Every order of completion, by searching the states that they lead to: two orders that meet in one state go on as one.

A state is all that the next step can depend on: the bytes of the file and everything that the suspended coroutines
hold, down to their instruction pointers and value stacks. It is known by a hash, so each state is followed once.
"""

from __future__ import annotations

import gc
import types
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from tests.qcow2_model import LabFile

_PLAIN = (int, str, bytes, bool, float, type(None))
_NAMES_ONLY = (type, types.ModuleType, types.CodeType, types.GenericAlias)
_SUSPENDED = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_OPAQUE = (Scheduler, SimulatedEngine)
"""What they hold is reached from the coroutines: who waits for what."""


def fingerprint(*roots: object) -> bytes:
    """A hash of everything that can be reached from some objects; equal for states that go on in the same way."""
    return _Fingerprint().of(roots)


class _Fingerprint:
    """Writes the graph of objects down, each object once, numbered in the order of the walk."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.numbers: dict[int, int] = {}
        self.kept: list[object] = []
        """Objects made by the walk: their ids must not be used again."""

    def of(self, roots: tuple[object, ...]) -> bytes:
        stack: list[object] = [roots]
        while stack:
            thing = stack.pop()
            number = self.numbers.get(id(thing))
            if number is not None:
                self.tokens.append(f"seen {number}")
                continue
            self.numbers[id(thing)] = len(self.numbers)
            parts = self.parts(thing)
            # Plain values stand here at once, in their places; the others follow.
            row = [part if isinstance(part, _PLAIN) else ... for part in parts]
            self.tokens.append(f"{type(thing).__name__} {row!r}")
            stack.extend([part for part in reversed(parts) if not isinstance(part, _PLAIN)])
        return _digest("\0".join(self.tokens).encode())

    def parts(self, thing: Any) -> Sequence[object]:  # noqa: C901, PLR0912  (one line for each kind of object)
        match thing:
            case LabFile():
                return [_file_digest(thing.data)]
            case bytearray():
                return [_digest(thing)]
            case memoryview():
                return [None if thing.readonly else thing.obj, _digest(thing)]
            case array():
                return [_digest(thing)]
            case list() | tuple() | deque():
                return thing
            case dict():
                return [part for pair in thing.items() for part in pair]
            case set() | frozenset():
                return sorted(thing, key=repr)
            case types.FunctionType():
                return [thing.__qualname__, *(thing.__closure__ or ()), *(thing.__defaults__ or ())]
            case types.MethodType():
                return [thing.__func__.__qualname__, thing.__self__]
            case types.BuiltinFunctionType():
                return [thing.__name__, None if isinstance(thing.__self__, types.ModuleType) else thing.__self__]
            case partial():
                return [thing.func, thing.args, thing.keywords]
            case types.CellType():
                return gc.get_referents(thing)  # nothing, if it is empty
            case BaseException():
                return [thing.args]
        if isinstance(thing, _OPAQUE):
            return []
        if isinstance(thing, _NAMES_ONLY):
            return [repr(thing)]
        if isinstance(thing, _SUSPENDED):
            return self.suspended(thing)
        if type(thing).__module__ == "builtins":
            return self.iterator(thing)
        return self.attributes(thing)

    def suspended(self, thing: Any) -> Sequence[object]:
        prefix = {types.CoroutineType: "cr", types.GeneratorType: "gi"}.get(type(thing), "ag")
        frame = getattr(thing, f"{prefix}_frame")
        # The referents are the locals and the value stack: what a loop has still to do is there too.
        held = [item for item in gc.get_referents(thing) if not isinstance(item, dict | types.FrameType)]
        self.kept.append(held)
        return [getattr(thing, f"{prefix}_code").co_qualname, None if frame is None else frame.f_lasti, *held]

    def iterator(self, thing: Any) -> Sequence[object]:
        try:
            state = thing.__reduce__()
        except TypeError:
            state = gc.get_referents(thing)  # the waits inside of await
        self.kept.append(state)
        return [state]

    def attributes(self, thing: Any) -> Sequence[object]:
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        values = [getattr(thing, name, None) for name in names]
        return [*values, *(part for pair in sorted(getattr(thing, "__dict__", {}).items()) for part in pair)]


def _digest(data: bytes | bytearray | memoryview | array[int]) -> bytes:
    return blake2b(data, digest_size=16).digest()


_PAGE = 1 << 14
_VERSIONS = 8
_known: dict[int, deque[tuple[bytes, bytes]]] = {}
"""Offset of a page in a file -> its last contents there, with their digests."""


def _file_digest(data: bytearray) -> bytes:
    """A hash of a file; of one that is large and hardly changes, in a tenth of the time that hashing it takes."""
    digests = []
    for at in range(0, len(data), _PAGE):
        versions = _known.setdefault(at, deque(maxlen=_VERSIONS))
        length = min(_PAGE, len(data) - at)
        digest = next((known for page, known in versions if len(page) == length and data.startswith(page, at)), None)
        if digest is None:
            page = bytes(data[at : at + length])
            digest = _digest(page)
            versions.appendleft((page, digest))
        digests.append(digest)
    return _digest(b"".join(digests))


# -- search ------------------------------------------------------------------------------------------


class Known(Exception):
    """The run has come to a state that has been seen: whoever runs it ends it in any way, and judges nothing."""


@dataclass
class Search:
    """What a search has found."""

    states: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    """Each state and those that follow, None for the end; the first is where all runs begin."""
    runs: int = 0
    complete: bool = False

    @property
    def orders(self) -> int:
        """How many sequences of decisions, from the beginning to the end, the states stand for."""
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
    todo: list[list[int]] = [[]]
    while todo and len(found.states) < limit:
        prefix = todo.pop()
        _one_run(run, prefix, found, todo)
        found.runs += 1
    found.complete = not todo
    return found


def _one_run(run: Run, prefix: list[int], found: Search, todo: list[list[int]]) -> None:
    taken: list[int] = []
    before: list[bytes] = []

    def choose(width: int, state: Callable[[], bytes]) -> int:
        depth = len(taken)
        if depth < len(prefix) - 1:
            taken.append(prefix[depth])
            return prefix[depth]
        mark = state()
        if before:
            found.states[before[-1]].append(mark)
        if depth == len(prefix) - 1:
            taken.append(prefix[depth])
        else:
            if mark in found.states:
                raise Known
            found.states[mark] = []
            todo.extend([*taken, other] for other in range(width - 1, 0, -1))
            taken.append(0)
        before.append(mark)
        return taken[-1]

    try:
        run(choose)
    except Known:
        return
    except BaseException as error:
        error.add_note(f"order of completion: {taken}")
        raise
    found.states[before[-1]].append(None)
