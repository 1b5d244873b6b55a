"""Fault rules: what a FaultNode does to which request, as plain data with a short text form.

flush: ENOSPC                          every flush fails
write_aio@12: EIO once                 the 12th event of this name fails
read sector 0x1200: EIO 3 times        the first three reads that touch this sector fail
write bytes 0x10000+65536: EIO late    done, but reported as failed
write chance 0.5%: EIO                 each write fails with this probability, from the node's seed
any: delay 5ms                         every request takes longer
l2_update state 1: set-state 2         from now on only rules for state 2 (or without a state) apply
l2_load: break A                       the coroutine that gets here waits for FaultNode.resume("A"); once
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Literal

from e2kdisk.errors import UsageError

REQUESTS = ("read", "write", "write_zeroes", "discard", "flush", "truncate")
"""Kinds of request, as the methods of Node are called; "any" stands for all of them."""

_EVENT_NAMES = """
    l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l1_shrink_write_table
    l1_shrink_free_l2_clusters l2_load l2_update l2_update_compressed l2_alloc_cow_read l2_alloc_write
    read_aio read_backing_aio read_compressed write_aio write_compressed vmstate_load vmstate_save cow_read cow_write
    reftable_load reftable_grow reftable_update refblock_load refblock_update refblock_update_part refblock_alloc
    refblock_alloc_hookup refblock_alloc_write refblock_alloc_write_blocks refblock_alloc_write_table
    refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_alloc_space cluster_free
    flush_to_os flush_to_disk pwritev_rmw_head pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail
    pwritev pwritev_zero pwritev_done empty_image_prepare cor_write
"""

EVENTS = frozenset(_EVENT_NAMES.split())
"""What a format may announce: the names of the blkdebug driver's events, so that its recipes can be used here."""

SECTOR_BYTES = 512

Action = Literal["error", "delay", "set-state", "break"]

_TIME_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

_RULE = re.compile(
    r"""(?P<on>\w+)
        (?:@(?P<first>\d+))?
        (?:\s+sectors?\s+(?P<sector>\w+)(?:\+(?P<sectors>\w+))?)?
        (?:\s+bytes\s+(?P<offset>\w+)\+(?P<length>\w+))?
        (?:\s+state\s+(?P<state>\d+))?
        (?:\s+chance\s+(?P<chance>\d+(?:\.\d+)?)%)?
        \s*:\s*
        (?:delay\s+(?P<delay>\d+)(?P<unit>ns|us|ms|s)
          |set-state\s+(?P<new_state>\d+)
          |break\s+(?P<tag>\S+)
          |(?P<error>E[A-Z0-9]+))
        (?:\s+(?P<late>late))?
        (?:\s+(?P<often>once|sticky|(?P<times>\d+)\s+times))?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One rule; all fields must match for it to act."""

    on: str
    """A kind of request, "any", or a key of EVENTS."""
    action: Action
    errno: int = 0
    """For "error"."""
    delay_ns: int = 0
    """For "delay"."""
    new_state: int = 0
    """For "set-state"."""
    tag: str = ""
    """For "break"."""
    late: bool = False
    """The request is done, and the error reported instead of its success."""
    first: int = 1
    """Acts from the n-th match on, counted from 1."""
    times: int | None = None
    """How often it acts; None: from then on always."""
    start: int | None = None
    """Only requests that touch start..end, in bytes."""
    end: int = 0
    state: int = 0
    """Only in this state of the node; 0: in any. A node begins in state 1."""
    chance: float = 100.0
    """Percent of the matches at which it acts."""

    def __post_init__(self) -> None:
        if self.on not in EVENTS and self.on not in REQUESTS and self.on != "any":
            raise UsageError(f"fault rule: unknown event or request {self.on!r}; requests are {', '.join(REQUESTS)}")
        if self.on in EVENTS and (self.start is not None or self.late):
            raise UsageError(f"fault rule: {self.on} is an event; sector, bytes and late are for requests")
        if self.start is not None and (self.on in ("flush", "truncate") or self.end <= self.start):
            raise UsageError(f"fault rule: {self.on} has no such range of bytes")
        if self.late and self.action != "error":
            raise UsageError("fault rule: only an error can be late")
        if self.first < 1 or not 0 <= self.chance <= 100:
            raise UsageError("fault rule: counts begin at 1, chances lie between 0% and 100%")

    @classmethod
    def parse(cls, text: str) -> FaultRule:
        """Read one rule in the text form of this module. Raises UsageError."""
        # "delay 5ms" alone means every request.
        found = _RULE.fullmatch(text.strip()) or _RULE.fullmatch(f"any: {text.strip()}")
        if found is None:
            raise UsageError(f'fault rule {text!r}: must look like "write_aio@12: EIO once" or "any: delay 5ms"')
        part = found.groupdict()
        fields: dict[str, object] = {}
        if part["delay"]:
            fields |= {"action": "delay", "delay_ns": int(part["delay"]) * _TIME_UNITS[part["unit"]]}
        elif part["new_state"]:
            fields |= {"action": "set-state", "new_state": int(part["new_state"])}
        elif part["tag"]:
            fields |= {"action": "break", "tag": part["tag"], "times": 1}
        else:
            fields |= {"action": "error", "errno": _error_number(part["error"])}
        if part["sector"]:
            start = _number(part["sector"]) * SECTOR_BYTES
            fields |= {"start": start, "end": start + _number(part["sectors"] or "1") * SECTOR_BYTES}
        if part["offset"]:
            start = _number(part["offset"])
            fields |= {"start": start, "end": start + _number(part["length"])}
        if part["often"]:
            often = {"once": 1, "sticky": None}
            fields["times"] = often[part["often"]] if part["often"] in often else int(part["times"])
        return cls(
            on=part["on"],
            late=bool(part["late"]),
            first=int(part["first"] or 1),
            state=int(part["state"] or 0),
            chance=float(part["chance"] or 100),
            **fields,  # type: ignore[arg-type]
        )

    def __str__(self) -> str:
        """The text form."""
        text = self.on
        if self.first > 1:
            text += f"@{self.first}"
        if self.start is not None:
            text += f" bytes {self.start:#x}+{self.end - self.start}"
        if self.state:
            text += f" state {self.state}"
        if self.chance < 100:
            text += f" chance {self.chance:f}%"
        text += (
            ": "
            + {
                "error": errno.errorcode.get(self.errno, f"E{self.errno}"),
                "delay": f"delay {self.delay_ns}ns",
                "set-state": f"set-state {self.new_state}",
                "break": f"break {self.tag}",
            }[self.action]
        )
        if self.late:
            text += " late"
        if self.times is not None:
            return text + (" once" if self.times == 1 else f" {self.times} times")
        return text + (" sticky" if self.action == "break" else "")


def parse_rules(text: str) -> list[FaultRule]:
    """Read rules, one a line or separated by ";"; "#" begins a comment. Raises UsageError."""
    lines = [line.partition("#")[0].strip() for line in text.replace(";", "\n").splitlines()]
    return [FaultRule.parse(line) for line in lines if line]


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"fault rule: {text!r} is no number") from None


def _error_number(name: str) -> int:
    number = getattr(errno, name, None)
    if not isinstance(number, int):
        raise UsageError(f"fault rule: {name} is no error of this system; EIO and ENOSPC are usual")
    return number
