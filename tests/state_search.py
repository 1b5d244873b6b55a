"""Every order of completion, by searching the states that they lead to: two orders that meet in one state go on as one.

A state is all that the next step can depend on: the bytes of the file and everything that the suspended coroutines
hold, down to their instruction pointers and value stacks. It is known by a hash, so each state is followed once.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.aio.simulated import SimulatedEngine
from e2kdisk.lab.fingerprint import Fingerprint, Leaf, digest
from tests.qcow2_model import LabFile

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
        of_page = next((known for page, known in versions if len(page) == length and data.startswith(page, at)), None)
        if of_page is None:
            page = bytes(data[at : at + length])
            of_page = digest(page)
            versions.appendleft((page, of_page))
        digests.append(of_page)
    return digest(b"".join(digests))


_LEAVES: list[tuple[type, Leaf]] = [
    (LabFile, lambda file: [_file_digest(file.data)]),
    # What they hold is reached from the coroutines: who waits for what.
    (Scheduler, lambda scheduler: []),
    (SimulatedEngine, lambda engine: []),
]


def fingerprint(*roots: Any) -> bytes:
    """A hash of everything that can be reached from some objects; equal for states that go on in the same way."""
    return Fingerprint(_LEAVES).of(*roots)
