"""The stream of JSON values that QMP is: values end where their brackets do, whatever the lines."""

from __future__ import annotations

import json
from typing import Any

MESSAGE_MAX = 4 << 20
"""Most bytes of one message."""
NESTING_MAX = 1024
"""Most brackets inside each other, as in QEMU."""
START_ANEW = 0xFF
"""What came before this byte is forgotten: clients get rid of the rest of a message so."""
_BACKSLASH = ord("\\")


class BadJson(ValueError):
    """What came is no JSON value; the text says why."""


class JsonStream:
    """Takes a stream apart. Strings may have single quotes, too, as QEMU's own tests write them."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._looked = 0
        """How far the first value has been looked through."""
        self._depth = 0
        self._quote = 0
        self._escaped = self._begun = False

    def feed(self, data: bytes) -> None:
        """Append what has come."""
        self._text += data

    def next(self) -> tuple[Any] | None:
        """The next value, in a tuple since it may be None; None when it is not all there yet. Raises BadJson."""
        while self._looked < len(self._text):
            byte = self._text[self._looked]
            self._looked += 1
            if byte == START_ANEW:
                del self._text[: self._looked]
                self._restart()
            elif self._quote:
                self._in_string(byte)
            elif self._ends_at(byte):
                return (self._take(),)
            elif self._depth > NESTING_MAX:
                raise self._broken("JSON nesting depth limit exceeded")
        if not self._begun:
            self._text.clear()
            self._restart()
        if len(self._text) > MESSAGE_MAX:
            raise self._broken("JSON token size limit exceeded")
        return None

    def _ends_at(self, byte: int) -> bool:
        """Take a byte outside of strings; whether the value ends with it."""
        if byte in b" \t\r\n":
            return self._begun and self._depth == 0  # a number, a word
        self._begun = True
        if byte in b"\"'":
            self._quote = byte
        elif byte in b"{[":
            self._depth += 1
        elif byte in b"}]":
            self._depth -= 1
            return self._depth <= 0
        return False

    def _in_string(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == _BACKSLASH:
            self._escaped = True
        elif byte == self._quote:
            self._quote = 0

    def _take(self) -> Any:
        text = bytes(self._text[: self._looked])
        del self._text[: self._looked]
        self._restart()
        try:
            return parse(text.decode("utf-8"))
        except (ValueError, RecursionError):
            raise BadJson("JSON parse error, invalid value") from None

    def _restart(self) -> None:
        self._looked = self._depth = self._quote = 0
        self._escaped = self._begun = False

    def _broken(self, why: str) -> BadJson:
        self._text.clear()
        self._restart()
        return BadJson(why)


def parse(text: str) -> Any:
    """One JSON value, with strings in either kind of quotes. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(_double_quoted(text))


def _double_quoted(text: str) -> str:
    """The same with double quotes around every string."""
    made: list[str] = []
    quote, escaped = "", False
    for character in text:
        if not quote and character in "\"'":
            quote, character = character, '"'
        elif escaped:
            escaped = False
            if character == "'":
                made.pop()  # no escape in JSON
        elif character == "\\" and quote:
            escaped = True
        elif character == quote and quote:
            quote, character = "", '"'
        elif character == '"' and quote:
            character = '\\"'
        made.append(character)
    return "".join(made)
