"""The program firmware/elbrus-arm64: what to type, and the checksum that it prints."""

from pathlib import Path

IMAGE = Path(__file__).resolve().parent.parent / "firmware/images/reader-elbrus-arm64.bin"
READER = str(IMAGE)
PRIME = 0x100_0000_01B3
TIMEOUT = 600.0
"""Seconds of the guest's time."""


def checksums(content, sizes):
    """What `sum N` prints for each of these numbers of MiB of a disk with this content."""
    result, found = 0, {}
    for number, word in enumerate(memoryview(content).cast("Q"), 1):
        result = result * PRIME + word & 0xFFFF_FFFF_FFFF_FFFF
        if not number & 0x1_FFFF and number >> 17 in sizes:
            found[number >> 17] = result
    return found


def command(machine, text):
    """Type a line; the answer."""
    return machine.console.command(text, prompt="> ", timeout=TIMEOUT)


def read(machine, way, mib):
    """Read so many MiB in this way, over a buffer that held something else; their checksum as the guest finds it."""
    if not machine.console.transcript:
        machine.console.expect("> ", timeout=TIMEOUT)
    command(machine, f"clear {mib}")
    answer = command(machine, f"{way} {mib}")
    assert answer.split() == ["done"], answer
    return int(command(machine, f"sum {mib}").split()[0], 16)
