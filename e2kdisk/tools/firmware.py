"""The guest programs that come with e2kdisk: where they are, and any other firmware that the user names."""

from __future__ import annotations

import os
from collections.abc import Sequence

import e2kdisk
from e2kdisk.errors import UsageError

BUILT_IN = "demo"
"""`--bios demo` is the bundled guest of the board."""

GUESTS = {"virt-arm64": "guest-arm64.bin", "virt-riscv64": "guest-riscv64.bin"}
"""Board -> file name of its guest program."""

DEBIAN_UBOOT = {"virt-arm64": "qemu_arm64", "virt-riscv64": "qemu-riscv64"}
"""Board -> directory of its U-Boot in Debian's package u-boot-qemu."""


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
    for place in places():
        path = os.path.join(place, GUESTS[board])
        if os.path.isfile(path):
            return path
    looked = " and ".join(places())
    raise UsageError(f"{GUESTS[board]} is not in {looked}; install e2kdisk again, or build it with firmware/build.py")


def load_bios(board: str, name: str) -> bytes:
    """Return the bytes of a firmware: a file, or BUILT_IN. Raises UsageError that says where others are."""
    path = find_guest(board) if name == BUILT_IN else name
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"bios {path}: {error.strerror}; {_advice(board)}") from error
    if not content:
        raise UsageError(f"bios {path}: is empty; {_advice(board)}")
    return content


def _advice(board: str) -> str:
    advice = f"--bios {BUILT_IN} is the guest program that comes with e2kdisk"
    if board in DEBIAN_UBOOT:
        advice += f", Debian's package u-boot-qemu has /usr/lib/u-boot/{DEBIAN_UBOOT[board]}/u-boot.bin"
    return advice
