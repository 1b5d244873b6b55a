"""Copy persistent bitmaps from an image to another: what convert --bitmaps does."""

from __future__ import annotations

from e2kdisk.errors import E2kDiskError
from e2kdisk.tools.img.bitmap_command import bitmaps_of, why
from e2kdisk.tools.img.errors import Failure, report
from e2kdisk.tools.img.opening import Image


def has_bitmap_support(image: Image) -> bool:
    """Whether an image can have bitmaps."""
    node = image.node
    return bitmaps_of(image) is not None and node.header.version >= 3  # type: ignore[attr-defined]


def need_copyable(sources: list[Image], *, skip_broken: bool) -> None:
    """Refuse before anything is written. Raises Failure."""
    if len(sources) > 1:
        raise Failure("Copying bitmaps only possible with single source")
    bitmaps = bitmaps_of(sources[0])
    if bitmaps is None or not has_bitmap_support(sources[0]):
        raise Failure("Source lacks bitmap support")
    for item in reversed(list(bitmaps)):
        if item.inconsistent and not skip_broken:
            hint = "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n"
            raise Failure(f"Cannot copy inconsistent bitmap '{item.name}'", tail=hint)


def copy_bitmaps(source: Image, target: Image) -> None:
    """Give the target the bitmaps of the source; those whose bits nobody knows are left out. Raises Failure."""
    bitmaps, others = bitmaps_of(source), bitmaps_of(target)
    assert bitmaps is not None
    assert others is not None
    for item in reversed(list(bitmaps)):
        if item.inconsistent:
            report(f"warning: Skipping inconsistent bitmap '{item.name}'")
    for item in bitmaps:
        if item.inconsistent:
            continue
        try:
            others.add(item.name, item.granularity, enabled=item.enabled)
        except E2kDiskError as error:
            raise Failure(f"Failed to create bitmap {item.name}: {why(error)}") from None
        try:
            others.merge(item.name, item)
        except E2kDiskError as error:
            others.withdraw(item.name)
            raise Failure(f"Failed to populate bitmap {item.name}: {why(error)}") from None
