"""Boots: a guest is brought to its prompt once, and each test goes on from there with disks of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2kdisk.errors import UsageError

if TYPE_CHECKING:
    from e2kdisk.lab.experiment import Experiment
    from e2kdisk.lab.limited import LimitedMachine
    from e2kdisk.machine.state import MachineState

FIRMWARE: dict[str, dict[str, str]] = {
    "u-boot-qemu": {
        "virt-arm64": "/usr/lib/u-boot/qemu_arm64/u-boot.bin",
        "virt-riscv64": "/usr/lib/u-boot/qemu-riscv64/u-boot.bin",
    },
}
"""Debian package -> board -> the file that boots it."""


def missing_firmware(package: str) -> str:
    """Why firmware is not here, for a test that is left out; "" if it is. Raises UsageError."""
    if package not in FIRMWARE:
        raise UsageError(f"unknown firmware {package!r}; known are {', '.join(FIRMWARE)}")
    absent = [path for path in FIRMWARE[package].values() if not os.path.isfile(path)]
    return f"needs Debian package {package} (apt-get install {package}): {absent[0]} is not here" if absent else ""


@dataclass(frozen=True, slots=True)
class Boot:
    """What is booted, and how one comes to its prompt. The default is Debian's U-Boot."""

    board: str = "virt-arm64"
    bios: str | os.PathLike[str] = "u-boot-qemu"
    """A file, or a package of FIRMWARE."""
    steps: tuple[tuple[str, str], ...] = (("Hit any key to stop autoboot", " "),)
    """What to wait for (a regular expression), and what to type then."""
    prompt: str = "\n=> "
    """A regular expression."""
    timeout: float = 60.0
    """Seconds of the guest's time, for each step."""
    ram: int = 256 << 20
    """Bytes."""

    @property
    def file(self) -> str:
        """The firmware itself. Raises UsageError."""
        bios = os.fspath(self.bios)
        if bios not in FIRMWARE:
            return bios
        if self.board not in FIRMWARE[bios]:
            raise UsageError(f"{bios} has nothing for board {self.board!r}, only for {', '.join(FIRMWARE[bios])}")
        return FIRMWARE[bios][self.board]

    @property
    def missing(self) -> str:
        """Why it cannot be booted here, "" if it can."""
        bios = os.fspath(self.bios)
        return missing_firmware(bios) if bios in FIRMWARE else ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A guest at its prompt; nobody writes to the images any more."""

    state: MachineState
    images: list[Path]


class Boots:
    """The guests that have been booted in this process."""

    def __init__(self, make_directory: Callable[[str], Path]) -> None:
        self._make_directory = make_directory
        self._prompts: dict[tuple[Boot, tuple[str, ...]], Prompt] = {}

    def at_prompt(self, boot: Boot, golden: Sequence[str | os.PathLike[str]], test: Experiment) -> LimitedMachine:
        """A machine of a test's own, at the prompt, its disks overlays of the golden images.

        Raises UsageError, ConsoleError, ImageError, OSError.
        """
        key = boot, tuple(os.path.abspath(path) for path in golden)
        if key not in self._prompts:
            self._prompts[key] = self._bring_up(*key, test)
        prompt = self._prompts[key]
        # The overlay of what the guest had after booting: its disk is as it remembers it.
        drives = [test.image(backing=path) for path in prompt.images]
        machine = test.machine(boot.board, bios=boot.file, ram=boot.ram, drives=drives)
        machine.load(prompt.state)
        return machine

    def _bring_up(self, boot: Boot, golden: tuple[str, ...], test: Experiment) -> Prompt:
        from e2kdisk.lab.experiment import make_image

        directory = self._make_directory("e2k-boot")
        images = [directory / f"disk{number}.qcow2" for number in range(len(golden))]
        for image, below in zip(images, golden, strict=True):
            make_image(image, backing=below)
        machine = test.machine(boot.board, bios=boot.file, ram=boot.ram, drives=images, trace=None)
        for pattern, keys in boot.steps:
            machine.console.expect(pattern, boot.timeout)
            machine.console.send(keys)
        machine.console.expect(boot.prompt, boot.timeout)
        state = machine.save()
        test.release(machine)
        return Prompt(state, images)
