"""A guest's mistake as a value: it sets the state that the specification names, and stands in the trace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Mistake(Enum):
    """Base of the enumerations of what a guest can do wrong; a member is (text, section of the specification)."""

    def __init__(self, text: str, section: str) -> None:
        self.text = text
        self.section = section


@dataclass(frozen=True, slots=True)
class GuestError:
    """One mistake with the number that was wrong.

    >>> class Example(Mistake):
    ...     HEAD = "descriptor index past the table", "VIRTIO 1.2 2.7.6"
    >>> str(GuestError(Example.HEAD, 300))
    'descriptor index past the table: 0x12c (VIRTIO 1.2 2.7.6)'
    """

    mistake: Mistake
    value: int | None = None

    def __str__(self) -> str:
        value = "" if self.value is None else f": {self.value:#x}"
        return f"{self.mistake.text}{value} ({self.mistake.section})"
