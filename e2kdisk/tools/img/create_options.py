"""The options of -o for create, convert and amend: one table for help, parsing and the line "Formatting"."""

from __future__ import annotations

from collections.abc import Iterable

from e2kdisk.tools.img.errors import Failure
from e2kdisk.tools.img.keyval import pairs
from e2kdisk.tools.img.sizes import read_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

QCOW2 = {
    "backing_file": ("str", "File name of a base image"),
    "backing_fmt": ("str", "Image format of the base image"),
    "cluster_size": ("size", "qcow2 cluster size"),
    "compat": ("str", "Compatibility level (v2 [0.10] or v3 [1.1])"),
    "compression_type": ("str", "Compression method used for image cluster compression"),
    "data_file": ("str", "File name of an external data file"),
    "data_file_raw": ("bool (on/off)", "The external data file must stay valid as a raw image"),
    "encrypt.cipher-alg": ("str", "Name of encryption cipher algorithm"),
    "encrypt.cipher-mode": ("str", "Name of encryption cipher mode"),
    "encrypt.format": ("str", "Encrypt the image, format choices: 'aes', 'luks'"),
    "encrypt.hash-alg": ("str", "Name of encryption hash algorithm"),
    "encrypt.iter-time": ("num", "Time to spend in PBKDF in milliseconds"),
    "encrypt.ivgen-alg": ("str", "Name of IV generator algorithm"),
    "encrypt.ivgen-hash-alg": ("str", "Name of IV generator hash algorithm"),
    "encrypt.key-secret": ("str", "ID of secret providing qcow AES key or LUKS passphrase"),
    "encryption": ("bool (on/off)", "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
    "extended_l2": ("bool (on/off)", "Extended L2 tables"),
    "lazy_refcounts": ("bool (on/off)", "Postpone refcount updates"),
    "preallocation": ("str", "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    "refcount_bits": ("num", "Width of a reference count entry in bits"),
    "size": ("size", "Virtual disk size"),
}
RAW = {"size": ("size", "Virtual disk size")}
PROTOCOL = {
    "extent_size_hint": ("size", "Extent size hint for the image file, 0 to disable"),
    "nocow": ("bool (on/off)", "Turn off copy-on-write (valid only on btrfs)"),
    "preallocation": ("str", "Preallocation mode (allowed values: off, falloc, full)"),
}
AMEND = {name: QCOW2[name] for name in ("backing_file", "backing_fmt", "compat", "data_file", "data_file_raw")} | {
    "encrypt.iter-time": ("num", "Time to spend in PBKDF in milliseconds"),
    "encrypt.keyslot": ("num", "Select a single keyslot to modify explicitly"),
    "encrypt.new-secret": ("str", "New secret to set in the matching keyslots. Empty string to erase"),
    "encrypt.old-secret": ("str", "Select all keyslots that match this password"),
    "encrypt.state": ("str", "Select new state of affected keyslots (active/inactive)"),
    "lazy_refcounts": QCOW2["lazy_refcounts"],
    "refcount_bits": QCOW2["refcount_bits"],
    "size": QCOW2["size"],
}
FORMATS = {"qcow2": QCOW2, "raw": RAW}
SHOWN = {
    "qcow2": (
        *(name for name in QCOW2 if name.startswith("encrypt")),
        "cluster_size",
        "extended_l2",
        "preallocation",
        "compression_type",
        "size",
        "compat",
        "backing_file",
        "backing_fmt",
        "data_file",
        "data_file_raw",
        "lazy_refcounts",
        "refcount_bits",
        "nocow",
        "extent_size_hint",
    ),
    "raw": ("size", "nocow", "preallocation", "extent_size_hint"),
}
"""The order of the line "Formatting"."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "qcow2": {
        "cluster_size": 65536,
        "extended_l2": False,
        "compression_type": "zlib",
        "lazy_refcounts": False,
        "refcount_bits": 16,
    },
    "raw": {},
}
SIZE_HELP = (
    "expects a non-negative number below 2^64\n"
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)


def wants_help(texts: Iterable[str]) -> bool:
    """Whether -o help or -o ? was given."""
    return any(part in ("help", "?") for text in texts for part in text.split(","))


def join(texts: Iterable[str]) -> str:
    """All values of -o as one list. Raises Failure."""
    for text in texts:
        if text.startswith(",") or (text.endswith(",") and not text.endswith(",,")) or not text:
            raise Failure(f"Invalid option list: {text}")
    return ",".join(texts)


def help_text(title: str, options: dict[str, tuple[str, str]]) -> str:
    """What -o help prints of a table."""
    width = 22
    lines = [title]
    for name in sorted(options):
        kind, what = options[name]
        lines.append(f"  {f'{name}=<{kind}>':{width}} - {what}")
    return "\n".join(lines) + "\n"


def format_help(format: str, with_protocol: bool) -> str:
    """What `create -o help` prints."""
    options = FORMATS[format]
    if with_protocol:
        return help_text("Supported options:", PROTOCOL | options)
    hint = "\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n"
    return help_text(f"Supported {format} options:", options) + hint


def parse(text: str, options: dict[str, tuple[str, str]], prefix: str = "") -> dict[str, Any]:
    """Parse a list into values of the table's types. Raises Failure, its text beginning with prefix."""
    values: dict[str, Any] = {}
    for key, value in pairs(text):
        if key not in options:
            raise Failure(f"{prefix}Invalid parameter '{key}'")
        values[key] = convert(key, value, options[key][0], prefix)
    return values


def convert(key: str, text: str, kind: str, prefix: str) -> Any:
    """One value. Raises Failure."""
    if kind == "size":
        number = read_size(text)
        if number is None or number >= 1 << 64:
            raise Failure(f"{prefix}Parameter '{key}' {SIZE_HELP}")
        return number
    if kind == "num":
        if not text.isascii() or not text.isdigit():
            raise Failure(f"{prefix}Parameter '{key}' expects a number")
        return int(text)
    if kind.startswith("bool"):
        if text not in ("on", "off"):
            raise Failure(f"{prefix}Parameter '{key}' expects 'on' or 'off'")
        return text == "on"
    return text


def formatting(filename: str, format: str, values: dict[str, Any]) -> str:
    """The line that create prints before it begins."""
    values = DEFAULTS[format] | values
    parts = [f"Formatting '{filename}', fmt={format}"]
    for name in SHOWN[format]:
        value = values.get(name)
        if value is None:
            continue
        parts.append(f"{name}={('on' if value else 'off') if isinstance(value, bool) else value}")
    return " ".join(parts)
