"""What the tests of bitmaps judge by: a reader of its own, qemu-nbd, and images in every state that there is."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import oracles

EXTENSION = 0x23852875
IN_USE, AUTO = 1, 2

Ranges = list[tuple[int, int]]
"""(offset, length) of bytes of the disk, in order."""


@dataclass
class Stored:
    """A bitmap as the file has it."""

    flags: int
    granularity: int
    dirty: Ranges
    place: int
    """Where its directory entry lies in the file."""
    table: int
    """Where its table lies."""


def extension_place(data: bytes) -> int | None:
    """Where the data of the bitmaps extension lies."""
    version, length = struct.unpack_from(">I", data, 4)[0], 72
    if version == 3:
        length = struct.unpack_from(">I", data, 100)[0]
    while True:
        kind, size = struct.unpack_from(">II", data, length)
        if kind == EXTENSION:
            return length + 8
        if kind == 0:
            return None
        length += 8 + (size + 7 & -8)


def stored(path: Path) -> dict[str, Stored]:
    """The bitmaps in an image's file; none if the autoclear bit is off."""
    return stored_in(path.read_bytes())


def stored_in(data: bytes) -> dict[str, Stored]:
    """The same of bytes; shares no code with the package."""
    place = extension_place(data)
    if place is None or not data[95] & 1 or data[7] == 2:
        return {}
    count, _, _, at = struct.unpack_from(">IIQQ", data, place)
    bits, size = struct.unpack_from(">IQ", data, 20)
    found = {}
    for _ in range(count):
        table, entries, flags, kind, order, name_size, extra = struct.unpack_from(">QIIBBHI", data, at)
        assert kind == 1
        name = data[at + 24 + extra : at + 24 + extra + name_size].decode()
        whole = bytearray()
        for entry in struct.unpack_from(f">{entries}Q", data, table):
            offset = entry & 0x00FFFFFFFFFFFE00
            part = data[offset : offset + (1 << bits)] if offset else (b"\xff" if entry & 1 else b"\0") * (1 << bits)
            whole += part.ljust(1 << bits, b"\0")
        found[name] = Stored(flags, 1 << order, _ranges(whole, size, 1 << order), at, table)
        at += 24 + extra + name_size + 7 & -8
    return found


def _ranges(bits: bytearray, size: int, granularity: int) -> Ranges:
    found: Ranges = []
    if bits.count(0) == len(bits):
        return found
    for number in range(-(-size // granularity)):
        if bits[number >> 3] >> (number & 7) & 1:
            offset, end = number * granularity, min((number + 1) * granularity, size)
            if found and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], end - found[-1][0])
            else:
                found.append((offset, end - offset))
    return found


@contextmanager
def _exported(path: Path, name: str) -> Iterator[str]:
    with TemporaryDirectory() as place:
        socket = f"{place}/nbd"
        program = oracles.find_program("qemu-nbd")
        assert program is not None
        command = [program, "-r", "-f", "qcow2", "-k", socket, "-B", name, "-t", str(path)]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            while not Path(socket).exists() and server.poll() is None:
                time.sleep(0.01)
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            yield socket
        finally:
            server.terminate()
            server.wait()
            if server.stderr:
                server.stderr.close()


def seen_by_qemu(path: Path, name: str) -> Ranges:
    """The dirty bytes of a bitmap as QEMU's NBD server tells them."""
    with _exported(path, name) as socket:
        options = f"driver=nbd,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{name}"
        runs = json.loads(oracles.qemu_img("map", "--output=json", "--image-opts", options))
    found: Ranges = []
    for run in runs:
        if not run["data"]:
            if found and sum(found[-1]) == run["start"]:
                found[-1] = (found[-1][0], found[-1][1] + run["length"])
            else:
                found.append((run["start"], run["length"]))
    return found


def set_flags(path: Path, name: str, flags: int) -> None:
    """Change the flags of a bitmap in the file."""
    place = stored(path)[name].place
    with open(path, "r+b") as file:
        file.seek(place + 12)
        file.write(struct.pack(">I", flags))
