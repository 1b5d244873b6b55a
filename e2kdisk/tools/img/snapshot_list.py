"""The table of snapshots that snapshot -l and info print."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from e2kdisk.tools.img.sizes import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from e2kdisk.qcow2.snapshot_table import Snapshot as EngineSnapshot
    from e2kdisk.tools.img.head import SnapshotHead
    from e2kdisk.tools.img.info_command import Shown

    Snapshot: TypeAlias = EngineSnapshot | SnapshotHead | Shown


NO_ICOUNT = (1 << 64) - 1


def icount(snapshot: Snapshot) -> int | None:
    """The instruction counter of a snapshot, if it has one."""
    if len(snapshot.extra_data) < 24:
        return None
    value = int.from_bytes(snapshot.extra_data[16:24], "big")
    return None if value == NO_ICOUNT else value


def snapshot_lines(snapshots: Iterable[Snapshot]) -> Iterator[str]:
    """The lines of the table; none for no snapshots."""
    first = True
    for item in snapshots:
        if first:
            yield "Snapshot list:"
            yield f"{'ID':10}{'TAG':17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}"
            first = False
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.date_sec))
        seconds, nanoseconds = divmod(item.vm_clock_nsec, 10**9)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{nanoseconds // 10**6:03}"
        count = icount(item)
        shown = "" if count is None else str(count)
        yield f"{item.id:9} {item.name:16} {human(item.vm_state_size):>8}{date:>20}{clock:>13}{shown:>11}"


def print_snapshots(snapshots: Iterable[Snapshot]) -> None:
    """Print the table."""
    for line in snapshot_lines(snapshots):
        print(line)
