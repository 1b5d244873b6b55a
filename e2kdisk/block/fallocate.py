"""Space of a host file: Linux fallocate(2), which Python does not offer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10

NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.ENOTTY})
"""The file system or device will never do it."""
NOT_HERE = NOT_SUPPORTED | {errno.EINVAL}
"""... or not for this range (a block device wants whole logical blocks)."""


@cache
def _fallocate() -> Callable[[int, int, int, int], int]:
    """The C function, returning 0 or an errno."""
    import ctypes  # only now: it takes longer to load than this package

    library = ctypes.CDLL(None, use_errno=True)
    # The C library's name of the variant with 64-bit offsets, on every kind of machine; musl has only that one.
    function = library.fallocate64 if hasattr(library, "fallocate64") else library.fallocate
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int

    def call(fd: int, mode: int, offset: int, length: int) -> int:
        return ctypes.get_errno() if function(fd, mode, offset, length) else 0

    return call


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Call fallocate(2); offset and length in bytes. May block; releases the GIL. Raises OSError."""
    while number := _fallocate()(fd, mode, offset, length):
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def allocate_range(fd: int, offset: int, length: int) -> None:
    """Reserve space for a range, what it holds stays; extends the file. Raises OSError."""
    fallocate(fd, 0, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros with its space kept; extends the file. Raises OSError."""
    fallocate(fd, ZERO_RANGE, offset, length)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeros and give its space back; never extends the file. Raises OSError."""
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
