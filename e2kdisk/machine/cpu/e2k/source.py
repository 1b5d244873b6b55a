"""Assembler source: tokens with their places, included files, and expressions over numbers and symbols."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from e2kdisk.errors import E2kDiskError


class AssemblyError(E2kDiskError):
    """A mistake in assembler source: "boot.s:12:9: what"."""

    def __init__(self, file: str, line: int, column: int, what: str) -> None:
        super().__init__(f"{file}:{line}:{column}: {what}")
        self.line = line
        self.column = column


class Token(NamedTuple):
    """One token; kind is "number", "string", "name", "mark", "newline" or "end"."""

    kind: str
    text: str
    line: int
    column: int
    file: str = ""


_PATTERN = re.compile(
    r"""
      (?P<space>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|[0-9][0-9_]*|'(?:[^'\\\n]|\\.)')
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<name>[A-Za-z_.$][\w.$]*)
    | (?P<mark>->|<<|>>|&&|[-+*/%&|^~()\[\]{},;:?=])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


def tokens(text: str, file: str) -> list[Token]:
    """All tokens of a source text."""
    found = []
    line, start, at = 1, 0, 0
    while at < len(text):
        match = _PATTERN.match(text, at)
        if match is None:
            raise AssemblyError(file, line, at - start + 1, f"{text[at]!r} is not part of the language")
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match[0], line, at - start + 1, file))
        at = match.end()
        if kind == "newline":
            line, start = line + 1, at
    found.append(Token("newline", "\n", line, at - start + 1, file))
    found.append(Token("end", "", line, at - start + 1, file))
    return found


INCLUDE = ".include"
MAX_TEXT = 64 << 20
"""Bytes of one source file."""


class Source:
    """The tokens of a text and of all that it includes, each file once, where it is first asked for."""

    def __init__(self, text: str, file: str) -> None:
        self.texts = {file: text}
        """By file name, as they stand in errors."""
        self._seen = {os.path.realpath(file)}
        self.tokens = self._expand(tokens(text, file))

    def _expand(self, found: list[Token]) -> list[Token]:
        expanded: list[Token] = []
        at = 0
        while at < len(found):
            token = found[at]
            at += 1
            if token.kind != "name" or token.text != INCLUDE:
                expanded.append(token)
                continue
            name = found[at]
            at += 1
            if name.kind != "string":
                raise AssemblyError(name.file, name.line, name.column, "the name of a file expected, in quotes")
            expanded += self._included(name)
        return expanded

    def _included(self, name: Token) -> list[Token]:
        path = os.path.join(os.path.dirname(name.file), unquote(name.text))
        real = os.path.realpath(path)
        if real in self._seen:
            return []
        self._seen.add(real)
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_TEXT + 1)
            if len(data) > MAX_TEXT:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            text = data.decode()
        except OSError as error:
            raise AssemblyError(name.file, name.line, name.column, f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            what = f"{path}: not UTF-8 text (offset {error.start:#x})"
            raise AssemblyError(name.file, name.line, name.column, what) from None
        self.texts[path] = text
        return self._expand(tokens(text, path)[:-1])


def unquote(text: str) -> str:
    """The content of a string or character."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1])


_LEVELS: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"|": int.__or__},
    {"^": int.__xor__},
    {"&": int.__and__},
    {"<<": int.__lshift__, ">>": int.__rshift__},
    {"+": int.__add__, "-": int.__sub__},
    {"*": int.__mul__, "/": int.__floordiv__, "%": int.__mod__},
)
"""Operators by how tightly they bind, as in C."""
MAX_SHIFT = 64


class Reader:
    """Walks over tokens."""

    def __init__(self, source: Source, symbol: Callable[[Token], int]) -> None:
        self._tokens = source.tokens
        self._at = 0
        self._symbol = symbol
        """Gives the value of a name or a string in an expression."""
        self.aliases: dict[str, str] = {}
        """Names that stand for other names: those of registers."""

    @property
    def token(self) -> Token:
        """The next token."""
        token = self._tokens[self._at]
        if token.kind == "name" and token.text in self.aliases:
            return token._replace(text=self.aliases[token.text])
        return token

    @property
    def following(self) -> Token:
        """The one after it."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def following_after_label(self) -> Token:
        """What comes after the label that is next, its colon, other labels and line ends."""
        at = self._at + 2
        while at < len(self._tokens) - 1:
            if self._tokens[at].kind == "newline":
                at += 1
            elif self._tokens[at].kind == "name" and self._tokens[at + 1].text == ":":
                at += 2
            else:
                break
        return self._tokens[min(at, len(self._tokens) - 1)]

    def next(self) -> Token:
        """Take a token."""
        token = self.token
        if token.kind != "end":
            self._at += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        """Take the next token if it is one of these."""
        if self.token.text in texts and self.token.kind in ("mark", "name", "newline"):
            return self.next()
        return None

    def expect(self, text: str) -> Token:
        """Take a token that must be there."""
        return self.accept(text) or self.fail(f"{text!r} expected, not {self._shown(self.token)}")

    def name(self, what: str) -> Token:
        """Take a name that must be there."""
        return (
            self.next() if self.token.kind == "name" else self.fail(f"{what} expected, not {self._shown(self.token)}")
        )

    def fail(self, what: str, token: Token | None = None) -> NoReturn:
        """Raise AssemblyError for a token, by default the next one."""
        token = token or self.token
        raise AssemblyError(token.file, token.line, token.column, what)

    @staticmethod
    def _shown(token: Token) -> str:
        return {"newline": "the end of the line", "end": "the end of the file"}.get(token.kind, repr(token.text))

    def expression(self, level: int = 0) -> int:
        """The value of an expression."""
        if level == len(_LEVELS):
            return self._term()
        value = self.expression(level + 1)
        while self.token.kind == "mark" and self.token.text in _LEVELS[level]:
            operator = self.next()
            right = self.expression(level + 1)
            if operator.text in "/%" and not right:
                self.fail("division by zero", operator)
            if operator.text in ("<<", ">>") and not 0 <= right <= MAX_SHIFT:
                self.fail(f"shift by {right}", operator)
            value = _LEVELS[level][operator.text](value, right)
        return value

    def _term(self) -> int:
        token = self.next()
        if token.kind == "number":
            return self._number(token)
        if token.kind in ("name", "string"):
            return self._symbol(token)
        match token.text if token.kind == "mark" else "":
            case "-":
                return -self._term()
            case "~":
                return ~self._term()
            case "+":
                return self._term()
            case "(":
                value = self.expression()
                self.expect(")")
                return value
        return self.fail(f"a number expected, not {self._shown(token)}", token)

    def _number(self, token: Token) -> int:
        if token.text.startswith("'"):
            return ord(unquote(token.text))
        try:
            return int(token.text.replace("_", ""), 0)
        except ValueError:
            self.fail(f"{token.text} is not a number", token)
