"""e2kdisk info: what an image says of itself."""

from __future__ import annotations

import os
from collections.abc import Sequence

from e2kdisk.tools.arguments import Parser, human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.qcow2.info import ImageInfo

HELP = """\
Say what an image is, from its header; nothing else is opened or believed.

examples:
  $ e2kdisk info disk.qcow2
  $ e2kdisk info --json disk.qcow2
"""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("info", HELP)
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("--json", action="store_true", help="print JSON, with the names that qemu-img uses")
    parser.add_argument(
        "-U", "--force-share", action="store_true", help="also while somebody writes to it; may be out of date"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    facts, lines = image_facts(given.file, force_share=given.force_share)
    if given.json:
        import json

        print(json.dumps(facts, indent=4))
    else:
        width = max(map(len, lines))
        for name, text in lines.items():
            print(f"{name:{width}}  {text}")
    return 0


def image_facts(filename: str, *, force_share: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """The facts of an image, for programs and for people. Raises ImageError or OSError."""
    format, file_size = _look(filename, force_share=force_share)
    if format == "qcow2":
        from e2kdisk.qcow2.info import info

        image = info(filename, force_share=force_share)
        return _qcow2_facts(image), _qcow2_lines(image)
    disk_size = os.stat(filename).st_blocks * 512
    facts = {"filename": filename, "format": format, "virtual-size": file_size, "actual-size": disk_size}
    lines = {"image": filename, "format": format, "virtual size": _size(file_size), "on disk": _size(disk_size)}
    if format != "raw":
        del facts["virtual-size"], lines["virtual size"]
        lines["format"] += ", which e2kdisk does not read"
    return facts, lines


def _look(filename: str, *, force_share: bool) -> tuple[str, int]:
    """The format that a file's first bytes show, and its length in bytes."""
    from e2kdisk.aio.engine import AutoEngine
    from e2kdisk.aio.scheduler import Scheduler
    from e2kdisk.block.file import FileNode
    from e2kdisk.block.formats import PROBE_SIZE, guess_format

    async def look() -> tuple[str, int]:
        file = await FileNode.open(filename, engine, read_only=True, force_share=force_share)
        try:
            head = bytearray(min(PROBE_SIZE, file.size))
            await file.read(0, [memoryview(head)])
            return guess_format(bytes(head)), file.size
        finally:
            await file.close()

    scheduler = Scheduler()
    engine = AutoEngine(scheduler)
    try:
        return scheduler.run(look())
    finally:
        engine.close()


def _qcow2_facts(image: ImageInfo) -> dict[str, Any]:
    header = image.header
    specific: dict[str, Any] = {
        "compat": image.compat,
        "compression-type": image.compression,
        "refcount-bits": 1 << header.refcount_order,
    }
    if header.version >= 3:
        specific["lazy-refcounts"] = bool(header.compatible_features & 1)
        specific["corrupt"] = image.corrupt
        specific["incompatible-features"] = header.feature_names(0, header.incompatible_features)
    facts: dict[str, Any] = {
        "filename": image.filename,
        "format": "qcow2",
        "virtual-size": image.virtual_size,
        "actual-size": image.disk_size,
        "cluster-size": image.cluster_size,
        "dirty-flag": image.dirty,
        "snapshot-count": header.nb_snapshots,
    }
    if image.encryption:
        facts["encrypted"] = True
        specific["encryption"] = image.encryption
    if header.backing_file is not None:
        facts["backing-filename"] = header.backing_file
        if header.backing_format is not None:
            facts["backing-filename-format"] = header.backing_format
    return facts | {"format-specific": {"type": "qcow2", "data": specific}}


def _qcow2_lines(image: ImageInfo) -> dict[str, str]:
    header = image.header
    lines = {
        "image": image.filename,
        "format": f"qcow2 version {header.version} (compat {image.compat})",
        "virtual size": _size(image.virtual_size),
        "on disk": _size(image.disk_size),
        "cluster size": _size(image.cluster_size),
        "refcounts": f"{1 << header.refcount_order} bits",
        "compression": image.compression,
    }
    if header.backing_file is not None:
        lines["backing file"] = f"{header.backing_file} ({header.backing_format or 'format not stored'})"
    if image.encryption:
        lines["encryption"] = image.encryption
    if header.nb_snapshots:
        lines["snapshots"] = str(header.nb_snapshots)
    features = header.feature_names(0, header.incompatible_features)
    features += header.feature_names(1, header.compatible_features)
    if features:
        lines["features"] = ", ".join(features)
    if image.corrupt:
        lines["state"] = "marked corrupt; `e2kdisk check` says more"
    elif image.dirty:
        lines["state"] = "not closed properly: the refcounts may be out of date"
    return lines


def _size(size_bytes: int) -> str:
    return f"{human(size_bytes)} ({size_bytes} bytes)"
