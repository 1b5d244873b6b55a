"""Hints: what to do about an error, for the end of its line."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from e2kdisk.errors import E2kDiskError, ImageError, UsageError

BY_ERRNO = {
    errno.ENOENT: "'e2kdisk create FILE SIZE' makes a new image",
    errno.EACCES: "may you read and write it? --drive takes readonly=on",
    errno.EPERM: "may you read and write it? --drive takes readonly=on",
    errno.EROFS: "--drive takes readonly=on",
    errno.ENOSPC: "the image is as it was after the last flush",
}
"""For images that cannot be opened."""


def hint_for(error: E2kDiskError) -> str:
    """The hint for an error that does not say by itself what to do, or ""."""
    cause = error.__cause__
    if isinstance(error, ImageError) and isinstance(cause, OSError) and not error.where:
        return BY_ERRNO.get(cause.errno or 0, "")
    return ""


def unknown_command(name: str, known: Sequence[str]) -> UsageError:
    """The error for a command that does not exist."""
    return UsageError(f"no command {name!r}; {did_you_mean(name, known)}see e2kdisk --help")


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a short table, with the table."""
    names = list(known)
    return UsageError(f"unknown {what} {name!r}; {did_you_mean(name, names)}known are {', '.join(names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...? " if something known looks like it, else ""."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
