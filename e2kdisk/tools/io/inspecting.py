"""The commands about the image as a whole: length, map, alloc, info, truncate, flush, aio_flush."""

from __future__ import annotations

from e2kdisk.block.node import Node
from e2kdisk.errors import E2kDiskError, ImageError
from e2kdisk.tools.io.command import Command, size
from e2kdisk.tools.io.image import SECTOR_BYTES, Image
from e2kdisk.tools.io.messages import request_error
from e2kdisk.tools.io.reading import failed
from e2kdisk.tools.io.session import CommandFailed, Mistake, Session, UsageMistake
from e2kdisk.tools.io.values import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREALLOCATIONS = ("off", "metadata", "falloc", "full")


def flush(session: Session, command: Command, words: list[str]) -> None:
    """Flush."""
    image = session.need_image()
    try:
        session.wait(image.node.flush())
    except (OSError, E2kDiskError) as error:
        raise failed(session, "flush", error) from None


def aio_flush(session: Session, command: Command, words: list[str]) -> None:
    """Wait for what is in flight."""
    session.need_image()
    session.drain()


def length(session: Session, command: Command, words: list[str]) -> None:
    """Print the length."""
    session.say(human(session.need_image().length))


def truncate(session: Session, command: Command, words: list[str]) -> None:
    """Truncate [-m prealloc_mode] off."""
    options, rest = command.options(session, words, "m:")
    mode = options.get("m", "off")
    if mode not in PREALLOCATIONS:
        raise Mistake(f"Invalid preallocation mode '{mode}'")
    if not rest:
        raise UsageMistake
    new_size = size(session, rest[0])
    image = session.need_image()
    try:
        session.wait(_truncate(image, new_size, mode))
    except ImageError as error:
        raise Mistake(str(error)) from None
    except (OSError, E2kDiskError) as error:
        raise Mistake(f"Failed to resize the image: {request_error(error)}") from None


async def _truncate(image: Image, new_size: int, mode: str) -> None:
    qcow2 = image.qcow2()
    if qcow2 is not None and new_size % SECTOR_BYTES:
        raise Mistake("The new size must be a multiple of 512")
    old = image.node.size
    await image.node.truncate(new_size)
    if mode == "off" or new_size <= old:
        return
    if qcow2 is not None:
        from e2kdisk.qcow2.preallocate import preallocate

        await preallocate(qcow2, old, new_size - old, mode)
    elif mode == "metadata":
        raise Mistake("Unsupported preallocation mode 'metadata'")
    elif mode == "falloc":
        await image.node.reserve(old, new_size - old)
    else:
        await image.node.write_zeroes(old, new_size - old)


def _chain(node: Node) -> list[Node]:
    nodes = [node]
    while True:
        below = getattr(nodes[-1], "backing", None)
        if below is None:
            return nodes
        nodes.append(below)


async def _allocated(image: Image, offset: int, length: int) -> tuple[bool, int]:
    """Whether bytes from offset are in the image itself, and how many in a row are alike, length at most."""
    first: bool | None = None
    done = 0
    while done < length:
        here = offset + done
        if here >= image.node.size:  # the rest of the last sector
            done = length
            break
        status = await image.node.status(here, min(length - done, image.node.size - here))
        allocated = status.allocated
        if first is None:
            first = allocated
        elif allocated != first:
            break
        done += status.length
    return bool(first), min(done, length)


def map_(session: Session, command: Command, words: list[str]) -> None:
    """Print which parts are allocated."""
    image = session.need_image()
    if not image.length:
        return
    offset = 0
    try:
        while offset < image.length:
            allocated, run = session.wait(_allocated(image, offset, image.length - offset))
            kind = "    allocated" if allocated else "not allocated"
            session.say(f"{human(run)} ({run:#x}) bytes {kind} at offset {human(offset)} ({offset:#x})")
            offset += run
    except (OSError, E2kDiskError) as error:
        raise CommandFailed(f"Failed to query allocation status: {request_error(error)}") from None


def alloc(session: Session, command: Command, words: list[str]) -> None:
    """Say how much of a range is allocated."""
    start = size(session, words[0])
    count = size(session, words[1]) if len(words) > 1 else SECTOR_BYTES
    image = session.need_image()
    wanted = min(count, max(0, image.length - start))
    found = offset = 0
    try:
        while offset < wanted:
            allocated, run = session.wait(_allocated(image, start + offset, wanted - offset))
            found += run if allocated else 0
            offset += run
    except (OSError, E2kDiskError) as error:
        raise CommandFailed(f"is_allocated failed: {request_error(error)}") from None
    session.say(f"{found}/{wanted} bytes allocated at offset {human(start)}")


def info(session: Session, command: Command, words: list[str]) -> None:
    """Print what the image is."""
    image = session.need_image()
    qcow2 = image.qcow2()
    if qcow2 is None:
        name = _format_name(image)
        session.say(f"format name: {name}")
        if name.startswith("null-") or "null-" in image.node.name:
            raise CommandFailed
        session.say("cluster size: 0 bytes\nvm state offset: 0 bytes")
        return
    from e2kdisk.qcow2.vm_state import vm_state_start

    session.say("format name: qcow2")
    session.say(f"cluster size: {human(qcow2.geometry.cluster_size)}")
    session.say(f"vm state offset: {human(vm_state_start(qcow2))}")
    session.say("Format specific information:")
    for key, value in _specific(qcow2):
        session.say(f"    {key}: {value}" if value is not None else f"    {key}:")


def _format_name(image: Image) -> str:
    from e2kdisk.block.file import FileNode
    from e2kdisk.block.null import NullNode
    from e2kdisk.block.raw import RawNode

    if isinstance(image.node, RawNode):
        return "raw"
    if isinstance(image.node, FileNode):
        return "file"
    if isinstance(image.node, NullNode):
        return image.node.name.removesuffix("://")
    return type(image.node).__name__.removesuffix("Node").lower()


def _specific(qcow2: Any) -> list[tuple[str, str | None]]:
    from e2kdisk.qcow2 import layout
    from e2kdisk.qcow2.header import COMPRESSION_TYPES, CRYPT_METHODS

    header = qcow2.header
    modern = header.version >= 3
    lines: list[tuple[str, str | None]] = [
        ("compat", "1.1" if modern else "0.10"),
        ("compression type", COMPRESSION_TYPES.get(header.compression_type, str(header.compression_type))),
    ]
    if modern:
        lazy = bool(header.compatible_features & layout.COMPAT_LAZY_REFCOUNTS)
        lines.append(("lazy refcounts", _word(lazy)))
    lines.append(("refcount bits", str(1 << header.refcount_order)))
    if header.crypt_method:
        lines += [("encrypt", None), ("    format", CRYPT_METHODS.get(header.crypt_method, "?").lower())]
    if modern:
        corrupt = bool(header.incompatible_features & layout.INCOMPAT_CORRUPT)
        lines += [("corrupt", _word(corrupt)), ("extended l2", "false")]
    return lines


def _word(value: bool) -> str:
    return "true" if value else "false"
