"""OpenPolicy: the one gate that decides which files an image may make us open.

An image is data from anywhere; the file names inside it (backing file, external data file) are requests of
whoever wrote it, not of our user (CVE-2015-5163, CVE-2024-4467, CVE-2024-32498). A file that the user
names never asks here; a file that an image names always does.
"""

from __future__ import annotations

import os

from e2kdisk.errors import ImageError


class OpenPolicy:
    """Which implicit files may be opened; the default is safe for images from strangers."""

    __slots__ = ("anywhere", "implicit", "max_depth", "trees")

    def __init__(
        self, implicit: bool = True, anywhere: bool = False, trees: tuple[str, ...] = (), max_depth: int = 200
    ) -> None:
        self.implicit = implicit
        """Whether an image may make us open any other file."""
        self.anywhere = anywhere
        """Whether that file may lie outside the directory tree of the image that names it, and outside `trees`."""
        self.trees = trees
        """More directory trees in which implicit files may lie."""
        self.max_depth = max_depth
        """Most files in a chain."""

    @classmethod
    def permissive(cls) -> OpenPolicy:
        """Files anywhere: for a command line whose user trusts his images, as qemu does."""
        return cls(anywhere=True)

    @classmethod
    def deny(cls) -> OpenPolicy:
        """No implicit files at all."""
        return cls(implicit=False)

    def check(self, role: str, path: str, parent: str) -> None:
        """Raise ImageError, naming the option that would allow it, if the image parent may not open path as role.

        Symbolic links count as what they lead to.
        """
        if not self.implicit:
            raise ImageError(parent, f"{role} file", f"{path}: refused; OpenPolicy(implicit=True) would allow it")
        if self.anywhere:
            return
        real = os.path.realpath(path)
        tree = os.path.realpath(os.path.dirname(parent) or ".")
        for allowed in (tree, *map(os.path.realpath, self.trees)):
            if real.startswith(os.path.join(allowed, "")):
                return
        what = f"{path}: lies outside {tree}; OpenPolicy(trees=[{os.path.dirname(real)!r}]) or "
        raise ImageError(parent, f"{role} file", what + "OpenPolicy.permissive() would allow it")
