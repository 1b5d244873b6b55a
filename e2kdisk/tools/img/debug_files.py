"""Files that lie behind blkdebug or blkverify: opened as e2kdisk.block opens trees, said in the words of qemu-img."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from e2kdisk.block.node import Node
from e2kdisk.block.open import Opener
from e2kdisk.block.open_tree import TreeOpener
from e2kdisk.block.options import OpenOptions
from e2kdisk.block.tree import Tree, flattened, nested
from e2kdisk.tools.img.output import json_line

OpenFile = Callable[[Tree, OpenOptions], Awaitable[Node]]
"""Opens what is no blkdebug or blkverify."""


class DebugFiles(TreeOpener):
    """Opens such a tree; the files in it are opened by `open_file`."""

    def __init__(self, opener: Opener, options: OpenOptions, open_file: OpenFile) -> None:
        super().__init__(opener, options.read_only, options.cache, options.force_share)
        self._options = options
        self._open_file = open_file

    def beside(self) -> TreeOpener:
        """TreeOpener.beside."""
        return DebugFiles(self.opener, self._options, self._open_file)

    async def protocol(self, tree: Tree) -> Node:
        """TreeOpener.protocol."""
        tree = nested(tree)
        if tree.get("driver", "file") in ("file", "host_device"):
            return await self._open_file(tree, self._options)
        node = await super().protocol(tree)
        node.name = _name(tree, node)
        return node


def _name(tree: Tree, node: Node) -> str:
    """The name that stands for a tree; one that says more than a name can is shown as it is."""
    driver = tree.get("driver")
    if driver == "blkdebug" and set(tree) <= {"driver", "config", "image"}:
        return f"blkdebug:{tree.get('config', '')}:{node.file.name}"  # type: ignore[attr-defined]
    if driver == "blkverify" and set(tree) <= {"driver", "raw", "test"}:
        return f"blkverify:{node.raw.name}:{node.test.name}"  # type: ignore[attr-defined]
    return "json:" + json_line(flattened(tree))
