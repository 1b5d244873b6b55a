"""Make image files: what create, convert and dd have in common. Failures say the reason only."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from e2kdisk.block.node import zero_iov
from e2kdisk.errors import E2kDiskError, ImageError, UsageError
from e2kdisk.tools.img.create_options import DEFAULTS
from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.names import parse_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from e2kdisk.block.file import FileNode
    from e2kdisk.qcow2.create import CreateOptions
    from e2kdisk.tools.img.opening import Session

FIRST_BLOCK_BYTES = 4096
FILL_BYTES = 1 << 20
VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}


class TooLarge(Failure):
    """The host does not take a file of that size; `create` has other words for it than the rest."""


def target_path(filename: str) -> str:
    """The path of an image to be made. Raises Failure."""
    try:
        file = parse_name(filename).get("file", {})
    except Failure as error:
        raise Failure(error.text.removeprefix(f"Could not open '{filename}': ")) from None
    if "filename" not in file:
        raise Failure(f"Protocol driver '{file.get('driver', 'json')}' does not support image creation")
    return str(file["filename"])


def make_image(session: Session, filename: str, format: str, values: dict[str, Any]) -> None:
    """Create an image file with the values of a table of create_options. Raises Failure with the reason."""
    path = target_path(filename)
    options = None
    if format == "qcow2":
        options = qcow2_options(values)
    try:
        key_extras(session, values)  # before the old file is gone
    except UsageError:
        raise Failure(f"No secret with id '{values['encrypt.key-secret']}'") from None
    mode = values.get("preallocation", "off")
    if format == "raw" and mode not in ("off", "falloc", "full"):
        what = f"Unsupported preallocation mode: {mode}"
        raise Failure(what if mode == "metadata" else f"Parameter 'preallocation' does not accept value '{mode}'")
    if format == "raw" and values["size"] > (1 << 63) - (1 << 30):
        raise Failure("The image size is too large for file format 'raw'")
    try:
        session.run(_make(session, path, options, values, mode))
    except OSError as error:
        raise Failure(os.strerror(error.errno or 5)) from None
    if options is not None and mode != "off":
        _preallocate(session, path, options, mode, values)


def _preallocate(session: Session, path: str, options: CreateOptions, mode: str, values: dict[str, Any]) -> None:
    from e2kdisk.qcow2.image import Qcow2Image
    from e2kdisk.qcow2.preallocate import preallocate

    name = path if os.path.isabs(path) else f"./{path}"
    image = session.open(name, format="qcow2", writable=True, no_backing=True, extras=key_extras(session, values))
    assert isinstance(image.node, Qcow2Image)
    try:
        session.run(preallocate(image.node, 0, options.size, mode))
    except OSError as error:
        raise Failure(f"Could not preallocate data clusters: {os.strerror(error.errno or 5)}") from None
    finally:
        session.close(image)


async def _make(session: Session, path: str, options: CreateOptions | None, values: dict[str, Any], mode: str) -> None:
    file = await _open_new(session, path)
    try:
        await file.truncate(0)
        if options is not None:
            from e2kdisk.qcow2.create import format_file

            await format_file(file, options)
            return
        size = (values["size"] + 511) & -512
        try:
            await file.truncate(size)
        except OSError as error:
            what = f"Could not resize file: {os.strerror(error.errno or errno.EIO)}"
            raise (TooLarge(what) if error.errno == errno.EFBIG else Failure(what)) from None
        if mode in ("falloc", "full"):
            await _fill(file, size, mode)
        elif size:
            # Where the first block is a hole, programs cannot find out what alignment O_DIRECT wants.
            await file.write(0, [memoryview(bytes(min(FIRST_BLOCK_BYTES, size)))])
    finally:
        await file.close()


async def _fill(file: FileNode, size: int, mode: str) -> None:
    """Take the space of a new raw image now. Raises Failure; then the file is as small as before."""
    try:
        if mode == "full":
            for start in range(0, size, FILL_BYTES):
                await file.write(start, zero_iov(min(FILL_BYTES, size - start)))
        elif size:
            await file.reserve(0, size)
    except OSError as error:
        with suppress(OSError):
            await file.truncate(0)
        what = "Could not write zeros for preallocation" if mode == "full" else "Could not preallocate new data"
        raise Failure(f"{what}: {os.strerror(error.errno or errno.EIO)}") from None


def key_extras(session: Session, values: dict[str, Any]) -> dict[str, Any]:
    """What it takes to open the image that was made with these values."""
    secret = values.get("encrypt.key-secret")
    return {} if secret is None else {"key": session.secrets[secret].password}


async def _open_new(session: Session, path: str) -> FileNode:
    """Open a file for a new image, made if need be; it is emptied only when nobody else uses it."""
    from e2kdisk.block.file import FileNode
    from e2kdisk.tools.img.opening import file_reason

    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        return await FileNode.open(path, session.engine, read_only=False)
    except (OSError, ValueError) as error:
        what = os.strerror(error.errno or 5) if isinstance(error, OSError) else str(error)
        raise Failure(f"Could not create '{path}': {what}") from None
    except ImageError as error:
        raise Failure(file_reason(error, path, "create")) from None


def qcow2_options(given: dict[str, Any]) -> CreateOptions:
    """The engine's options for the values of the table. Raises Failure."""
    from e2kdisk.qcow2.create import CreateOptions

    values = DEFAULTS["qcow2"] | given
    version = _check(values)
    encryption = values.get("encrypt.format") or ("aes" if values.get("encryption") else None)
    if encryption is not None and "encrypt.key-secret" not in values:
        raise Failure("Parameter 'encrypt.key-secret' is required for cipher")
    options = CreateOptions(
        size=values["size"],
        version=version,
        cluster_size=values["cluster_size"],
        refcount_bits=values["refcount_bits"],
        backing_file=values.get("backing_file") or None,
        backing_format=values.get("backing_fmt"),
        lazy_refcounts=values["lazy_refcounts"],
        encrypted=encryption == "aes",
    )
    options.size = (options.size + 511) & -512
    try:
        options.header()
    except UsageError as error:
        if "larger cluster_size" in str(error) or "outside 0.." in str(error):
            text = "The image size is too large for file format 'qcow2' (try using a larger cluster size)"
            raise Failure(text) from None
        if "1023" in str(error):
            raise Failure("Could not set backing file: File name too long") from None
        raise Failure(str(error)) from None
    except E2kDiskError as error:
        raise Failure(str(error)) from None
    return options


def _check(values: dict[str, Any]) -> int:
    """Judge the values in the order in which qemu-img does; returns the version. Raises Failure."""
    compat = values.get("compat", "1.1")
    if compat not in VERSIONS:
        raise Failure(f"Parameter 'version' does not accept value '{compat}'")
    version = VERSIONS[compat]
    mode = values.get("preallocation", "off")
    encryption = values.get("encrypt.format")
    rules = (
        (
            mode not in ("off", "metadata", "falloc", "full"),
            f"Parameter 'preallocation' does not accept value '{mode}'",
        ),
        (encryption not in (None, "aes", "luks"), f"Parameter 'format' does not accept value '{encryption}'"),
        (
            values["compression_type"] not in ("zlib", "zstd"),
            f"Parameter 'compression-type' does not accept value '{values['compression_type']}'",
        ),
        (not _is_power(values["cluster_size"], 512, 2 << 20), _CLUSTER),
        (version < 3 and values["lazy_refcounts"], _needs("Lazy refcounts only supported with")),
        (
            not _is_power(values["refcount_bits"], 1, 64),
            "Refcount width must be a power of two and may not exceed 64 bits",
        ),
        (version < 3 and values["refcount_bits"] != 16, _REFCOUNTS),
        (
            version < 3 and values.get("data_file") is not None,
            _needs("External data files are only supported with"),
        ),
        (bool(values.get("data_file_raw")) and not values.get("data_file"), "data-file-raw requires data-file"),
        (version < 3 and values["compression_type"] != "zlib", _COMPRESSION),
        (
            values.get("backing_fmt") is not None and not values.get("backing_file"),
            "Backing format cannot be used without backing file",
        ),
        (encryption == "luks", "encrypt.format=luks is not supported yet"),
        (values["compression_type"] == "zstd", "compression_type=zstd is not supported yet"),
        (values["extended_l2"], "extended_l2=on is not supported yet"),
        (values.get("data_file") is not None, "data_file is not supported yet"),
    )
    for wrong, text in rules:
        if wrong:
            raise Failure(text)
    return version


def _is_power(value: int, least: int, most: int) -> bool:
    return least <= value <= most and value & (value - 1) == 0


def _needs(what: str) -> str:
    return f"{what} compatibility level 1.1 and above (use version=v3 or greater)"


_CLUSTER = "Cluster size must be a power of two between 512 and 2048k"
_REFCOUNTS = (
    "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)"
)
_COMPRESSION = (
    "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)"
)
