"""--object of QEMU's programs: the secret it describes, and what is wrong with it in QEMU's words."""

from __future__ import annotations

import os
import re

from e2kdisk.block.tree import parse_pairs
from e2kdisk.crypto.secret import Secrets
from e2kdisk.errors import UsageError

_KNOWN = ("id", "data", "file", "format", "keyid", "iv")
_IDENTIFIER = r"[A-Za-z][A-Za-z0-9\-._]*"
_NO_IDENTIFIER = (
    "Parameter 'id' expects an identifier\n"
    "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
)


def add_object(secrets: Secrets, text: str) -> None:
    """Obey --object secret,id=NAME,... or its form as JSON. Raises UsageError."""
    options = _options(text)
    kind = options.pop("qom-type", None)
    if kind is None:
        raise UsageError("Parameter 'qom-type' is missing")
    if kind != "secret":
        raise UsageError(f"Parameter 'qom-type' does not accept value '{kind}'")
    if "id" not in options:
        raise UsageError("Parameter 'id' is missing")
    name = options["id"]
    unreadable = _unreadable(options["file"]) if "file" in options and "data" not in options else ""
    unknown = next((key for key in options if key not in _KNOWN), None)
    rules = (
        (unknown is not None, f"Parameter '{unknown}' is unexpected"),
        (
            options.get("format", "raw") not in ("raw", "base64"),
            f"Parameter 'format' does not accept value '{options.get('format')}'",
        ),
        (re.fullmatch(_IDENTIFIER, name) is None, _NO_IDENTIFIER),
        ("data" in options and "file" in options, "'file' and 'data' are mutually exclusive"),
        ("data" not in options and "file" not in options, "Either 'file' or 'data' must be provided"),
        (unreadable != "", f"Unable to read {unreadable}"),
        (
            options.get("format") == "base64" and re.search(r"[^A-Za-z0-9+/=\n]", options.get("data", "")) is not None,
            "Base64 data contains invalid characters",
        ),
        (
            "keyid" in options and options["keyid"] not in secrets.names,
            f"No secret with id '{options.get('keyid')}'",
        ),
        (name in secrets.names, f"attempt to add duplicate property '{name}' to object (type 'container')"),
    )
    for wrong, what in rules:
        if wrong:
            raise UsageError(what)
    if "keyid" not in options:
        options.pop("iv", None)  # which nothing needs then
    secrets.add(options)


def _options(text: str) -> dict[str, str]:
    if not text.startswith("{"):
        flat, bare = parse_pairs(text)
        first = text.partition(",")[0]
        if first in bare:  # the first word alone is the value of qom-type
            flat = {"qom-type": first} | {key: value for key, value in flat.items() if key != first}
        return {key: str(value) for key, value in flat.items()}
    import json

    try:
        options = json.loads(text)
    except ValueError as error:
        raise UsageError(f"JSON parse error, {error}") from None
    for key, value in options.items():
        if not isinstance(value, str):
            raise UsageError(f"Invalid parameter type for '{key}', expected: string")
    return dict(options)


def _unreadable(path: str) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except IsADirectoryError:
        return f"{path}: Error reading file “{path}”: Is a directory"
    except OSError as error:
        return f"{path}: Failed to open file “{path}”: {os.strerror(error.errno or 5)}"
    return ""
