"""The guest programs that come with e2kdisk, by board."""

from __future__ import annotations

import os
from collections.abc import Sequence

import e2kdisk
from e2kdisk.errors import UsageError

GUESTS = {"virt-arm64": "guest-arm64.bin", "virt-riscv64": "guest-riscv64.bin", "elbrus": "e2k-boot.bin"}
"""Board -> file name of its guest program."""


def places() -> Sequence[str]:
    """Where the guest programs may be: package data of an installed wheel, then the source tree around us."""
    package = os.path.dirname(os.path.abspath(e2kdisk.__file__))
    return (
        os.path.join(package, "firmware_images"),
        os.path.join(os.path.dirname(package), "firmware", "images"),
    )


def find_guest(board: str) -> str:
    """Return the path of the bundled guest program of a board. Raises UsageError when it is not there."""
    if board not in GUESTS:
        raise UsageError(f"no guest program comes with e2kdisk for board {board!r}; give one with --bios FILE")
    return find_image(GUESTS[board])


def find_image(name: str) -> str:
    """Return the path of a bundled program by its file name. Raises UsageError when it is not there."""
    for place in places():
        path = os.path.join(place, name)
        if os.path.isfile(path):
            return path
    looked = " and ".join(places())
    raise UsageError(f"{name} is not in {looked}; install e2kdisk again, or build it with firmware/build.py")


def read_image(name: str) -> bytes:
    """Return a bundled program. Raises UsageError when it is not there."""
    with open(find_image(name), "rb") as file:
        return file.read()
