"""OpenOptions: everything that may be said about opening one image, and the cache modes by name."""

from __future__ import annotations

from collections.abc import Mapping

from e2kdisk.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class CacheMode:
    """What a cache mode means for a file and for the disk on top of it."""

    __slots__ = ("direct", "no_flush", "writethrough")

    def __init__(self, direct: bool = False, writethrough: bool = False, no_flush: bool = False) -> None:
        self.direct = direct
        """Past the host's page cache (O_DIRECT)."""
        self.writethrough = writethrough
        """Every write is flushed before it completes.

        The Disk does it, not the file: a format's metadata waits in caches that O_DSYNC on the file would not reach,
        while each of its small table writes would pay for it.
        """
        self.no_flush = no_flush
        """Flushes do nothing: a host crash may lose everything, a crash of this process nothing."""


CACHE_MODES: Mapping[str, CacheMode] = {
    "writeback": CacheMode(),
    "writethrough": CacheMode(writethrough=True),
    "none": CacheMode(direct=True),
    "directsync": CacheMode(direct=True, writethrough=True),
    "unsafe": CacheMode(no_flush=True),
}


def cache_mode(name: str) -> CacheMode:
    """Look up a cache mode. Raises UsageError that names the known ones."""
    try:
        return CACHE_MODES[name]
    except KeyError:
        raise UsageError(f"unknown cache mode {name!r}; known are {', '.join(CACHE_MODES)}") from None


class OpenOptions:
    """How to open one image; an Opener turns it into a Node."""

    def __init__(
        self,
        filename: str,
        format: str | None = None,
        read_only: bool = False,
        cache: str = "writeback",
        force_share: bool = False,
        no_backing: bool = False,
        backing: OpenOptions | None = None,
        extras: Mapping[str, Any] | None = None,
        parent: OpenOptions | None = None,
        identity: tuple[int, int] | None = None,
        backing_tree: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UsageError."""
        self.filename = filename
        """A path, or "file:" and a path."""
        self.format = format
        """Name in the table of formats; None: guessed from the first bytes."""
        self.read_only = read_only
        self.cache = cache
        """A key of CACHE_MODES; files that the image names are opened with the same mode."""
        self.force_share = force_share
        """Take no image locks: read an image although somebody writes to it. Only with read_only."""
        self.no_backing = no_backing
        """Ignore the backing file that the image names: what the image does not hold reads as zeros."""
        self.backing = backing
        """A backing file to use instead of the one that the image names."""
        self.backing_tree = backing_tree
        """Options of the backing file as a tree (tree.py), for openers that know trees."""
        self.extras: Mapping[str, Any] = extras or {}
        """Options of the format, such as l2_cache_size; a format refuses those that it does not know."""
        self.parent = parent
        """Set by the Opener: the image that names this one."""
        self.identity = identity
        """Set by the Opener: (st_dev, st_ino) of the open file, by which loops are recognised under any name."""
        cache_mode(self.cache)
        if self.force_share and not self.read_only:
            raise UsageError(f"{self.filename}: force_share needs read_only: two writers destroy an image")

    def with_(self, **changes: Any) -> OpenOptions:
        """Return a copy with some fields changed."""
        return OpenOptions(**(vars(self) | changes))

    def take_extras(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the format's options with defaults from known. Raises UsageError for one that is not in known."""
        for key in self.extras:
            if key not in known:
                names = ", ".join(known) or "none"
                raise UsageError(f"{self.filename}: unknown option {key!r}; known for this format: {names}")
        return {**known, **self.extras}

    def chain(self) -> list[OpenOptions]:
        """This image and those that led to it, the top first."""
        images = [self]
        while images[0].parent is not None:
            images.insert(0, images[0].parent)
        return images
