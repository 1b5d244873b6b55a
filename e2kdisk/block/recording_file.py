"""A Recording in a file, so that a failing case can be kept beside its test.

"e2kdrec\\n"  version (u32)  zlib stream of:
    size of the initial content (u64), epochs (u32), number of changes (u32), number of marks (u32)
    initial content
    changes: kind (u8), outcome (u8), offset (u64), length (u64), issued (u32), durable (u32, 0: never);
             a write is followed by its bytes
    marks:   epoch (u32), completed changes (u32), length of the text (u32), text in UTF-8
All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from e2kdisk.block.recording import Change, Kind, Outcome, Recording
from e2kdisk.errors import ImageError, UnsupportedFeature

MAGIC = b"e2kdrec\n"
VERSION = 1

_VERSION = struct.Struct("<I")
_HEAD = struct.Struct("<QIII")
_CHANGE = struct.Struct("<BBQQII")
_MARK = struct.Struct("<III")


def save_recording(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write a recording to a file. Raises OSError."""
    parts = [
        _HEAD.pack(len(recording.initial), recording.epochs, len(recording.changes), len(recording.marks)),
        recording.initial,
    ]
    for change in recording.changes:
        fields = (change.kind, change.outcome, change.offset, change.length, change.issued, change.durable or 0)
        parts += (_CHANGE.pack(*fields), change.data)
    for epoch, completed, text in recording.marks:
        encoded = text.encode()
        parts += (_MARK.pack(epoch, completed, len(encoded)), encoded)
    Path(path).write_bytes(MAGIC + _VERSION.pack(VERSION) + zlib.compress(b"".join(parts), 6))


def load_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording. Raises ImageError that says what is wrong with the file, UnsupportedFeature, OSError."""
    name = os.fspath(path)
    raw = Path(path).read_bytes()
    head = len(MAGIC) + _VERSION.size
    if len(raw) < head or not raw.startswith(MAGIC):
        raise ImageError(name, "", "is no recording of e2kdisk")
    version = _VERSION.unpack_from(raw, len(MAGIC))[0]
    if version != VERSION:
        raise UnsupportedFeature(name, "", f"recording version {version} is not supported, only {VERSION}")
    try:
        return _parse(_Reader(zlib.decompress(raw[head:])))
    except (zlib.error, ValueError) as error:
        raise ImageError(name, "", f"broken recording: {error}") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, length: int) -> bytes:
        """The next bytes. Raises ValueError at the end."""
        end = self._place + length
        if end > len(self._data):
            raise ValueError(f"ends at {len(self._data)} where {end} bytes are needed")
        part = self._data[self._place : end]
        self._place = end
        return part

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))


def _parse(reader: _Reader) -> Recording:
    size, epochs, changes, marks = reader.fields(_HEAD)
    recording = Recording(reader.take(size), [], epochs)
    for _ in range(changes):
        kind, outcome, offset, length, issued, durable = reader.fields(_CHANGE)
        data = reader.take(length) if kind == Kind.WRITE else b""
        change = Change(Kind(kind), offset, length, data, issued, durable or None, Outcome(outcome))
        recording.changes.append(change)
    for _ in range(marks):
        epoch, completed, length = reader.fields(_MARK)
        recording.marks.append((epoch, completed, reader.take(length).decode()))
    return recording
