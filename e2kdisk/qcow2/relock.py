"""Taking a lock again that must be held, be the request cancelled meanwhile or not."""

from __future__ import annotations

from e2kdisk.aio.scheduler import Cancelled
from e2kdisk.aio.sync import Lock


async def take_back(lock: Lock) -> None:
    """Acquire lock, however long it takes; it is held afterwards even when this raises Cancelled.

    For whoever has given up a lock that a surrounding `async with` will release, or must put metadata in order
    before it ends: a plain acquire() that is cancelled leaves without the lock.
    """
    cancelled: Cancelled | None = None
    while True:
        try:
            await lock.acquire()
            break
        except Cancelled as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
