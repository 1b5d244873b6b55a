"""JSON in the form that QEMU's programs print: four spaces, keys in the order given."""

from __future__ import annotations

from collections.abc import Iterator


def json_text(value: object, indent: int = 0) -> str:
    """Return a value as JSON.

    >>> print(json_text({"a": [1, True], "b": {}}))
    {
        "a": [
            1,
            true
        ],
        "b": {
        }
    }
    """
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        items = [f"{inner}{_string(str(key))}: {json_text(item, indent + 4)}" for key, item in value.items()]
        return _between("{}", items, indent)
    if isinstance(value, (list, tuple)):
        return _between("[]", [inner + json_text(item, indent + 4) for item in value], indent)
    return scalar(value)


def json_line(value: object) -> str:
    """Return a value as JSON on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(str(key))}: {json_line(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_line, value)) + "]"
    return scalar(value)


def scalar(value: object) -> str:
    """Return a text, number or truth value as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _string(value) if isinstance(value, str) else str(value)


def _between(brackets: str, items: list[str], indent: int) -> str:
    lines = ",\n".join(items)
    return f"{brackets[0]}\n{lines}{chr(10) if items else ''}{' ' * indent}{brackets[1]}"


def _string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_escaped(text)) + '"'


_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(text: str) -> Iterator[str]:
    for character in text:
        code = ord(character)
        if character in _SHORT:
            yield _SHORT[character]
        elif 0x20 <= code < 0x7F:
            yield character
        elif 0xDC80 <= code <= 0xDCFF:
            yield "\\uFFFD"  # a byte that is no text
        elif code > 0xFFFF:
            code -= 0x10000
            yield f"\\u{0xD800 | code >> 10:04X}\\u{0xDC00 | code & 0x3FF:04X}"
        else:
            yield f"\\u{code:04X}"
