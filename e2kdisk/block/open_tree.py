"""Opening a tree of options (tree.py): protocols have a table here, formats come from the table of formats."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from e2kdisk.block.file import FileNode
from e2kdisk.block.formats import FORMATS
from e2kdisk.block.node import Node
from e2kdisk.block.null import NullNode
from e2kdisk.block.open import Opener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.tree import Taken, Tree, as_size, is_plain, parse_name
from e2kdisk.errors import ImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.block.blkdebug import BlkdebugNode

NULL_BYTES = 1 << 30
"""How large a null node is that does not say."""

DISCARD_MODES = {"ignore": False, "off": False, "unmap": True, "on": True}
"""Values of the option discard -> whether discards reach the node."""

FORMAT_OPTIONS: dict[str, Callable[[Taken, str, bool], dict[str, Any]]] = {}
"""Format -> what reads its runtime options, also told whether discards reach the image.

Filled by whoever may import formats (e2kdisk.qcow2.runtime).
"""


class TreeOpener:
    """Opens trees with one opener; what a tree does not say is as the fields have it."""

    def __init__(
        self,
        opener: Opener,
        read_only: bool = False,
        cache: str = "writeback",
        force_share: bool = False,
        discards: bool = True,
        secret: Callable[[str], bytes] | None = None,
        say: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.opener = opener
        self.read_only = read_only
        self.cache = cache
        self.force_share = force_share
        self.discards = discards
        """Discards, and leave to unmap zeros, reach the image."""
        self.secret = secret
        """Looks up a secret by its id."""
        self.say = say
        """Gets what QEMU prints about breakpoints."""
        self.warn = warn
        self.debug_nodes: list[BlkdebugNode] = []
        """Where breakpoints are found, the lowest first."""

    def beside(self) -> TreeOpener:
        """One for another tree that is opened alike."""
        return TreeOpener(self.opener, self.read_only, self.cache, self.force_share)

    def below(self) -> TreeOpener:
        """One for the tree of a backing file."""
        return TreeOpener(
            self.opener, True, self.cache, self.force_share, self.discards, self.secret, self.say, self.warn
        )

    async def open(self, name: str | None, options: Tree) -> Node:
        """Open what a name and options describe together. Raises UsageError, ImageError or OSError."""
        tree = self._merge(name, options)
        self._flags(tree)
        driver = tree.pop("driver", None)
        if driver is not None and driver not in FORMATS and driver not in PROTOCOLS:
            raise UsageError(f"Unknown driver '{driver}'")
        if driver in PROTOCOLS:
            return await self.protocol({"driver": driver} | tree)
        below = tree.pop("file", None)
        if isinstance(below, str):
            raise UsageError(f"Cannot find device='{below}' nor node-name='{below}'")
        if below is None:
            raise UsageError(
                'A block device must be specified for "file"' if driver else "Must specify either driver or file"
            )
        file = await self.protocol(below)
        return await self._format(file, driver, tree)

    def _merge(self, name: str | None, options: Tree) -> Tree:
        tree = dict(options)
        if name is None:
            return tree
        parsed = parse_name(name)
        if name.startswith("json:"):
            return parsed | tree
        if is_plain(name) and not name:
            raise UsageError("The 'file' block driver requires a file name")
        if tree.get("driver") in ("null-co", "null-aio") and parsed.get("driver") != tree["driver"]:
            raise UsageError(f"The only allowed filename for this driver is '{tree['driver']}://'")
        if tree.get("driver") in PROTOCOLS:
            return parsed | tree
        file = tree.get("file")
        if isinstance(file, dict):
            # A name belongs to the lowest node, wherever the options put it.
            tree["file"] = parsed | file if "filename" not in file else file
            if file.get("driver") in ("blkdebug", "blkverify"):
                raise UsageError("Can't specify 'file' and 'filename' options at the same time")
        elif file is None:
            tree["file"] = parsed
        return tree

    def _flags(self, tree: Tree) -> None:
        """Options that every node has."""
        taken = Taken("", tree)
        read_only = taken.switch("read-only")
        if read_only is not None:
            self.read_only = read_only
        force_share = taken.switch("force-share")
        if force_share is not None:
            self.force_share = force_share
        for key in ("node-name", "auto-read-only", "detect-zeroes"):
            taken.any(key)
        self.discards = passes_discards(taken, self.discards)
        cache = taken.tree("cache")
        if cache is not None:
            flags = Taken("", cache)
            direct, no_flush = flags.switch("direct"), flags.switch("no-flush")
            flags.finish()
            if direct is not None:
                self.cache = "none" if direct else "writeback"
            if no_flush:
                self.cache = "unsafe"
        for key in ("read-only", "force-share", "node-name", "auto-read-only", "discard", "detect-zeroes", "cache"):
            tree.pop(key, None)
        if self.force_share and not self.read_only:
            raise UsageError("force-share=on can only be used with read-only images")

    async def protocol(self, tree: Tree) -> Node:
        """Open what holds the bytes. Raises UsageError, ImageError or OSError."""
        tree = dict(tree)
        keeps_space = not passes_discards(Taken("", tree))
        for key in ("node-name", "read-only", "auto-read-only", "discard", "detect-zeroes", "force-share", "cache"):
            tree.pop(key, None)
        driver = tree.pop("driver", None)
        if driver is None:
            name = tree.pop("filename", None)
            if name is None:
                raise UsageError("The 'file' block driver requires a file name")
            tree = parse_name(str(name)) | tree
            driver = tree.pop("driver", "file")
        if driver in FORMATS:
            return await self.beside().open(None, {"driver": driver} | tree)
        if driver not in PROTOCOLS:
            raise UsageError(f"Unknown driver '{driver}'")
        taken = Taken(driver, tree)
        node = await PROTOCOLS[driver](self, taken)
        if keeps_space and isinstance(node, FileNode):
            node.keeps_space = True
        return node

    async def _format(self, file: Node, driver: str | None, tree: Tree) -> Node:
        """Open the format in a protocol node that is open already, and close that if it fails."""
        given = frozenset(tree)
        try:
            if driver is None:
                from e2kdisk.block.formats import PROBE_SIZE, probe_format

                head = bytearray(PROBE_SIZE)
                await file.read(0, [memoryview(head)])
                driver_found = probe_format(bytes(head), file.name)
            else:
                driver_found = driver
            backing = tree.pop("backing", "") if driver_found != "raw" else ""
            options = await self._format_options(file, driver_found, driver is None, tree)
            opener, options = self._with_backing(backing, options, "backing" in given)
        except BaseException:
            await file.close()
            raise
        return await opener.open_format(file, options)

    def _with_backing(self, backing: object, options: OpenOptions, given: bool) -> tuple[Opener, OpenOptions]:
        """Who opens an image for which the option backing has this value, and how."""
        if isinstance(backing, dict):
            return _BackingTree(self, backing), options
        if backing is None:
            return self.opener, options.with_(no_backing=True)
        if backing:
            raise UsageError(f"Cannot find device='{backing}' nor node-name='{backing}'")
        if given:
            self.warn('Use of "backing": "" is deprecated; use "backing": null instead')
        return self.opener, options.with_(no_backing=given)

    async def _format_options(self, file: Node, name: str, guessed: bool, tree: Tree) -> OpenOptions:
        taken = Taken(name, tree, kind="format")
        extras: dict[str, Any] = {}
        if name == "raw":
            extras = raw_window(taken, file)
        else:
            encrypt = taken.tree("encrypt")
            extras = FORMAT_OPTIONS[name](taken, file.name, self.discards) if name in FORMAT_OPTIONS else {}
            if encrypt is not None:
                extras |= {"encrypt": self._encryption(encrypt)}
        taken.finish()
        if "encrypt" in extras:
            extras = await self._key(file, extras)
        return OpenOptions(
            file.name,
            None if guessed and name == "raw" else name,
            read_only=self.read_only,
            cache=self.cache,
            force_share=self.force_share,
            extras=extras,
            identity=getattr(file, "identity", None),
        )

    def _encryption(self, tree: Tree) -> dict[str, Any]:
        taken = Taken("qcow2", {f"encrypt.{key}": value for key, value in tree.items()}, kind="format")
        format, key = taken.text("encrypt.format"), taken.text("encrypt.key-secret")
        taken.finish()
        return {"format": format, "key-secret": key}

    async def _key(self, file: Node, extras: dict[str, Any]) -> dict[str, Any]:
        """Turn the encrypt options into the format's key; on an image in the clear a key is not looked at."""
        encrypt = extras.pop("encrypt")
        method = bytearray(4)
        await file.read(32, [memoryview(method)])
        if not any(method):
            if encrypt["format"] is not None:
                what = f"No encryption in image header, but options specified format '{encrypt['format']}'"
                raise UsageError(what)
            return extras
        name = encrypt["key-secret"]
        if name is None or self.secret is None:
            raise UsageError("Parameter 'encrypt.key-secret' is required for cipher")
        return extras | {"key": self.secret(name)}


class _BackingTree(Opener):
    """Opens one image over the backing file that a tree describes; what its tree leaves out is the image's."""

    def __init__(self, above: TreeOpener, tree: Tree) -> None:
        super().__init__(above.opener.engine, above.opener.policy)
        self._above = above
        # A backing file is opened for reading, whatever is said of it.
        self._tree = {key: value for key, value in tree.items() if key not in ("read-only", "auto-read-only")}

    async def open_backing(self, options: OpenOptions, stored_name: str, stored_format: str | None) -> Node | None:
        """Opener.open_backing."""
        tree = dict(self._tree)
        if stored_format is not None:
            tree.setdefault("driver", stored_format)
        file = tree.get("file")
        name: str | None = None
        if not (isinstance(file, dict) and "filename" in file) and stored_name:
            directory = os.path.dirname(options.filename)
            name = os.path.join(directory, stored_name) if is_plain(stored_name) else stored_name
        below = self._above.below()
        try:
            node = await self.scheduler.apart(below.open(name, tree))
        except UsageError as error:
            raise UsageError(f"Could not open backing file: {error}") from None
        except ImageError as error:
            raise ImageError(options.filename, f"backing file {error.file}", error.what) from error
        self._above.debug_nodes += below.debug_nodes
        return node


def raw_window(taken: Taken, file: Node) -> dict[str, Any]:
    """Take offset and size of raw; nothing for the whole file. Raises UsageError."""
    offset, size = taken.size("offset"), taken.size("size")
    if offset is None and size is None:
        return {}
    offset = offset or 0
    if size is not None and size % 512:
        raise UsageError("Specified size is not multiple of 512")
    if size is not None and offset + size > file.size:
        what = f"The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size"
        raise UsageError(f"{what} of the containing file ({file.size})")
    if offset > file.size:
        raise UsageError(f"Offset ({offset}) cannot be greater than size of the containing file ({file.size})")
    return {"offset": offset} | ({} if size is None else {"size": size})


def passes_discards(taken: Taken, default: bool = True) -> bool:
    """Take the option discard of any node. Raises UsageError."""
    mode = taken.any("discard")
    if mode is None:
        return default
    if mode not in DISCARD_MODES:
        raise UsageError("Invalid discard option")
    return DISCARD_MODES[mode]


# -- protocols ------------------------------------------------------------------------------------


async def _open_file(opener: TreeOpener, taken: Taken) -> Node:
    filename = taken.text("filename")
    if not filename:
        raise UsageError("The 'file' block driver requires a file name")
    for key in ("locking", "aio", "x-check-cache-dropped", "drop-cache", "aio-max-batch", "pr-manager"):
        taken.any(key)
    taken.finish()
    return await FileNode.open(
        filename.removeprefix("file:"),
        opener.opener.engine,
        read_only=opener.read_only,
        cache=opener.cache,
        force_share=opener.force_share,
    )


async def _open_null(opener: TreeOpener, taken: Taken) -> Node:
    size = as_size("size", taken.any("size", NULL_BYTES))
    taken.size("latency-ns")
    read_zeroes = bool(taken.switch("read-zeroes", False))
    taken.text("filename")
    taken.finish()
    name = f"{taken.driver}://"
    return NullNode(opener.opener.scheduler, size, name=name, read_only=opener.read_only, read_zeroes=read_zeroes)


async def _child(opener: TreeOpener, taken: Taken, key: str, named: str) -> Tree:
    """The tree of a child, given as a tree or by a name under another key. Raises UsageError."""
    tree = taken.tree(key)
    name = taken.text(named)
    if tree is None and name is not None:
        tree = parse_name(name)
    if tree is None:
        raise UsageError(f'A block device must be specified for "{key}"')
    return tree


async def _open_blkdebug(opener: TreeOpener, taken: Taken) -> Node:
    from e2kdisk.block.blkdebug import BlkdebugNode, parse_config, parse_rules

    config = taken.text("config")
    rules = []
    if config:
        rules = parse_rules(Taken("blkdebug", parse_config(_read_config(config))))
    rules += parse_rules(taken)
    tree = await _child(opener, taken, "image", "x-image")
    taken.text("filename")
    taken.finish()
    node = BlkdebugNode(await opener.protocol(tree), rules, opener.say)
    opener.debug_nodes.append(node)
    return node


def _read_config(filename: str) -> str:
    try:
        with open(filename, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"Could not read blkdebug config file: {error.strerror}") from None


async def _open_blkverify(opener: TreeOpener, taken: Taken) -> Node:
    from e2kdisk.block.blkverify import BlkverifyNode

    raw_tree = await _child(opener, taken, "raw", "x-raw")
    test_tree = await _child(opener, taken, "test", "x-image")
    taken.text("filename")
    taken.finish()
    raw = await opener.protocol(raw_tree)
    try:
        tree = test_tree if "driver" in test_tree and test_tree["driver"] in FORMATS else {"file": test_tree}
        below = opener.beside()
        test = await below.open(None, tree)
    except BaseException:
        await raw.close()
        raise
    opener.debug_nodes += below.debug_nodes
    return BlkverifyNode(raw, test)


PROTOCOLS: dict[str, Callable[[TreeOpener, Taken], Awaitable[Node]]] = {
    "file": _open_file,
    "host_device": _open_file,
    "null-co": _open_null,
    "null-aio": _open_null,
    "blkdebug": _open_blkdebug,
    "blkverify": _open_blkverify,
}
"""Driver -> what opens it from its options."""
