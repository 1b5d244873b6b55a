"""Firmware for a command: a file that the user names, or the guest program that comes with e2kdisk."""

from __future__ import annotations

from e2kdisk.errors import UsageError
from e2kdisk.machine.bundled import find_guest

BUILT_IN = "demo"
"""`--bios demo` is the bundled guest of the board."""

DEBIAN_UBOOT = {"virt-arm64": "qemu_arm64", "virt-riscv64": "qemu-riscv64"}
"""Board -> directory of its U-Boot in Debian's package u-boot-qemu."""


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
