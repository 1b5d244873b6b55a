"""What a controller does when the disk fails: tell the guest, go on regardless, or stop until somebody helps."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum

from e2kdisk.errors import UsageError


class ErrorAction(Enum):
    """The choices of the drive options rerror and werror."""

    REPORT = "report"
    """The guest sees the error of its controller."""
    IGNORE = "ignore"
    """The guest sees success."""
    STOP = "stop"
    """The request is parked; it is made again when the machine is resumed."""
    ENOSPC = "enospc"
    """STOP when the host's file system is full, else REPORT."""


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """The actions of one drive."""

    read: ErrorAction = ErrorAction.REPORT
    write: ErrorAction = ErrorAction.REPORT

    @classmethod
    def parse(cls, rerror: str = "report", werror: str = "report") -> ErrorPolicy:
        """From the words of the drive options. Raises UsageError."""
        return cls(_action("rerror", rerror), _action("werror", werror))

    def action(self, error: BaseException, *, writing: bool) -> ErrorAction:
        """REPORT, IGNORE or STOP for an error of the disk."""
        chosen = self.write if writing else self.read
        if chosen is ErrorAction.ENOSPC:
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            return ErrorAction.STOP if full else ErrorAction.REPORT
        return chosen


def _action(option: str, word: str) -> ErrorAction:
    try:
        return ErrorAction(word)
    except ValueError:
        known = ", ".join(action.value for action in ErrorAction)
        raise UsageError(f"{option}={word}: unknown action; known are {known}") from None
