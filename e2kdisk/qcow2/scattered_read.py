"""Reads of allocated clusters, scattered over the file as they may be, without a coroutine for each."""

from __future__ import annotations

from e2kdisk.aio.engine import iov_slice
from e2kdisk.qcow2.cache import Table
from e2kdisk.qcow2.entries import Entries64
from e2kdisk.qcow2.geometry import GuestOffset, HostOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def read_allocated(image: Qcow2Image, table: Table[Entries64], offset: GuestOffset, view: memoryview) -> int:
    """Read what a resident L2 slice maps from offset on, up to a cluster of another kind; bytes, perhaps 0.

    For images whose data lies in the file as it is read. Raises OSError.
    """
    table.used = True
    done = 0
    for host, length in image.mapping.allocated_runs(table, offset, view.nbytes):
        part = [view[done : done + length]]
        at_once = image.file.try_read(host, part)
        done += length
        if at_once != length:
            await image.read_host(HostOffset(host + at_once), iov_slice(part, at_once, length - at_once))
            break  # the map may have changed meanwhile
    return done
