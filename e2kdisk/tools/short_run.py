"""How programs begin and end that are over in milliseconds."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def begin() -> None:
    """Let the garbage collector run seldom: while modules are loaded it finds nothing, and takes 2 of 33 ms for it."""
    import gc

    gc.set_threshold(50_000, 20, 20)


def end(status: int) -> NoReturn:
    """Leave without what the interpreter does at its end, which costs as much as `info`; standard output is flushed."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody listens
        status = status or 1
    except AttributeError:  # there is none
        pass
    os._exit(status)
