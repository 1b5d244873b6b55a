"""measure: how large will a new image be?"""

from __future__ import annotations

from e2kdisk.tools.img.create_options import FORMATS, PROTOCOL, join, parse
from e2kdisk.tools.img.errors import Failure, report, write_error
from e2kdisk.tools.img.given import Given, HelpWanted
from e2kdisk.tools.img.output import json_text
from e2kdisk.tools.img.sizes import size_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(arguments: list[str]) -> int:
    """Run the command."""
    try:
        given = Given(arguments, "f:l:o:O:U", {"output": True, "size": True})
    except Failure as error:
        # As qemu-img: what getopt says, and the help.
        write_error(f"measure: {_as_getopt(error.text)}\n")
        raise HelpWanted from None
    text = join(given.values("o"))
    given.need_output()
    size_text = given.value("size")
    size = None if size_text is None else size_argument("image size", size_text)
    if len(given.names) > 1:
        raise Failure("At most one filename argument is allowed.")
    if not given.names and (given.image_opts or given.has("f") or given.has("l")):
        raise Failure("--image-opts, -f, and -l require a filename argument.")
    if size is None and not given.names:
        raise Failure("Either --size N or one filename must be specified.")
    if size is not None and given.names:
        raise Failure("--size N cannot be used together with a filename.")
    facts = _measure(given, size, text)
    if given.json:
        print(json_text(facts))
        return 0
    print(f"required size: {facts['required']}\nfully allocated size: {facts['fully-allocated']}")
    if "bitmaps" in facts:
        print(f"bitmaps size: {facts['bitmaps']}")
    return 0


def _as_getopt(text: str) -> str:
    """What the C library says of an option."""
    what, _, option = text.partition(" option ")
    letter = option.strip("'").lstrip("-")
    if what == "unrecognized":
        return text if option.startswith("'--") else f"invalid option -- '{letter}'"
    return f"option {option} requires an argument" if "--" in option else f"option requires an argument -- '{letter}'"


def _measure(given: Given, size: int | None, text: str) -> dict[str, int]:
    from e2kdisk.tools.img.convert_command import find_snapshot
    from e2kdisk.tools.img.opening import Image, Session

    session = Session(given)
    source: Image | None = None
    if given.names:
        snapshot = given.value("l")
        extras = {}
        if snapshot is not None:
            image = session.open_given(given.names[0], given, no_backing=True)
            session.close(image)
            find_snapshot(image, snapshot)
            extras = {"snapshot": snapshot}
        source = session.open_given(given.names[0], given, extras=extras)
    format = given.value("O") or "raw"
    if format not in FORMATS:
        raise Failure(f"Unknown file format '{format}'")
    try:
        values = parse(text, PROTOCOL | FORMATS[format])
    except Failure as error:
        report(error.text)
        raise Failure(f"Invalid options for file format '{format}'") from None
    whole = source.size if source is not None else values.get("size", size or 0) if size is None else size
    try:
        if format == "raw":
            rounded = (whole + 511) & -512
            return {"required": rounded, "fully-allocated": rounded}
        return _measure_qcow2(session, source, whole, values)
    finally:
        session.close(source)


def _measure_qcow2(session: Any, source: Any, whole: int, values: dict[str, Any]) -> dict[str, int]:
    from e2kdisk.tools.img.creation import qcow2_options

    options = qcow2_options(values | {"size": whole})
    cluster = options.cluster_size
    data = -(-whole // cluster)
    metadata = metadata_clusters(options.size, cluster, options.refcount_bits)
    full = metadata + data
    required = full
    if values.get("preallocation", "off") not in ("full", "falloc"):
        used = 0 if source is None else session.run(_used_clusters(source.node, source.size, cluster))
        required = metadata + used
    bitmaps = {} if source is None or options.version < 3 else _bitmaps_size(source, cluster)
    return bitmaps | {"required": required * cluster, "fully-allocated": full * cluster}


def _bitmaps_size(source: Any, cluster: int) -> dict[str, int]:
    """What the bitmaps of a source take, tables and directory included; nothing if it can have none."""
    from e2kdisk.qcow2.bitmap_directory import BitmapEntry
    from e2kdisk.tools.img.bitmap_command import bitmaps_of

    bitmaps = bitmaps_of(source)
    if bitmaps is None or source.node.header.version < 3:
        return {}
    size = directory = 0
    for item in bitmaps:
        clusters = -(-item.bits.byte_count // cluster)
        size += (clusters + -(-clusters * 8 // cluster)) * cluster
        directory += len(BitmapEntry(item.name, 0, 0, 0, 0).pack())
    return {"bitmaps": size + -(-directory // cluster) * cluster}


def metadata_clusters(size: int, cluster: int, refcount_bits: int) -> int:
    """Clusters of a fully allocated image that are no data: header, L1 and L2 tables, refcounts."""
    data = -(-size // cluster)
    l2_tables = -(-data // (cluster // 8))
    l1 = -(-l2_tables * 8 // cluster)
    known = 1 + l1 + l2_tables
    entries = cluster * 8 // refcount_bits
    blocks = table = 0
    while True:
        new_blocks = -(-(data + known + blocks + table) // entries)
        new_table = -(-new_blocks * 8 // cluster)
        if (new_blocks, new_table) == (blocks, table):
            return known + blocks + table
        blocks, table = new_blocks, new_table


async def _used_clusters(node: Any, size: int, cluster: int) -> int:
    """Clusters of the new image in which there is anything but known zeros."""
    from e2kdisk.tools.img.status import run_at

    used = 0
    counted_to = 0
    offset = 0
    while offset < size:
        run = await run_at(node, offset, size - offset)
        if run.data and not run.zero:
            first = max(offset // cluster, counted_to)
            end = -(-(offset + run.length) // cluster)
            used += max(0, end - first)
            counted_to = max(counted_to, end)
        offset += run.length
    return used
