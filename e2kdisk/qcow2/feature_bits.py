"""The feature bits that an open image changes by itself: autoclear bits on open, the corrupt bit when it must stop."""

from __future__ import annotations

from contextlib import suppress

from e2kdisk.errors import ImageError
from e2kdisk.qcow2 import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def claim_features(image: Qcow2Image) -> None:
    """Clear the autoclear bits of what is not kept up by us, durably (specification, autoclear_features).

    Stale bitmaps go with them: nobody must take them for good when the bit is set for new ones. Raises OSError,
    ImageError.
    """
    header = image.header
    kept = header.autoclear_features & (layout.AUTOCLEAR_BITMAPS if image.bitmaps else 0)
    if image.bitmaps.stale:
        extensions = header.with_extension(layout.EXT_BITMAPS, None)
        await image.writer.switch(autoclear_features=kept, extensions=extensions)
    elif header.version >= 3 and header.autoclear_features != kept:
        await image.writer.switch(autoclear_features=kept)


async def mark_corrupt(image: Qcow2Image, why: Exception) -> None:
    """Set the corrupt bit, so that nobody else writes either; what was written before is in order, and flushed first.

    Nothing is raised: the error that led here is the one to tell.
    """
    if image.file.note is not None:
        image.file.note("refused", why=str(why))
    async with image.lock:
        with suppress(OSError, ImageError):
            await image.order.flush()
        if image.header.version >= 3:
            with suppress(OSError, ImageError):
                features = image.header.incompatible_features | layout.INCOMPAT_CORRUPT
                await image.writer.switch(incompatible_features=features)
