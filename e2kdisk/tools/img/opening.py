"""Open images by all the names that qemu-img takes, with its words for what goes wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.block.file import FileNode
from e2kdisk.block.formats import PROBE_SIZE, guess_format, load_format
from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.policy import OpenPolicy
from e2kdisk.block.raw import RawNode
from e2kdisk.crypto.secret import Secrets
from e2kdisk.errors import E2kDiskError, ImageError, MismatchError, UnsupportedFeature, UsageError
from e2kdisk.tools.img.errors import Failure, report, write_error
from e2kdisk.tools.img.given import Given, warn_guessed
from e2kdisk.tools.img.keyval import Tree
from e2kdisk.tools.img.names import file_tree, option_tree, parse_name
from e2kdisk.tools.stale_bitmaps import warn_of_stale_bitmaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

FORMATS = ("qcow2", "raw")
DEBUG_PROTOCOLS = ("blkdebug", "blkverify")
PROTOCOLS = ("file", "host_device", "null-co", "null-aio", *DEBUG_PROTOCOLS)
NODE_OPTIONS = frozenset(
    {"driver", "file", "backing", "encrypt", "read-only", "auto-read-only", "force-share", "cache", "node-name"}
    | {"detect-zeroes"}
)
"""What every qcow2 node is told that is no option of the format."""


class Reason(E2kDiskError):
    """Why an image cannot be opened, to stand behind its name."""


class Image:
    """An open image: its node, and what is said of it."""

    def __init__(self, node: Node, filename: str, format: str, given: str) -> None:
        self.node = node
        self.filename = filename
        self.given = given
        """The name on the command line, or the options."""
        self.format = format

    @property
    def size(self) -> int:
        """Bytes, in whole sectors."""
        return (self.node.size + 511) & -512

    @property
    def file(self) -> Node:
        """The node of the file itself."""
        file: Node = getattr(self.node, "file", self.node)
        return file


class ImageOpener(Opener):
    """Opens trees of options; backing files anywhere, as the images' owner trusts them."""

    def __init__(self, engine: AutoEngine, secrets: Secrets) -> None:
        super().__init__(engine, OpenPolicy.permissive())
        self.secrets = secrets
        self._warned: set[str] = set()
        """Files that have been warned about: once is enough."""

    async def open_tree(self, tree: Tree, options: OpenOptions, warn: str | None = None) -> tuple[Node, str]:
        """Open an image; returns its node and format. warn: the name for the warning about a guess.

        Raises Reason, ImageError, OSError.
        """
        driver = tree.get("driver", options.format)
        if driver is not None and not isinstance(driver, str):
            raise Reason("Must specify either driver or file")
        if tree.keys() - {"driver", "file"}:
            from e2kdisk.tools.img.node_options import with_node_options

            options = with_node_options(tree, options)
        if driver in PROTOCOLS:
            file = await self._open_file(tree, options)
            return RawNode(file), str(driver)
        if driver is not None and driver not in FORMATS:
            raise _unknown_driver(driver)
        file = await self._open_file(file_tree(tree, driver), options)
        try:
            identity = getattr(file, "identity", None)
            format = driver or await self._guess(file)
            if driver is None and format == "raw" and warn is not None and not options.read_only:
                warn_guessed(warn)
            if format == "qcow2":
                await _check_magic(file)
            options = options.with_(format=driver, identity=identity, filename=file.name)
            if tree.get("backing", "") is None:
                options = options.with_(no_backing=True)
            elif isinstance(tree.get("backing"), dict):
                options = options.with_(backing_tree=tree["backing"])
            elif tree.get("backing"):
                raise Reason(f"Cannot find device='{tree['backing']}' nor node-name='{tree['backing']}'")
            extras = self._extras(tree, format, file, options)
            node = await load_format(format).open(file, options.with_(extras=extras), self)
            self._warn_of_stale_bitmaps(node)
            return node, format
        except BaseException:
            await file.close()
            raise

    def _warn_of_stale_bitmaps(self, node: Node) -> None:
        if node.name not in self._warned and warn_of_stale_bitmaps(
            node, lambda text: report(f"warning: {text}"), write_error
        ):
            self._warned.add(node.name)

    async def open_bare(self, name: str, given: Given, *, writable: bool, cache: str) -> Node:
        """Open only the file of a qcow2 image; its backing file must be there, nothing else is judged.

        Raises Failure, Reason, ImageError, OSError.
        """
        from e2kdisk.qcow2.header_file import read_header

        tree = option_tree(name) if given.image_opts else parse_name(name)
        if given.force_share and writable:
            raise Reason("force-share=on can only be used with read-only images")
        options = OpenOptions(name, read_only=not writable, cache=cache, force_share=given.force_share)
        file = await self._open_file(file_tree(tree, tree.get("driver")), options)
        try:
            if "driver" not in tree:
                await self._guess(file)
            await _check_magic(file)
            header = await read_header(file)
            identity = getattr(file, "identity", None)
            here = options.with_(filename=file.name, identity=identity, format="qcow2")
            backing = await self.open_backing(here, header.backing_file or "", header.backing_format)
            if backing is not None:
                await backing.close()
        except BaseException:
            await file.close()
            raise
        return file

    def _extras(self, tree: Tree, format: str, file: Node, options: OpenOptions) -> dict[str, Any]:
        extras: dict[str, Any] = dict(options.extras)
        runtime = {key: value for key, value in tree.items() if key not in NODE_OPTIONS}
        if format == "raw":
            if not runtime:
                return {}
            from e2kdisk.block.open_tree import raw_window
            from e2kdisk.block.tree import Taken

            taken = Taken("raw", runtime, kind="format")
            window = raw_window(taken, file)
            taken.finish()
            return window
        encrypt = tree.get("encrypt")
        if isinstance(encrypt, dict) and "key-secret" in encrypt:
            extras["key"] = self.secrets[str(encrypt["key-secret"])].password
        if runtime:
            from e2kdisk.block.open_tree import passes_discards
            from e2kdisk.block.tree import Taken
            from e2kdisk.qcow2.runtime import take_runtime

            taken = Taken("qcow2", runtime, kind="format")
            extras |= take_runtime(taken, file.name, discards=passes_discards(taken))
            taken.finish()
        return extras

    async def _guess(self, file: Node) -> str:
        head = bytearray(min(PROBE_SIZE, file.size))
        try:
            await file.read(0, [memoryview(head)])
        except OSError as error:
            raise Reason(f"Could not read image for determining its format: {reason(error)}") from None
        format = guess_format(bytes(head))
        if format not in FORMATS:
            raise Reason(f"format '{format}' is not supported, only qcow2 and raw")
        return format

    async def _open_file(self, tree: Tree, options: OpenOptions) -> Node:
        driver = tree.get("driver", "file")
        if driver in FORMATS:
            node, _ = await self.open_tree(tree, options.with_(format=None))
            return node
        if driver in (*DEBUG_PROTOCOLS, "null-co", "null-aio"):
            from e2kdisk.tools.img.debug_files import DebugFiles

            return await DebugFiles(self, options, self._open_file).protocol(tree)
        if driver not in ("file", "host_device"):
            raise _unknown_driver(driver)
        if not isinstance(tree.get("filename"), str) or not tree["filename"]:
            raise Reason(f"The '{driver}' block driver requires a file name")
        if tree.keys() - {"driver", "filename"}:
            from e2kdisk.tools.img.node_options import check_file_options

            check_file_options(tree)
        if driver == "host_device" and os.path.isfile(tree["filename"]):
            what = "to be either a character or block device"
            raise Reason(f"'host_device' driver requires '{tree['filename']}' {what}")
        return await open_host_file(str(tree["filename"]), self.engine_of_files, options)

    @property
    def engine_of_files(self) -> AutoEngine:
        """The engine of all files."""
        assert isinstance(self.engine, AutoEngine)
        return self.engine

    async def open_backing(self, options: OpenOptions, stored_name: str, stored_format: str | None) -> Node | None:
        """Opener.open_backing, with QEMU's words."""
        if options.no_backing or not (stored_name or options.backing_tree):
            return None
        child = options.with_(
            read_only=True, format=None, extras={}, parent=options, identity=None, no_backing=False, backing_tree=None
        )
        try:
            tree = _backing_tree(options, stored_name)
            if stored_format is not None:
                tree.setdefault("driver", stored_format)
            self._check_loop(tree, child)
            node, _ = await self.scheduler.apart(self.open_tree(tree, child))
        except Failure as error:
            raise Reason(f"Could not open backing file: {error.text}") from None
        except (E2kDiskError, OSError) as error:
            raise Reason(f"Could not open backing file: {reason(error)}") from None
        return node

    def _check_loop(self, tree: Tree, child: OpenOptions) -> None:
        path = file_tree(tree, None).get("filename")
        try:
            info = os.stat(str(path))
        except (OSError, ValueError):
            return
        chain = child.chain()[:-1]
        if len(chain) >= self.policy.max_depth:
            raise Reason(f"more than {self.policy.max_depth} images in the chain")
        if any(image.identity == (info.st_dev, info.st_ino) for image in chain):
            raise Reason(f"'{path}' creates an infinite loop in the backing chain")


def _backing_tree(options: OpenOptions, stored_name: str) -> Tree:
    """What the options say of the backing file; its name is the header's unless they give one. Raises Failure."""
    given: Tree = dict(options.backing_tree or {})
    if "file" in given:
        return given
    if given.get("driver") in ("null-co", "null-aio"):
        raise Reason(f"The only allowed filename for this driver is '{given['driver']}://'")
    if not stored_name:
        raise Reason('A block device must be specified for "file"')
    return parse_name(stored_name, os.path.dirname(options.filename)) | given


def _unknown_driver(driver: object) -> Reason:
    return Reason(f"Unknown driver '{driver}'")


async def _check_magic(file: Node) -> None:
    head = bytearray(8)
    await file.read(0, [memoryview(head)])
    if head[:4] != b"QFI\xfb":
        raise Reason("Image is not in qcow2 format")
    version = int.from_bytes(head[4:8], "big")
    if version not in (2, 3):
        raise Reason(f"Unsupported qcow2 version {version}" if version != 1 else "Image is not in qcow2 format")
    if file.size < 72:
        raise Reason("qcow2 header too short")


async def open_host_file(path: str, engine: AutoEngine, options: OpenOptions) -> FileNode:
    """Open a file of the host. Raises Reason."""
    try:
        return await FileNode.open(
            path, engine, read_only=options.read_only, cache=options.cache, force_share=options.force_share
        )
    except ImageError as error:
        raise Reason(file_reason(error, path)) from None


def file_reason(error: ImageError, path: str, verb: str = "open") -> str:
    """Why a file of the host cannot be used, in QEMU's words."""
    if error.where == "locked":
        permission = "resize" if "resiz" in error.what else "write"
        shared = "shared " if "has it open for" in error.what else ""
        return f'Failed to get {shared}"{permission}" lock\nIs another process using the image [{path}]?'
    cause = error.__cause__
    if isinstance(cause, OSError):
        return f"Could not {verb} '{path}': {os.strerror(cause.errno or errno.EIO)}"
    if "cannot be opened: it is" in error.what and verb == "open":
        return f"'file' driver requires '{path}' to be a regular file"
    return f"Could not {verb} '{path}': {error.what.removeprefix('cannot be opened: ')}"


def reason(error: BaseException) -> str:
    """Why something failed, without the file's name where the caller says it."""
    if isinstance(error, UnsupportedFeature):
        if error.where == "incompatible_features":
            return f"Unsupported qcow2 feature(s): {error.what.removesuffix(': not supported')}"
        return error.what
    if isinstance(error, ImageError):
        if "marked corrupt" in error.what:
            return "qcow2: Image is corrupt; cannot be opened read/write"
        if error.where.startswith("header extension "):
            return "Header extension too large"
        if error.where.startswith(("bitmap ", "bitmaps ")):
            return error.what  # which names the bitmap
        return f"{error.where}: {error.what}" if error.where else error.what
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else str(error)
    text = str(error)
    return "Parameter 'encrypt.key-secret' is required for cipher" if "encrypted (AES); give its key" in text else text


class Session:
    """The scheduler, the engine and the secrets of one command."""

    def __init__(self, given: Given | None = None) -> None:
        self.scheduler = Scheduler()
        self.engine = AutoEngine(self.scheduler)
        self.secrets = Secrets()
        self.opener = ImageOpener(self.engine, self.secrets)
        objects = given.values("object") if given is not None else ()
        if objects:
            from e2kdisk.tools.secret_objects import add_object

            for text in objects:
                try:
                    add_object(self.secrets, text)
                except UsageError as error:
                    raise Failure(str(error)) from None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.scheduler.run(coroutine)

    def open(
        self,
        name: str,
        *,
        format: str | None = None,
        image_opts: bool = False,
        writable: bool = False,
        cache: str = "writeback",
        force_share: bool = False,
        no_backing: bool = False,
        extras: dict[str, Any] | None = None,
        status: int = 1,
    ) -> Image:
        """Open an image by the name that the user gave. Raises Failure."""
        try:
            if force_share and writable:
                raise Reason("force-share=on can only be used with read-only images")
            if image_opts:
                tree = option_tree(name)
            else:
                tree = parse_name(name)
            if format is not None:
                tree.setdefault("driver", format)
            options = OpenOptions(
                name,
                read_only=not writable,
                cache=cache,
                force_share=force_share,
                no_backing=no_backing,
                extras=extras or {},
            )
            node, found = self.run(self.opener.open_tree(tree, options, name))
        except Failure as error:
            error.status = status
            raise
        except MismatchError:
            raise
        except (E2kDiskError, OSError) as error:
            raise Failure(f"Could not open '{name}': {reason(error)}", status) from None
        shown = node.name if image_opts or name.startswith(("json:", "file:")) else name
        return Image(node, shown, found, name)

    def open_given(self, name: str, given: Given, **options: Any) -> Image:
        """Open an image with what -f, --image-opts and -U say. Raises Failure."""
        options.setdefault("format", given.value("f"))
        return self.open(name, image_opts=given.image_opts, force_share=given.force_share, **options)

    @contextmanager
    def closing(self, *images: Image) -> Iterator[None]:
        """Close images at the end; after an error, what closing meets besides is not worth a word."""
        try:
            yield
        except Exception:
            with suppress(OSError, E2kDiskError):
                self.close(*images)
            raise
        self.close(*images)

    def close(self, *images: Image | None) -> None:
        """Close images. Raises Failure when the last data cannot be written."""
        for image in images:
            if image is not None:
                self.run(image.node.close())
