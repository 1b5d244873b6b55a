"""The names of images: paths, "file:", "json:{...}", "null-co://", lists of options, trees of options."""

from __future__ import annotations

import os

from e2kdisk.errors import UsageError
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.keyval import Tree, json_tree, nest, pairs

OTHER_PROTOCOLS = (
    "nbd", "ssh", "sftp", "http", "https", "ftp", "ftps", "iscsi", "rbd", "gluster", "nfs", "vvfat", "fat",
    "quorum", "nvme", "host_cdrom", "blklogwrites", "copy-on-read",
)  # fmt: skip


def parse_name(name: str, directory: str = "") -> Tree:
    """The tree of options that a file name stands for; relative paths are in directory. Raises Failure."""
    if name.startswith("json:"):
        return json_tree(name[5:], name)
    for protocol in ("null-co", "null-aio"):
        if name.startswith(f"{protocol}://"):
            return {"file": {"driver": protocol}}
    if name.startswith("file:"):
        return {"file": {"filename": os.path.join(directory, name[5:])}}
    if name.startswith("host_device:"):
        return {"file": {"driver": "host_device", "filename": name[12:]}}
    protocol, colon, _ = name.partition(":")
    if protocol in ("blkdebug", "blkverify"):
        from e2kdisk.block.tree import parse_name as parse_protocol

        try:
            return {"file": parse_protocol(name)}
        except UsageError as error:
            raise Failure(f"Could not open '{name}': {error}") from None
    if colon and "/" not in protocol:
        if protocol in OTHER_PROTOCOLS:
            raise Failure(f"Could not open '{name}': protocol '{protocol}' is not supported, only file and null-co")
        raise Failure(f"Could not open '{name}': Unknown protocol '{protocol}'")
    return {"file": {"filename": os.path.join(directory, name)}}


def option_tree(text: str) -> Tree:
    """The tree of --image-opts. Raises Failure."""
    flat = dict(pairs(text, "file"))
    if set(flat) == {"file"} and "=" not in text.partition(",")[0]:
        raise Failure(f"Could not open '{text}': Cannot find device='{flat['file']}' nor node-name='{flat['file']}'")
    if not any(key == "file" or key.startswith("file.") or key == "filename" for key in flat) and flat.get(
        "driver"
    ) not in ("null-co", "null-aio", "blkdebug", "blkverify"):
        raise Failure(f"Could not open '{text}': A block device must be specified for \"file\"")
    return nest(flat)


def file_tree(tree: Tree, driver: object) -> Tree:
    """The part of a tree that names the file. Raises UsageError."""
    file = tree.get("file")
    if isinstance(file, dict):
        return file
    if isinstance(file, str):
        raise UsageError(f"Cannot find device='{file}' nor node-name='{file}'")
    if "filename" in tree:
        return {"filename": tree["filename"]}
    return {}
