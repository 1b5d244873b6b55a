"""Fingerprints: a hash of everything that objects hold, down to suspended coroutines and their value stacks.

Two runs whose states have one fingerprint go on in the same way, so an exploration follows one of them.
"""

from __future__ import annotations

import gc
import types
from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

Leaf = Callable[[Any], Sequence[object]]
"""What of an object counts, instead of all that it holds."""

_PLAIN = (int, str, bytes, bool, float, type(None))
_NAMES_ONLY = (type, types.ModuleType, types.CodeType, types.GenericAlias)
_SUSPENDED = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)


class Fingerprint:
    """Writes the graph of objects down, each object once, numbered in the order of the walk."""

    def __init__(self, leaves: Sequence[tuple[type, Leaf]], counting: Collection[str] = ()) -> None:
        """`leaves` are the types whose objects are not walked through, and what stands for each.

        `counting` names coroutines whose whole numbers only count, for traces: no other step depends on them.
        """
        self._leaves = leaves
        self._counting = counting
        self.tokens: list[str] = []
        self.numbers: dict[int, int] = {}
        self.kept: list[object] = []
        """Objects made by the walk: their ids must not be used again."""

    def of(self, *roots: object) -> bytes:
        """A hash of everything that can be reached from these; equal for states that go on in the same way."""
        stack: list[object] = [roots]
        while stack:
            thing = stack.pop()
            number = self.numbers.get(id(thing))
            if number is not None:
                self.tokens.append(f"seen {number}")
                continue
            self.numbers[id(thing)] = len(self.numbers)
            parts = self.parts(thing)
            self.kept.append(parts)
            # Plain values stand here at once, in their places; the others follow.
            row = [part if isinstance(part, _PLAIN) else ... for part in parts]
            self.tokens.append(f"{type(thing).__name__} {row!r}")
            stack.extend([part for part in reversed(parts) if not isinstance(part, _PLAIN)])
        return digest("\0".join(self.tokens).encode())

    def parts(self, thing: Any) -> Sequence[object]:  # noqa: C901, PLR0912  (one line for each kind of object)
        """What an object is made of."""
        for kind, leaf in self._leaves:
            if isinstance(thing, kind):
                return leaf(thing)
        match thing:
            case bytearray():
                return [digest(thing)]
            case memoryview():
                return [None if thing.readonly else thing.obj, digest(thing)]
            case array():
                return [digest(thing)]
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
        if isinstance(thing, _NAMES_ONLY):
            return [repr(thing)]
        if isinstance(thing, _SUSPENDED):
            return self.suspended(thing)
        if type(thing).__module__ == "builtins":
            return self.iterator(thing)
        return self.attributes(thing)

    def suspended(self, thing: Any) -> Sequence[object]:
        """A suspended coroutine: where it stands, and its variables and value stack."""
        prefix = {types.CoroutineType: "cr", types.GeneratorType: "gi"}.get(type(thing), "ag")
        frame = getattr(thing, f"{prefix}_frame")
        # The referents are the locals and the value stack: what a loop has still to do is there too.
        held = [item for item in gc.get_referents(thing) if not isinstance(item, dict | types.FrameType)]
        self.kept.append(held)
        if getattr(thing, f"{prefix}_code").co_qualname in self._counting:
            held = [item for item in held if type(item) is not int]
        return [getattr(thing, f"{prefix}_code").co_qualname, None if frame is None else frame.f_lasti, *held]

    def iterator(self, thing: Any) -> Sequence[object]:
        """An iterator of the interpreter: what is left of it."""
        try:
            state = thing.__reduce__()
        except TypeError:
            state = gc.get_referents(thing)  # the waits inside of await
        self.kept.append(state)
        return [state]

    def attributes(self, thing: Any) -> Sequence[object]:
        """Any other object: its attributes."""
        names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        values = [getattr(thing, name, None) for name in names]
        return [*values, *(part for pair in sorted(getattr(thing, "__dict__", {}).items()) for part in pair)]


def digest(data: bytes | bytearray | memoryview | array[int]) -> bytes:
    """Of bytes."""
    return blake2b(data, digest_size=16).digest()
