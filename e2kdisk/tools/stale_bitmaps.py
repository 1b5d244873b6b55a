"""What QEMU says of an image whose bitmaps somebody has left behind without keeping them up."""

from __future__ import annotations

from collections.abc import Callable

from e2kdisk.block.node import Node

_WHY = {
    2: "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap "
    "support; so now they must all be considered inconsistent",
    3: "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent",
}
"""By the version of the image."""
_ADVICE = "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."


def warn_of_stale_bitmaps(node: Node, warn: Callable[[str], None], add: Callable[[str], None]) -> bool:
    """Warn if the bitmaps of an image that has just been opened are stale; `add` gets a hint without an end of line."""
    if not getattr(node, "has_stale_bitmaps", False):
        return False
    warn(_WHY[node.header.version])  # type: ignore[attr-defined]
    add(_ADVICE)
    return True
