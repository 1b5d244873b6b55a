"""QEMU's options on a command line: "model,key=value,..." or a JSON object, and the values that they take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from e2kdisk.block.tree import Tree, as_switch, nested, parse_json
from e2kdisk.errors import UsageError


def parse(text: str, implied: str = "", renamed: Mapping[str, str] = MappingProxyType({})) -> Tree:
    """Parse an option; a comma in a value is written twice, a first part without "=" is the implied key's value.

    A later part without "=" is switched on, or off if it begins with "no". `renamed` are keys that are kept under
    another name, since they may be values and have options below them, too. Raises UsageError.
    """
    if text.startswith("{"):
        return parse_json(text)
    flat: Tree = {}
    # NUL cannot occur on a command line, so it can stand for a comma meanwhile.
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals and implied and not number:
            key, value = implied, key
        elif not equals:
            key, value = (key[2:], "off") if key.startswith("no") else (key, "on")
        if key:
            flat[renamed.get(key, key)] = value
    return nested(flat)


_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


class Properties:
    """The options of one thing; each is taken once, what is left over is refused by finish()."""

    def __init__(self, what: str, tree: Tree) -> None:
        self.what = what
        self._rest = dict(tree)

    def text(self, key: str, default: str = "") -> str:
        """A text, or anything else that JSON may have for one. Raises UsageError."""
        value = self._rest.pop(key, default)
        if isinstance(value, (dict, list)) or value is None:
            raise UsageError(f"Parameter '{key}' expects a text")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def identifier(self, key: str) -> str:
        """A name that somebody gives, "" if he does not. Raises UsageError."""
        name = self.text(key)
        if name and not _IDENTIFIER.fullmatch(name):
            raise UsageError(f"Parameter '{key}' expects a letter, then letters, digits, '-', '.' and '_'")
        return name

    def number(self, key: str, default: int | None = None) -> int | None:
        """A number in decimal or hexadecimal. Raises UsageError."""
        if key not in self._rest:
            return default
        text = self.text(key)
        try:
            value = int(text, 0)
        except ValueError:
            raise UsageError(f"Parameter '{key}' expects a number, not '{text}'") from None
        if value < 0:
            raise UsageError(f"Parameter '{key}' expects a number that is not negative")
        return value

    def switch(self, key: str, default: bool | None = None) -> bool | None:
        """On or off; "auto" is the default. Raises UsageError."""
        value = self._rest.pop(key, None)
        return default if value in (None, "auto") else as_switch(key, value)

    def must_be(self, key: str, *values: str) -> None:
        """Take an option that can only be what it is here anyway. Raises UsageError."""
        if key in self._rest and (value := self.text(key)) not in values:
            raise UsageError(f"{self.what}: {key}={value} is not modelled; it can be {' or '.join(values)}")

    def ignore(self, *keys: str) -> None:
        """Take options that make no difference here."""
        for key in keys:
            self._rest.pop(key, None)

    def rest(self) -> Tree:
        """What has not been taken; nothing is left."""
        rest, self._rest = self._rest, {}
        return rest

    def finish(self) -> None:
        """Raises UsageError for an option that nobody has taken."""
        for key in self._rest:
            raise UsageError(f"Property '{self.what}.{key}' not found")


SIZE_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def ram_size(text: str) -> int:
    """Bytes of RAM; a number without a unit is in MiB, as QEMU has it. Raises UsageError."""
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in SIZE_UNITS else (text, "m")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
        raise UsageError(f"'{text}' is not a size; write MiB, or a number with K, M, G or T")
    return int(digits) << SIZE_UNITS[unit]
