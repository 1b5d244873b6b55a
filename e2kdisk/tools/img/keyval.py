"""Option lists: "a=b,c=d" with ",," for a comma, and trees of options written with dots or as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from e2kdisk.tools.img.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = dict[str, Any]
else:
    Tree = dict


def pairs(text: str, implied: str | None = None) -> Iterator[tuple[str, str]]:
    """The keys and values of a list; a first part without "=" is the value of the implied key."""
    # NUL cannot occur on a command line, so it can stand for a comma meanwhile.
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        if not part:
            continue
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals and number == 0 and implied is not None:
            key, value = implied, key
        elif not equals:
            key, value = (key[2:], "off") if key.startswith("no") else (key, "on")
        yield key, value


def nest(flat: dict[str, Any]) -> Tree:
    """Turn {"file.filename": "x"} into {"file": {"filename": "x"}}."""
    tree: Tree = {}
    for key, value in flat.items():
        value = nest(value) if isinstance(value, dict) else value
        *path, last = key.split(".")
        place = tree
        for name in path:
            below = place.setdefault(name, {})
            if not isinstance(below, dict):
                raise Failure(f"Parameters '{name}.*' used inconsistently")
            place = below
        if isinstance(value, dict) and isinstance(place.get(last), dict):
            place[last].update(value)
        else:
            place[last] = value
    return tree


def json_tree(text: str, name: str) -> Tree:
    """The tree of a file name "json:{...}". Raises Failure."""
    import json

    try:
        value = json.loads(text)
    except ValueError:
        if not text.strip():
            raise Failure(
                f"Could not open '{name}': Could not parse the JSON options: Expecting a JSON value"
            ) from None
        closed = text.count("{") <= text.count("}")
        what = "invalid keyword" if closed else "premature EOI"
        raise Failure(f"Could not open '{name}': Could not parse the JSON options: JSON parse error, {what}") from None
    if not isinstance(value, dict):
        raise Failure(f"Could not open '{name}': Invalid JSON object given")
    return nest(value)
