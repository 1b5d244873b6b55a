"""Rules: which decisions a run may ask for."""

from __future__ import annotations

from dataclasses import dataclass

US = 1_000
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What the laboratory may do to a guest. The default does nothing: every call ends at once."""

    latencies_ns: tuple[int, ...] = (0,)
    """How long a call on the file may take; 0 is at once, inside the register access that led to it."""
    order: bool = False
    """Calls wait, and one of those in flight is chosen whenever the guest has done some work: for all orders."""
    faults: int = 0
    """Most calls of a run that fail."""
    short_reads: bool = False
    """A read may come in two parts, with anything in between."""
    power_cut: bool = False
    """The power may fail at any write or flush; what was not flushed is there, lost or torn."""
    irq_delays_ns: tuple[int, ...] = (0,)
    """How long an interrupt may wait: completions in the meantime share it."""


PLAIN = Rules()
TIMING = Rules(
    latencies_ns=(0, 3 * US, 40 * US, 700 * US, 9 * MS), short_reads=True, irq_delays_ns=(0, 5 * US, 300 * US)
)
FAULTS = Rules(latencies_ns=(0, 40 * US, 700 * US), faults=2, short_reads=True)
ORDER = Rules(order=True)
POWER = Rules(latencies_ns=(0, 40 * US, 700 * US), power_cut=True)

RULES = {"plain": PLAIN, "timing": TIMING, "faults": FAULTS, "order": ORDER, "power": POWER}
"""By the names of the command line."""
