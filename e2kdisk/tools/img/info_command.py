"""info: what an image says of itself."""

from __future__ import annotations

import os

from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.given import Given
from e2kdisk.tools.img.head import BACKING_FORMAT, BITMAPS, DATA_FILE, MAGIC, Head, Odd, SnapshotHead
from e2kdisk.tools.img.output import json_line, json_text
from e2kdisk.tools.img.sizes import human
from e2kdisk.tools.img.snapshot_list import icount, snapshot_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOREIGN_HEADS = (b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"# Di", b"vhdx", b"cone", b"LUKS", b"With", b"Boch")


def run(arguments: list[str]) -> int:
    """Run the command."""
    given = Given(arguments, "f:U", {"backing-chain": False, "format": "f", "output": True})
    given.need_output()
    name = given.one_name()
    if given.values("object"):
        from e2kdisk.tools.img.opening import Session

        Session(given)
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    format, image_opts = given.value("f"), given.image_opts
    while True:
        facts = _facts(name, format, given, image_opts=image_opts)
        if facts["filename"] in seen:
            raise Failure(f"Backing file '{name}' creates an infinite loop.")
        seen.add(facts["filename"])
        found.append(facts)
        if not given.has("backing-chain") or "backing-filename" not in facts:
            break
        name, format = facts["full-backing-filename"], facts.get("backing-filename-format")
        image_opts = False
    if given.json:
        print(json_text(found if given.has("backing-chain") else found[0]))
    else:
        print("\n\n".join("\n".join(_lines(facts)) for facts in found))
    return 0


def _facts(name: str, format: str | None, given: Given, *, image_opts: bool) -> dict[str, Any]:
    """The facts of one image, in the order in which they are printed as JSON. Raises Failure."""
    path = name.removeprefix("file:")
    plain = not image_opts and ":" not in path.partition("/")[0] and format in (None, "raw", "qcow2")
    if plain and os.path.isfile(path):
        try:
            return _quick(path, format, given.force_share)
        except Odd:
            pass
        except OSError as error:
            raise Failure(
                f"Could not open '{name}': Could not open '{path}': {os.strerror(error.errno or 5)}"
            ) from None
    from e2kdisk.tools.img.info_engine import engine_facts

    return engine_facts(name, format, image_opts=image_opts, force_share=given.force_share)


def _quick(path: str, format: str | None, force_share: bool) -> dict[str, Any]:
    """The facts of a plain file without the engine. Raises Odd, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not force_share:
            _need_no_writer(fd)
        head = os.pread(fd, 4, 0)
        disk_size = os.fstat(fd).st_blocks * 512
        if format == "raw" or (format is None and head not in FOREIGN_HEADS and not _is_vdi(fd)):
            size = (os.lseek(fd, 0, os.SEEK_END) + 511) & -512
            facts = {"virtual-size": size, "filename": path, "format": "raw", "actual-size": disk_size}
            return facts | {"dirty-flag": False}
        if head != MAGIC:
            raise Odd
        image = Head(fd)
        bitmaps = None
        if image.extension(BITMAPS) is not None:
            from e2kdisk.tools.img.head_bitmaps import bitmap_facts

            bitmaps = bitmap_facts(fd, image)
        return qcow2_facts(image, image.snapshots(fd), path, disk_size, bitmaps)
    finally:
        os.close(fd)


def _is_vdi(fd: int) -> bool:
    return os.pread(fd, 4, 0x40) == b"\x7f\x10\xda\xbe"


def _need_no_writer(fd: int) -> None:
    from e2kdisk.block.locks import lock_image
    from e2kdisk.errors import ImageError

    try:
        lock_image(fd, "", writable=False)
    except ImageError:
        raise Odd from None  # the engine meets the same lock, and says whose it is


def qcow2_facts(
    image: Head,
    snapshots: list[SnapshotHead],
    filename: str,
    disk_size: int | None,
    bitmaps: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The facts of a qcow2 image, in the order in which they are printed as JSON."""
    facts: dict[str, Any] = {}
    backing, backing_format = image.backing_file, image.text(BACKING_FORMAT)
    if backing is not None and backing_format is not None:
        facts["backing-filename-format"] = backing_format
    if snapshots:
        facts["snapshots"] = [_snapshot_facts(item) for item in snapshots]
    facts |= {
        "virtual-size": image.size,
        "filename": filename,
        "cluster-size": image.cluster_size,
        "format": "qcow2",
        **({} if disk_size is None else {"actual-size": disk_size}),
        "format-specific": {"type": "qcow2", "data": _specific(image, bitmaps)},
    }
    if backing is not None:
        is_path = ":" not in backing.partition("/")[0]
        full = os.path.join(os.path.dirname(filename), backing) if is_path else backing
        facts |= {"full-backing-filename": full, "backing-filename": backing}
    if image.crypt_method:
        facts["encrypted"] = True
    return facts | {"dirty-flag": bool(image.incompatible & 1)}


def _snapshot_facts(item: SnapshotHead) -> dict[str, Any]:
    count = icount(item)
    return ({} if count is None else {"icount": count}) | {
        "vm-clock-nsec": item.vm_clock_nsec % 10**9,
        "name": item.name,
        "date-sec": item.date_sec,
        "date-nsec": item.date_nsec,
        "vm-clock-sec": item.vm_clock_nsec // 10**9,
        "id": item.id,
        "vm-state-size": item.vm_state_size,
    }


def _specific(image: Head, bitmaps: list[dict[str, Any]] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"compat": "1.1" if image.version == 3 else "0.10", "compression-type": image.compression}
    encrypt: dict[str, Any] = {"encrypt": {"format": "aes"}} if image.crypt_method == 1 else {}
    if image.version == 2:
        return facts | {"refcount-bits": 16} | encrypt
    facts["lazy-refcounts"] = bool(image.compatible & 1)
    if bitmaps:
        facts["bitmaps"] = bitmaps
    facts |= {"refcount-bits": image.refcount_bits} | encrypt
    data_file = image.text(DATA_FILE) if image.incompatible & 4 else None
    if data_file is not None:
        facts |= {"data-file": data_file, "data-file-raw": bool(image.autoclear & 2)}
    return facts | {"corrupt": bool(image.incompatible & 2), "extended-l2": image.extended_l2}


def _lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    size = facts["virtual-size"]
    actual = facts.get("actual-size")
    lines = [
        f"image: {facts['filename']}",
        f"file format: {facts['format']}",
        f"virtual size: {human(size)} ({size} bytes)",
        f"disk size: {'unavailable' if actual is None else human(actual)}",
    ]
    if facts.get("encrypted"):
        lines.append("encrypted: yes")
    if "cluster-size" in facts:
        lines.append(f"cluster_size: {facts['cluster-size']}")
    if facts["dirty-flag"]:
        lines.append("cleanly shut down: no")
    if "backing-filename" in facts:
        backing, full = facts["backing-filename"], facts["full-backing-filename"]
        lines.append(f"backing file: {backing}" + (f" (actual path: {full})" if full != backing else ""))
    if "backing-filename-format" in facts:
        lines.append(f"backing file format: {facts['backing-filename-format']}")
    if "snapshots" in facts:
        lines += snapshot_lines(Shown(item) for item in facts["snapshots"])
    if "format-specific" in facts:
        lines.append("Format specific information:")
        lines += _specific_lines(facts["format-specific"]["data"], "    ")
    return lines


def _specific_lines(facts: dict[str, Any] | list[Any], indent: str) -> list[str]:
    lines = []
    items = facts.items() if isinstance(facts, dict) else ((f"[{index}]", item) for index, item in enumerate(facts))
    for key, value in items:
        name = key.replace("-", " ")
        if isinstance(value, (dict, list)):
            lines.append(f"{indent}{name}:")
            lines += _specific_lines(value, indent + "    ")
        else:
            lines.append(f"{indent}{name}: {value if isinstance(value, str) else json_line(value)}")
    return lines


class Shown:
    """A snapshot as the table wants it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.id: str = facts["id"]
        self.name: str = facts["name"]
        self.vm_state_size: int = facts["vm-state-size"]
        self.date_sec: int = facts["date-sec"]
        self.vm_clock_nsec: int = facts["vm-clock-sec"] * 10**9 + facts["vm-clock-nsec"]
        count: int | None = facts.get("icount")
        self.extra_data = b"" if count is None else bytes(16) + count.to_bytes(8, "big")
