"""The few error classes of the package; each is one line that names what and where."""

from __future__ import annotations


class E2kDiskError(Exception):
    """Base of every error that a user can cause; its text is one complete line."""


class ImageError(E2kDiskError):
    """An image that cannot be used: names the file, the field or offset in it, and what is wrong.

    >>> str(ImageError("disk.qcow2", "L1 entry 12 (offset 0x30060)", "points past the end of the file"))
    'disk.qcow2: L1 entry 12 (offset 0x30060): points past the end of the file'
    """

    def __init__(self, file: str, where: str, what: str) -> None:
        super().__init__(f"{file}: {where}: {what}" if where else f"{file}: {what}")
        self.file = file
        self.where = where
        self.what = what


class UnsupportedFeature(ImageError):
    """A valid image that uses a feature which this version does not implement; names the feature."""


class CorruptImage(ImageError):
    """Metadata that contradicts itself, found before anything was written because of it."""


class UsageError(E2kDiskError):
    """A wrong option, command line or call; says what would be right."""


class DeadlockError(E2kDiskError):
    """Requests wait for each other and nothing is left that could wake one."""


class MismatchError(E2kDiskError):
    """Two copies of a disk that must be the same read differently."""
