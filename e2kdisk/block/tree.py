"""Trees of options: a chain of nodes described as data, where one file name does not say enough.

disk.qcow2                                                   a name; so are file:disk.qcow2 and null-co://
blkdebug:rules.conf:disk.qcow2    blkverify:good.raw:disk.qcow2
json:{"driver": "qcow2", "file": {"driver": "file", "filename": "disk.qcow2"}}
driver=qcow2,file.driver=blkdebug,file.image.filename=disk.qcow2,file.inject-error.0.event=write_aio

All of them become nested dicts: keys with dots are taken apart, a list is a dict with the keys "0", "1", ...
"""

from __future__ import annotations

from collections.abc import Mapping

from e2kdisk.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = dict[str, Any]
    """Option -> text, number, bool, None, or a Tree of its own."""
else:
    Tree = dict

SIZE_HELP = (
    "expects a non-negative number below 2^64\n"
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)
"""What QEMU says of a size that is none; programs compare it."""

_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SWITCHES = {"on": True, "yes": True, "true": True, "y": True, "off": False, "no": False, "false": False, "n": False}


def parse_json(text: str) -> Tree:
    """Parse what follows "json:". Raises UsageError."""
    import json

    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"Could not parse the JSON options: {error}") from None
    if not isinstance(value, dict):
        raise UsageError("Invalid JSON object given")
    return nested(value)


def parse_pairs(text: str) -> tuple[Tree, list[str]]:
    """Parse "key=value,..."; a comma in a value is written twice. The names that had no value come second."""
    flat: Tree = {}
    bare = []
    for part in text.replace(",,", "\0").split(","):
        if not part and not flat:
            continue
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals and key:
            bare.append(key)
            value = "on"
        if key or equals:
            flat[key] = value
    return nested(flat), bare


def nested(flat: Mapping[str, Any]) -> Tree:
    """Take keys with dots and lists apart. Raises UsageError for a key that is a value and a tree."""
    tree: Tree = {}
    for key, value in flat.items():
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            value = nested(value)
        *path, last = key.split(".") if key else [""]
        place = tree
        for step in path:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise UsageError(f"Cannot mix scalar and non-scalar keys: {key}")
        known = place.get(last)
        if isinstance(known, dict) and isinstance(value, dict):
            known.update(value)
        elif last in place and isinstance(known, dict) != isinstance(value, dict):
            raise UsageError(f"Cannot mix scalar and non-scalar keys: {key}")
        else:
            place[last] = value
    return tree


def parse_name(name: str) -> Tree:
    """The tree of a protocol name; a plain file name, or one after "file:", becomes {"filename": ...}.

    Raises UsageError for a protocol that is unknown or a name that lacks a part.
    """
    if name.startswith("json:"):
        return parse_json(name[5:])
    if ":" not in name.partition("/")[0]:
        return {"filename": name}
    protocol, _, rest = name.partition(":")
    if protocol == "file":
        return {"driver": "file", "filename": rest}
    if protocol == "blkdebug":
        config, colon, image = rest.partition(":")
        if not colon:
            raise UsageError("blkdebug requires both config file and image path")
        return {"driver": "blkdebug", "image": parse_name(image)} | ({"config": config} if config else {})
    if protocol == "blkverify":
        raw, colon, image = rest.partition(":")
        if not colon:
            raise UsageError("blkverify requires raw copy and original image path")
        return {"driver": "blkverify", "raw": parse_name(raw), "test": parse_name(image)}
    if protocol in ("null-co", "null-aio"):
        if rest != "//":
            raise UsageError(f"The only allowed filename for this driver is '{protocol}://'")
        return {"driver": protocol}
    raise UsageError(f"Unknown protocol '{protocol}'")


def is_plain(name: str) -> bool:
    """Whether a name is a file's, with no protocol before it."""
    return ":" not in name.partition("/")[0]


class Taken:
    """Takes the options of one driver out of a tree, each with its type; what is left over is refused by finish()."""

    def __init__(self, driver: str, tree: Tree, *, kind: str = "protocol") -> None:
        self.driver = driver
        self.kind = kind
        self.given = frozenset(tree)
        """The keys that the tree had."""
        self._rest = dict(tree)

    def any(self, key: str, default: Any = None) -> Any:
        """The value as it is."""
        return self._rest.pop(key, default)

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text. Raises UsageError."""
        value = self._rest.pop(key, default)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"Parameter '{key}' must be a text")
        return value

    def switch(self, key: str, default: bool | None = None) -> bool | None:
        """On or off. Raises UsageError."""
        value = self._rest.pop(key, default)
        return value if value is None else as_switch(key, value)

    def size(self, key: str, default: int | None = None) -> int | None:
        """A number of bytes. Raises UsageError."""
        value = self._rest.pop(key, default)
        return value if value is None else as_size(key, value)

    def tree(self, key: str) -> Tree | None:
        """A tree of its own; None if there is none. Raises UsageError for a name of a node, which we have not."""
        value = self._rest.pop(key, None)
        if isinstance(value, str):
            raise UsageError(f"Cannot find device='{value}' nor node-name='{value}'")
        assert value is None or isinstance(value, dict)
        return value

    def items(self, key: str) -> list[Tree]:
        """The trees of a list, in order. Raises UsageError."""
        value = self._rest.pop(key, None) or {}
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise UsageError(f"Parameter '{key}' must be a list")
        return list(value.values())

    def finish(self) -> None:
        """Raise UsageError for an option that nobody has taken."""
        for key in flattened(self._rest):
            if self.kind == "format":
                raise UsageError(f"Block format '{self.driver}' does not support the option '{key}'")
            raise UsageError(f"Block protocol '{self.driver}' doesn't support the option '{key}'")


def flattened(tree: Tree, prefix: str = "") -> Tree:
    """The other way round: one level, keys with dots."""
    flat: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def as_switch(key: str, value: object) -> bool:
    """Read on or off. Raises UsageError."""
    if isinstance(value, str) and value in _SWITCHES:
        return _SWITCHES[value]
    if not isinstance(value, bool):
        raise UsageError(f"Parameter '{key}' expects 'on' or 'off'")
    return value


def as_size(key: str, value: object) -> int:
    """Read a number of bytes such as 65536, 64k, 1.5M. Raises UsageError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        number, shift = (value[:-1], _UNITS[value[-1].lower()]) if value[-1:].lower() in _UNITS else (value, 0)
        if number.isascii() and number.isdigit():
            return int(number) << shift
        if number.lower().startswith("0x") and shift == 0:
            try:
                return int(number, 16)
            except ValueError:
                pass
    raise UsageError(f"Parameter '{key}' {SIZE_HELP}")
