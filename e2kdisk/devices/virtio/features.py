"""The feature bits that our devices offer, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Era(Enum):
    """Which drivers a feature is for."""

    ANY = "any"
    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature bit."""

    name: str
    bit: int
    section: str
    meaning: str
    era: Era = Era.ANY

    @property
    def mask(self) -> int:
        """The bit in the 64-bit feature word."""
        return 1 << self.bit


RING_FEATURES = (
    Feature("ANY_LAYOUT", 27, "6.3", "descriptors may cut a request anywhere, as in modern devices", Era.LEGACY),
    Feature("INDIRECT_DESC", 28, "2.7.5.3", "a descriptor may point to a table of descriptors"),
    Feature("EVENT_IDX", 29, "2.7.7, 2.7.10", "each side names the ring index at which it wants to be told"),
    Feature("VERSION_1", 32, "6", "the driver follows the specification, not the drafts before it", Era.MODERN),
    Feature("RING_RESET", 40, "2.6.1", "the driver can reset one queue", Era.MODERN),
)
"""Features of the queue, whatever the device (VIRTIO 1.2 6)."""

BLK_FEATURES = (
    Feature("SEG_MAX", 2, "5.2.3", "the most data segments of a request is in seg_max"),
    Feature("RO", 5, "5.2.3", "the disk cannot be written"),
    Feature("BLK_SIZE", 6, "5.2.3", "the block size is in blk_size"),
    Feature("FLUSH", 9, "5.2.3", "the disk has a cache that FLUSH makes durable"),
    Feature("TOPOLOGY", 10, "5.2.3", "alignment and best I/O sizes are in topology"),
    Feature("CONFIG_WCE", 11, "5.2.3", "the cache can be switched off through writeback"),
    Feature("DISCARD", 13, "5.2.3", "DISCARD is understood"),
    Feature("WRITE_ZEROES", 14, "5.2.3", "WRITE_ZEROES is understood"),
)
"""Features of a block device (VIRTIO 1.2 5.2.3)."""

_BY_NAME = {feature.name: feature for feature in RING_FEATURES + BLK_FEATURES}


def bit(name: str) -> int:
    """The mask of a feature."""
    return _BY_NAME[name].mask


def mask(*names: str) -> int:
    """The mask of several features."""
    return sum(bit(name) for name in names)


def names(features: int) -> list[str]:
    """The names of the bits that are set, for traces; unknown ones by number."""
    known = {feature.bit: feature.name for feature in _BY_NAME.values()}
    return [known.get(number, f"bit {number}") for number in range(features.bit_length()) if features >> number & 1]


ERA_MASK = {
    legacy: sum(feature.mask for feature in _BY_NAME.values() if feature.era in (Era.ANY, era))
    for legacy, era in ((True, Era.LEGACY), (False, Era.MODERN))
}
"""Indexed by "is the transport legacy": the features that may be offered there."""
