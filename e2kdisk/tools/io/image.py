"""The open image of a session: opening with the flags of the command line, and what requests need to know of it."""

from __future__ import annotations

import os
import sys

from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.open_tree import FORMAT_OPTIONS, TreeOpener, passes_discards
from e2kdisk.block.options import CACHE_MODES
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.block.tree import Taken, Tree
from e2kdisk.errors import UsageError
from e2kdisk.tools.stale_bitmaps import warn_of_stale_bitmaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.block.blkdebug import BlkdebugNode
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.tools.io.session import Session

SECTOR_BYTES = 512
AIO_MODES = ("threads", "native", "io_uring")
ZERO_DETECTION = ("off", "on", "unmap")

PROBED_RAW = """\
WARNING: Image format was not specified for '{name}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions."""


class OpenFlags:
    """What the options of the command line and of `open` say."""

    def __init__(
        self,
        read_only: bool = False,
        snapshot: bool = False,
        copy_on_read: bool = False,
        cache: str = "writethrough",
        force_share: bool = False,
        aio: str = "threads",
        discards: bool = True,
    ) -> None:
        self.read_only = read_only
        self.snapshot = snapshot
        """Writes go to a temporary overlay."""
        self.copy_on_read = copy_on_read
        self.cache = cache
        self.force_share = force_share
        self.aio = aio
        self.discards = discards
        """Discards reach the image, unless its options say otherwise."""

    def with_(self, **changes: Any) -> OpenFlags:
        """A copy with some fields changed."""
        return OpenFlags(**(vars(self) | changes))


class Image:
    """An open image."""

    def __init__(
        self,
        node: Node,
        name: str | None,
        options: Tree,
        flags: OpenFlags,
        debug_nodes: list[BlkdebugNode],
        detect_zeroes: str = "off",
        discards: bool = True,
    ) -> None:
        self.node = node
        self.name = name
        self.options = options
        self.flags = flags
        self.debug_nodes = debug_nodes
        self.detect_zeroes = detect_zeroes
        self.discards = discards

    @property
    def length(self) -> int:
        """Bytes of the disk: whole sectors."""
        return -(-self.node.size // SECTOR_BYTES) * SECTOR_BYTES

    @property
    def writethrough(self) -> bool:
        """Whether every write is flushed."""
        return CACHE_MODES[self.flags.cache].writethrough

    def qcow2(self) -> Qcow2Image | None:
        """The node, if it is a qcow2 image."""
        import sys

        module = sys.modules.get("e2kdisk.qcow2.image")
        return self.node if module is not None and isinstance(self.node, module.Qcow2Image) else None

    async def close(self) -> None:
        """Close the image. Raises OSError, ImageError."""
        await self.node.close()


async def open_image(session: Session, name: str | None, options: Tree, flags: OpenFlags) -> Image:
    """Open what a name and options describe. Raises UsageError, ImageError, OSError."""
    _check_flags(flags)
    secrets = session.secrets

    def secret(key: str) -> bytes:
        try:
            if secrets is not None:
                return secrets[key].password
        except UsageError:
            pass
        raise UsageError(f"No secret with id '{key}'")

    FORMAT_OPTIONS.setdefault("qcow2", _qcow2_options)
    opener = TreeOpener(
        Opener(session.engine, OpenPolicy.permissive()),
        read_only=flags.read_only or flags.snapshot,
        cache=flags.cache,
        force_share=flags.force_share,
        discards=flags.discards,
        secret=secret,
        say=session.say,
        warn=session.warn,
    )
    detect_zeroes = _detect_zeroes(options, flags.discards)
    node = await opener.open(name, options)
    if opener.read_only and not flags.read_only and not flags.snapshot:
        await node.close()
        raise UsageError("Block node is read-only")
    _warn_of_guess(session, node, name)
    below: Node | None = node
    while below is not None:
        warn_of_stale_bitmaps(below, session.warn, lambda text: print(text, end="", file=sys.stderr, flush=True))
        below = getattr(below, "backing", None)
    if flags.snapshot:
        node = await _temporary_overlay(session, node)
    return Image(node, name, options, flags, opener.debug_nodes, detect_zeroes, opener.discards)


def _qcow2_options(taken: Any, filename: str, discards: bool) -> dict[str, Any]:
    from e2kdisk.qcow2.runtime import take_runtime

    return take_runtime(taken, filename, discards=discards)


def _check_flags(flags: OpenFlags) -> None:
    if flags.aio == "native" and not CACHE_MODES[flags.cache].direct:
        raise UsageError("aio=native was specified, but it requires cache.direct=on, which was not specified.")
    if flags.copy_on_read and flags.read_only:
        raise UsageError("Can't use copy-on-read on read-only device")


def _detect_zeroes(options: Tree, discards: bool) -> str:
    discards = passes_discards(Taken("", options), discards)
    mode = str(options.get("detect-zeroes", "off"))
    if mode not in ZERO_DETECTION:
        raise UsageError(f"invalid parameter value: {mode}")
    if mode == "unmap" and not discards:
        raise UsageError("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
    return mode


def _warn_of_guess(session: Session, node: Node, name: str | None) -> None:
    from e2kdisk.block.raw import GuessedRawNode

    if isinstance(node, GuessedRawNode):
        session.complain(PROBED_RAW.format(name=node.name if name is None else name))


async def _temporary_overlay(session: Session, backing: Node) -> Node:
    """A qcow2 image without a name, over a node that is open already; it vanishes when it is closed."""
    import tempfile

    from e2kdisk.block.file import FileNode
    from e2kdisk.qcow2.create import CreateOptions, format_file
    from e2kdisk.qcow2.header_file import read_header
    from e2kdisk.qcow2.image import Qcow2Image

    try:
        fd, path = tempfile.mkstemp(prefix="e2kdisk-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        try:
            os.close(fd)
            file = await FileNode.open(path, session.engine, cache="unsafe")
        finally:
            os.unlink(path)
        await format_file(file, CreateOptions(backing.size))
        return await Qcow2Image.open(file, await read_header(file), backing)
    except BaseException:
        await backing.close()
        raise
