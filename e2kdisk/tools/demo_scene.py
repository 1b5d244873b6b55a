"""What differs between the demos: the guest and its board, what its disk holds, when it has done its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from e2kdisk.machine.bundled import find_guest
from e2kdisk.tools.firmware import load_bios

if TYPE_CHECKING:
    from e2kdisk.machine.machine import Machine
    from e2kdisk.tools.demo_count import Counts

PASSED = "PASS"
"""The verdict on a guest that has done all that it should."""


class Scene:
    """One demo."""

    TITLE: ClassVar[str]
    LEAST: ClassVar[int]
    """Bytes that its disk needs."""
    INTERFACE: ClassVar[str]
    CONTROLLER: ClassVar[str]
    """The trace's name of the controller."""
    DOORBELL: ClassVar[str]
    """The register that starts a request."""
    SHOWN: ClassVar[str] = ""
    """How the names of the registers begin whose first accesses are shown; that much is left out of the name."""
    AT_WORK: ClassVar[tuple[str, ...]]
    """Registers that belong to each request: their first accesses are always shown."""
    DIRECTIONS: ClassVar[dict[str, str]] = {}
    """Where the data of a request type goes."""
    DONE: ClassVar[str]
    """What it means that the guest has passed."""

    def __init__(self, board: str) -> None:
        self.board = board

    def bios(self) -> bytes:
        """The guest program."""
        return load_bios(self.board, find_guest(self.board))

    def controller(self) -> str:
        """What the guest's disk is connected to."""
        raise NotImplementedError

    def content(self) -> str:
        """What is on the disk, in short."""
        raise NotImplementedError

    def guest(self, bios: bytes) -> str:
        """What the guest is, in short."""
        raise NotImplementedError

    def make_image(self, image: str, size: int) -> None:
        """Make the disk."""
        raise NotImplementedError

    def verdict(self, machine: Machine, ending: str) -> str:
        """PASSED, or what the guest has complained of, or why it has said nothing."""
        raise NotImplementedError

    def protocol(self, counts: Counts) -> tuple[str, str]:
        """How driver and device talk about requests: its name and what was counted."""
        raise NotImplementedError

    def back(self, counts: Counts) -> str:
        """What comes back to the guest."""
        raise NotImplementedError
