"""Image locks, understood by QEMU: nobody writes to an image that somebody else uses.

QEMU (since 2.10) locks single bytes of the image file with open-file-description locks, all of them shared:

    byte 100 + n   held by everyone who uses permission n
    byte 200 + n   held by everyone who does not let others use permission n

    n   0 consistent read   1 write   2 write unchanged   3 resize

After taking its own bytes, each looks whether somebody else (another open file, even in the same process) holds a
byte that contradicts. Since both sides lock before they look, two that start at once cannot both succeed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from e2kdisk.errors import ImageError

CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)
PERMISSIONS = {CONSISTENT_READ: "consistent read", WRITE: "write", WRITE_UNCHANGED: "write unchanged", RESIZE: "resize"}

USED = 100
UNSHARED = 200

# struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for locks of this kind)
_FLOCK = struct.Struct("@hhqqi0q")


def lock_image(fd: int, name: str, *, writable: bool) -> None:
    """Hold the image open as a reader or as the writer, until fd is closed.

    A reader uses consistent reads; the writer also writes and resizes. Neither lets others write or resize, so
    there are many readers or one writer. Raises ImageError when somebody else's use contradicts. A file system
    without such locks gives no protection, as in QEMU.
    """
    used = (CONSISTENT_READ, WRITE, RESIZE) if writable else (CONSISTENT_READ,)
    unshared = (WRITE, RESIZE)
    try:
        for byte in [USED + n for n in used] + [UNSHARED + n for n in unshared]:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        for n in used:
            if _somebody_holds(fd, UNSHARED + n):
                raise _conflict(name, f"somebody who does not allow others to {PERMISSIONS[n]} has it open")
        for n in unshared:
            if _somebody_holds(fd, USED + n):
                raise _conflict(name, f"somebody has it open for {'writing' if n == WRITE else 'resizing'}")
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise _conflict(name, "somebody holds an exclusive lock on it") from error
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _somebody_holds(fd: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def _conflict(name: str, what: str) -> ImageError:
    return ImageError(name, "locked", f"{what}; close it there first, or read it anyway with force_share")
