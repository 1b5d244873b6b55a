"""Options that every node of a tree may have, and those of a file: obeyed, or refused in QEMU's words."""

from __future__ import annotations

from e2kdisk.block.open_tree import passes_discards
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.tree import Taken, Tree
from e2kdisk.errors import UsageError

NODE_KEYS = frozenset(
    {"read-only", "auto-read-only", "force-share", "cache", "node-name", "detect-zeroes", "discard"},
)
AIO_MODES = ("threads", "native", "io_uring")
LOCKING_MODES = ("on", "off", "auto")
ZERO_DETECTION = ("off", "on", "unmap")
_UNHEEDED = ("x-check-cache-dropped", "drop-cache", "aio-max-batch", "pr-manager")
"""They change nothing that can be seen."""


def with_node_options(tree: Tree, options: OpenOptions) -> OpenOptions:
    """What the options of a node make of how an image is opened. Raises UsageError."""
    taken = Taken(str(tree.get("driver", "qcow2")), {key: tree[key] for key in NODE_KEYS & set(tree)}, kind="format")
    if taken.switch("read-only") and not options.read_only:
        raise UsageError("Block node is read-only")
    if taken.switch("force-share"):
        if not options.read_only:
            raise UsageError("force-share=on can only be used with read-only images")
        options = options.with_(force_share=True)
    _need_one_of(taken.any("detect-zeroes", "off"), ZERO_DETECTION)
    passes_discards(taken)
    cache = taken.tree("cache")
    if cache is not None:
        flags = Taken(taken.driver, {f"cache.{key}": value for key, value in cache.items()}, kind="format")
        direct, no_flush = flags.switch("cache.direct"), flags.switch("cache.no-flush")
        flags.finish()
        if direct is not None:
            options = options.with_(cache="none" if direct else "writeback")
        if no_flush:
            options = options.with_(cache="unsafe")
    return options


def check_file_options(tree: Tree) -> None:
    """Judge what is said of a file besides its name. Raises UsageError."""
    taken = Taken("file", {key: value for key, value in tree.items() if key not in ("driver", "filename", *NODE_KEYS)})
    _need_one_of(taken.any("aio", "threads"), AIO_MODES)
    _need_one_of(taken.any("locking", "auto"), LOCKING_MODES)
    for key in _UNHEEDED:
        taken.any(key)
    taken.finish()


def _need_one_of(value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"invalid parameter value: {value}")
