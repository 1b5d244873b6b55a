"""A standard output that drops what cannot be printed: a full disk or a closed pipe there must not stop work on images.

QEMU's programs do so without a word and with the status of the work itself; ours say it at the end.
"""

from __future__ import annotations

import errno
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class StandardOutput(io.FileIO):
    """File descriptor 1, whose writes never fail."""

    error: OSError | None = None
    """Why the first text was lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        """RawIOBase.write."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes

    @property
    def complaint(self) -> str | None:
        """What to say of it, one line; None if nothing was lost, or nobody listens any more."""
        if self.error is None or self.error.errno in (errno.EPIPE, errno.EBADF):
            return None
        return f"standard output: {os.strerror(self.error.errno or errno.EIO)}"


def install() -> StandardOutput | None:
    """Put it in the place of sys.stdout; None if that is closed."""
    try:
        raw = StandardOutput(1, "w", closefd=False)
    except OSError:
        return None
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="surrogateescape", line_buffering=raw.isatty()
    )
    sys.stdout = stream
    return raw
