"""What `info` needs the engine for: trees of options, other protocols, and the words for what is wrong."""

from __future__ import annotations

import os
from typing import Any

from e2kdisk.tools.img.head import Head, Odd
from e2kdisk.tools.img.opening import Session
from e2kdisk.tools.img.output import json_line


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
    try:
        descriptor: int | None = getattr(image.file, "fd", None)
        filename = image.filename
        disk_size = 0 if descriptor is None else os.fstat(descriptor).st_blocks * 512
        if image.format == "qcow2" and descriptor is not None:
            head = Head(descriptor)
            return qcow2_facts(head, head.snapshots(descriptor), filename, disk_size)
        if name.startswith("json:") and (descriptor is None or vars(image.node).get("offset")):
            import json

            filename = "json:" + json_line(json.loads(name[5:]))
        return {
            "virtual-size": image.size,
            "filename": filename,
            "format": image.format if not name.startswith(("null-co://", "null-aio://")) else "raw",
            "actual-size": disk_size,
            "dirty-flag": False,
        }
    except Odd:
        raise Failure(f"Could not open '{name}': the header makes no sense") from None
    finally:
        session.close(image)
