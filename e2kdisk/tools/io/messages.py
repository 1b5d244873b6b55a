"""Errors in the words that scripts know from qemu-io: what our layers say in one line, translated."""

from __future__ import annotations

import errno
import os

from e2kdisk.errors import E2kDiskError, ImageError, MismatchError, UsageError


def request_error(error: Exception) -> str:
    """Why a request failed: the name of an errno, as the C library spells it. An error of another kind is raised."""
    if isinstance(error, MismatchError):
        raise error
    if isinstance(error, OSError):
        return os.strerror(error.errno or errno.EIO)
    if isinstance(error, UsageError):
        return os.strerror(errno.EINVAL)
    if isinstance(error, ImageError):
        cause = error.__cause__
        return os.strerror(cause.errno or errno.EIO) if isinstance(cause, OSError) else os.strerror(errno.EIO)
    raise error


def explains(error: Exception) -> str | None:
    """What an error says beyond its errno, for a second line; None if nothing."""
    return str(error) if isinstance(error, ImageError) and not isinstance(error.__cause__, OSError) else None


def open_error(error: Exception, name: str, *, writing: bool = True) -> str:
    """Why an image could not be opened, without the name of the device."""
    if isinstance(error, OSError):
        return f"Could not open '{error.filename or name}': {os.strerror(error.errno or errno.EIO)}"
    if isinstance(error, ImageError):
        return _image_error(error, writing)
    if isinstance(error, E2kDiskError):
        return _translated(str(error))
    raise error


def _image_error(error: ImageError, writing: bool) -> str:
    inner = error.__cause__
    if error.where == "locked":
        shared = "" if writing else "shared "
        return f'Failed to get {shared}"write" lock\nIs another process using the image [{error.file}]?'
    if error.where.startswith("backing file"):
        if isinstance(inner, ImageError):
            return f"Could not open backing file: {_image_error(inner, False)}"
        return f"Could not open backing file: {error}"
    if isinstance(inner, OSError) and not error.where:
        return f"Could not open '{error.file}': {os.strerror(inner.errno or errno.EIO)}"
    if not error.where and error.what == "cannot be opened: it is a directory":
        return f"Could not open '{error.file}': {os.strerror(errno.EISDIR)}"
    if error.where == "magic" or (error.where == "header" and "only" in error.what):
        return "Image is not in qcow2 format"
    return str(error)


def _translated(text: str) -> str:
    if "unknown image format '" in text:
        return f"Unknown driver '{text.partition(chr(39))[2].partition(chr(39))[0]}'"
    if "is encrypted" in text:
        return "Parameter 'encrypt.key-secret' is required for cipher"
    return text
