"""A machine's state as bytes: a JSON document, and behind it the byte strings that it names.

"e2kdisk-machine" NUL  version  length of the document  length of what follows (zlib)
document: {"bytes": [n]} stands for blob n, {"pairs": [[k, v], ...]} for a dictionary whose keys are numbers
blobs, one after the other, compressed as one
"""

from __future__ import annotations

import json
import zlib
from struct import Struct
from typing import Any

from e2kdisk.errors import UsageError
from e2kdisk.machine.state import MachineState

MAGIC = b"e2kdisk-machine\0"
VERSION = 1
HEADER = Struct("<16sIIQ")
"""Magic, version, bytes of the document, bytes of the compressed blobs."""
MAX_BLOBS = 8 << 30
"""Bytes after decompression: more RAM than any board has. A state may come from a stranger's image."""
FAST = 1
"""zlib level: RAM is mostly zeros that are not stored, so speed counts."""


def pack_state(state: MachineState) -> bytes:
    """Turn a state into bytes."""
    blobs: list[bytes] = []

    def plain(value: Any) -> Any:
        if isinstance(value, (bytes, bytearray)):
            blobs.append(bytes(value))
            return {"bytes": [len(blobs[-1])]}
        if isinstance(value, dict):
            if all(isinstance(key, str) for key in value) and value.keys() not in ({"bytes"}, {"pairs"}):
                return {key: plain(item) for key, item in value.items()}
            return {"pairs": [[key, plain(item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    document = json.dumps(plain(state), separators=(",", ":")).encode()
    packed = zlib.compress(b"".join(blobs), FAST)
    return HEADER.pack(MAGIC, VERSION, len(document), len(packed)) + document + packed


def unpack_state(data: bytes, name: str) -> MachineState:
    """Read what pack_state made; `name` is for messages. Raises UsageError for anything else."""
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise UsageError(f"{name}: holds no machine that e2kdisk saved")
    _, version, document_length, packed_length = HEADER.unpack_from(data)
    if version != VERSION:
        raise UsageError(f"{name}: holds a machine saved in format {version}; this e2kdisk reads {VERSION}")
    end = HEADER.size + document_length
    try:
        decompressor = zlib.decompressobj()
        blobs = decompressor.decompress(data[end : end + packed_length], MAX_BLOBS)
        if not decompressor.eof:
            raise ValueError("the end is missing")
        at = 0

        def restored(value: Any) -> Any:
            nonlocal at
            if isinstance(value, list):
                return [restored(item) for item in value]
            if not isinstance(value, dict):
                return value
            if value.keys() == {"bytes"}:
                (length,) = value["bytes"]
                piece = blobs[at : at + length]
                if len(piece) != length:
                    raise ValueError("bytes are missing")
                at += length
                return piece
            if value.keys() == {"pairs"}:
                return {key: restored(item) for key, item in value["pairs"]}
            return {key: restored(item) for key, item in value.items()}

        state = restored(json.loads(data[HEADER.size : end]))
    except (ValueError, TypeError, zlib.error) as error:
        raise UsageError(f"{name}: the saved machine is damaged ({error})") from error
    if not isinstance(state, dict):
        raise UsageError(f"{name}: the saved machine is damaged (it is no document)")
    return state
