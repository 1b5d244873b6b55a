"""What `info` needs the engine for: trees of options, other protocols, and the words for what is wrong."""

from __future__ import annotations

import os

from e2kdisk.tools.img.head import Head, Odd
from e2kdisk.tools.img.opening import Session
from e2kdisk.tools.img.output import json_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.qcow2.bitmaps import Bitmap


def engine_facts(name: str, format: str | None, *, image_opts: bool, force_share: bool) -> dict[str, Any]:
    """The facts of an image opened by the engine. Raises Failure."""
    from e2kdisk.tools.img.errors import Failure
    from e2kdisk.tools.img.info_command import qcow2_facts

    session = Session()
    image = session.open(
        name,
        format=format,
        image_opts=image_opts,
        force_share=force_share,
        no_backing=True,
        extras=None,
    )
    descriptor: int | None = None
    try:
        bottom = image.file
        while (below := getattr(bottom, "file", None) or getattr(bottom, "test", None)) is not None:
            bottom = below
        opened: int | None = getattr(bottom, "fd", None)
        # One of its own: the file's may be open past the cache, which wants whole blocks.
        descriptor = None if opened is None else os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC)
        filename = image.filename
        disk_size: int | None = 0
        if bottom is not image.file:
            disk_size = None  # what lies behind blkdebug is not asked
        elif descriptor is not None:
            disk_size = os.fstat(descriptor).st_blocks * 512
        if image.format == "qcow2" and descriptor is not None:
            head = Head(descriptor)
            bitmaps = [_bitmap_facts(item) for item in image.node.bitmaps]  # type: ignore[attr-defined]
            return qcow2_facts(head, head.snapshots(descriptor), filename, disk_size, bitmaps)
        if name.startswith("json:") and (descriptor is None or vars(image.node).get("offset")):
            import json

            filename = "json:" + json_line(json.loads(name[5:]))
        return {
            "virtual-size": image.size,
            "filename": filename,
            "format": image.format if not name.startswith(("null-co://", "null-aio://")) else "raw",
            **({} if disk_size is None else {"actual-size": disk_size}),
            "dirty-flag": False,
        }
    except Odd:
        raise Failure(f"Could not open '{name}': the header makes no sense") from None
    finally:
        if descriptor is not None:
            os.close(descriptor)
        session.close(image)


def _bitmap_facts(bitmap: Bitmap) -> dict[str, Any]:
    """What the image's file says of a bitmap."""
    from e2kdisk.qcow2.bitmap_directory import AUTO, IN_USE

    flags = bitmap.entry.flags if bitmap.entry is not None else 0
    shown = [name for bit, name in ((IN_USE, "in-use"), (AUTO, "auto")) if flags & bit]
    return {"flags": shown, "name": bitmap.name, "granularity": bitmap.granularity}
