"""The grammar of wide instructions: tokens -> Wide. What is written where, the assembler's module says by example."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from e2kdisk.machine.cpu.e2k.decode import Guard, Prepare, SetBase, Transfer
from e2kdisk.machine.cpu.e2k.operations import OPERATIONS, Kind, Operation
from e2kdisk.machine.cpu.e2k.source import Reader, Token
from e2kdisk.machine.cpu.e2k.symbolic import AND, LOGICAL_AND, MOVE, Literal, Op, Operand, PredicateOp, Wide, Window

_REGISTER = re.compile(r"([brg])(0|[1-9]\d*)")
_PREDICATE = re.compile(r"p(0|[1-9]\d*)")
_CTPR = re.compile(r"ctpr([123])")
_LTS = re.compile(r"lts([0-3])\.(lo|hi|w|d)")
_FILES = {"r": (64, 0x80), "b": (128, 0), "g": (32, 0xE0)}
_LTS_FORMS = {"lo": 0xD0, "hi": 0xD4, "w": 0xD8, "d": 0xDC}
_LITERALS = {"lit16": 16, "lit32": 32, "lit64": 64}
MAS_FLAGS = {"io": 6, "be": 8, "ua": 16}


def is_reserved(name: str) -> bool:
    """Whether a name means something in a wide instruction, so that no symbol may have it."""
    patterns = (_REGISTER, _PREDICATE, _CTPR, _LTS)
    return name in _LITERALS or name in _CONTROL or any(pattern.fullmatch(name) for pattern in patterns)


def is_register(name: str) -> bool:
    """Whether it is the name of a register or predicate."""
    return any(pattern.fullmatch(name) for pattern in (_REGISTER, _PREDICATE))


@dataclass
class _Parts:
    """A wide instruction while it is read."""

    ops: list[Op] = field(default_factory=list)
    predicates: list[PredicateOp] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)


class InstructionReader:
    """Reads one wide instruction, at an address that branches are relative to."""

    def __init__(self, reader: Reader, address: int) -> None:
        self.reader = reader
        self.address = address
        self.parts = _Parts()

    def read(self) -> Wide:
        """A single item, or several in braces, separated by ; or line ends."""
        reader = self.reader
        if reader.accept("{"):
            while not reader.accept("}"):
                if reader.token.kind == "end":
                    reader.fail("'}' expected, not the end of the file")
                if not reader.accept(";", "\n"):
                    self._item()
                    if reader.token.text not in ("}", ";", "\n"):
                        reader.fail(f"';' or '}}' expected, not {reader.token.text!r}")
        else:
            self._item()
        parts = self.parts
        return Wide(tuple(parts.ops), tuple(parts.predicates), **parts.others)

    def _set(self, name: str, value: object, token: Token) -> None:
        if name in self.parts.others:
            self.reader.fail(f"{token.text}: only one of its kind fits a wide instruction", token)
        self.parts.others[name] = value

    # -- items ------------------------------------------------------------------------------------

    def _item(self) -> None:
        token = self.reader.name("an operation")
        name = token.text
        if name in OPERATIONS:
            self.parts.ops.append(self._operation(OPERATIONS[name]))
        elif name in _CONTROL:
            _CONTROL[name](self, token)
        elif _PREDICATE.fullmatch(name):
            self.parts.predicates.append(self._predicate_operation(token))
        else:
            self.reader.fail(f"no operation is called {name!r}", token)

    def _operation(self, operation: Operation) -> Op:
        reader = self.reader
        channel, speculative, mas = self._modifiers(operation)
        kind = operation.kind
        sources: tuple[Operand, ...]
        if kind is Kind.LOAD:
            sources = self._memory()
            reader.expect("->")
            target = self._register()
        elif kind is Kind.STORE:
            target = self._register()
            reader.expect("->")
            sources = self._memory()
        else:
            sources = self._sources(kind)
            reader.expect("->")
            target = self._target(kind)
        return Op(operation, channel, sources, target, speculative, self._guards(), mas)

    def _sources(self, kind: Kind) -> tuple[Operand, ...]:
        if kind in (Kind.UNARY, Kind.CONTROL):
            return (self._source2(),)
        first = self._source1()
        self.reader.expect(",")
        second = self._source2()
        if kind is not Kind.TERNARY:
            return (first, second)
        self.reader.expect(",")
        return (first, second, self._register())

    def _target(self, kind: Kind) -> int:
        if kind is Kind.COMPARE:
            return self._predicate()
        return self._ctpr() if kind is Kind.CONTROL else self._register()

    def _modifiers(self, operation: Operation) -> tuple[int | None, bool, int]:
        channel: int | None = None
        speculative, mas = False, 0
        while self.reader.accept(","):
            token = self.reader.next()
            if token.text.isdecimal() and int(token.text) < 6:
                channel = int(token.text)
            elif token.text == "sm":
                speculative = True
            elif token.text in MAS_FLAGS:
                mas |= MAS_FLAGS[token.text]
            elif token.text == "mas":
                self.reader.expect("=")
                mas |= self._limited(128, "mas")
            else:
                self.reader.fail(f"{token.text!r} is neither a channel nor one of sm, io, be, ua, mas=", token)
            if mas and operation.kind not in (Kind.LOAD, Kind.STORE):
                self.reader.fail(f"{operation.name} is neither a load nor a store", token)
        return channel, speculative, mas

    def _memory(self) -> tuple[Operand, ...]:
        """[register + offset], [register + register], [address], [source 1, source 2]."""
        reader = self.reader
        reader.expect("[")
        if not _REGISTER.fullmatch(reader.token.text):
            if reader.token.kind == "number" and reader.following.text == ",":
                first = self._source1()
                reader.next()
                second = self._source2()
            else:
                first, second = 0xC0, self._source2()
        else:
            first = self._register()
            if reader.accept("+", ",") or reader.token.text == "-":
                second = self._source2()
            else:
                second = Literal(0)
        reader.expect("]")
        return (first, second)

    def _guards(self) -> tuple[Guard, ...]:
        if not self.reader.accept("?"):
            return ()
        guards = [self._guard()]
        while self.reader.accept("|"):
            guards.append(self._guard())
        return tuple(guards)

    # -- operands ---------------------------------------------------------------------------------

    def _limited(self, limit: int, what: str) -> int:
        token = self.reader.token
        value = self.reader.expression()
        if not 0 <= value < limit:
            self.reader.fail(f"{what} {value}: must be 0 to {limit - 1}", token)
        return value

    def _register(self) -> int:
        token = self.reader.name("a register")
        match = _REGISTER.fullmatch(token.text)
        if match is None:
            self.reader.fail(f"a register expected, not {token.text!r}", token)
        count, base = _FILES[match[1]]
        if int(match[2]) >= count:
            self.reader.fail(f"{token.text}: the last one is {match[1]}{count - 1}", token)
        return base + int(match[2])

    def _source1(self) -> int:
        if _REGISTER.fullmatch(self.reader.token.text):
            return self._register()
        return 0xC0 | self._limited(32, "source 1 is a register or a number;")

    def _source2(self) -> Operand:
        reader = self.reader
        text = reader.token.text
        if _REGISTER.fullmatch(text):
            return self._register()
        lts = _LTS.fullmatch(text)
        if lts is not None:
            reader.next()
            return _LTS_FORMS[lts[2]] | int(lts[1])
        bits = None
        if text in _LITERALS and reader.following.text == "(":
            reader.next()
            bits = _LITERALS[text]
        return Literal(reader.expression(), bits)

    def _numbered(self, pattern: re.Pattern[str], what: str, limit: int) -> int:
        token = self.reader.name(what)
        match = pattern.fullmatch(token.text)
        if match is None or int(match[1]) >= limit:
            self.reader.fail(f"{what} expected, not {token.text!r}", token)
        return int(match[1])

    def _predicate(self) -> int:
        return self._numbered(_PREDICATE, "a predicate (p0 to p31)", 32)

    def _ctpr(self) -> int:
        return self._numbered(_CTPR, "ctpr1, ctpr2 or ctpr3", 4)

    def _guard(self) -> Guard:
        inverted = bool(self.reader.accept("~"))
        return Guard(self._predicate(), inverted)

    def _predicate_operation(self, token: Token) -> PredicateOp:
        reader = self.reader
        target = int(token.text[1:])
        if target > 31:
            reader.fail("the last predicate is p31", token)
        reader.expect("=")
        first = self._guard()
        if reader.accept("if"):
            return PredicateOp(target, self._guard(), first, MOVE)
        operator = reader.accept("&", "&&") or reader.fail("'&', '&&' or 'if' expected")
        return PredicateOp(target, first, self._guard(), AND if operator.text == "&" else LOGICAL_AND)

    # -- control ----------------------------------------------------------------------------------

    def _condition(self) -> Guard | None:
        return self._guard() if self.reader.accept("?") else None

    def _fields(self, token: Token, limits: dict[str, int], needed: str) -> dict[str, int]:
        """name=value, ..."""
        values: dict[str, int] = {}
        while not values or self.reader.accept(","):
            name = self.reader.name("a field")
            if name.text not in limits or name.text in values:
                self.reader.fail(f"{token.text} has the fields {', '.join(limits)}, each once", name)
            self.reader.expect("=")
            values[name.text] = self._limited(limits[name.text], name.text)
        if needed not in values:
            self.reader.fail(f"{token.text} needs {needed}=", token)
        return values

    def _branch(self, token: Token) -> None:
        displacement = self.reader.expression() - self.address
        self._set("transfer", Transfer(self._condition(), 0, displacement), token)

    def _jump(self, token: Token) -> None:
        ctpr = self._ctpr()
        self._set("transfer", Transfer(self._condition(), ctpr), token)

    def _call(self, token: Token) -> None:
        ctpr = self._ctpr()
        self.reader.expect(",")
        base = self._fields(token, {"wbs": 128}, "wbs")["wbs"]
        self._set("transfer", Transfer(self._condition(), ctpr, 0, base), token)

    def _disp(self, token: Token) -> None:
        ctpr = self._ctpr()
        self.reader.expect(",")
        self._set("prepare", Prepare(ctpr, self.reader.expression() - self.address), token)

    def _return(self, token: Token) -> None:
        where = self.reader.token
        if self._ctpr() != 3:
            self.reader.fail("a return is prepared in ctpr3", where)
        self._set("prepare", Prepare(3, None), token)

    def _setwd(self, token: Token) -> None:
        fields = self._fields(token, {"wsz": 128, "nfx": 2, "dbl": 2}, "wsz")
        window = Window(fields["wsz"], bool(fields.get("nfx", 1)), bool(fields.get("dbl", 0)))
        self._set("window", window, token)

    def _setbn(self, token: Token) -> None:
        fields = self._fields(token, {"rbs": 64, "rsz": 64, "rcur": 64}, "rsz")
        self._set("base", SetBase(fields.get("rbs", 0), fields["rsz"], fields.get("rcur", 0)), token)

    def _advance(self, token: Token) -> None:
        self._set("advance", True, token)

    def _nop(self, token: Token) -> None:
        alone = self.reader.token.kind in ("newline", "end") or self.reader.token.text in ("}", ";")
        self._set("nop", 0 if alone else self._limited(8, "nop"), token)

    def _syllable(self, token: Token) -> None:
        self._set(token.text, self._limited(1 << 32, token.text), token)

    def _syllables(self, token: Token) -> None:
        words = [self._limited(1 << 32, token.text)]
        while self.reader.accept(","):
            words.append(self._limited(1 << 32, token.text))
        self._set(token.text, tuple(words), token)


_CONTROL: dict[str, Callable[[InstructionReader, Token], None]] = {
    "branch": InstructionReader._branch,
    "ct": InstructionReader._jump,
    "call": InstructionReader._call,
    "disp": InstructionReader._disp,
    "return": InstructionReader._return,
    "setwd": InstructionReader._setwd,
    "setbn": InstructionReader._setbn,
    "advance": InstructionReader._advance,
    "nop": InstructionReader._nop,
    "ss": InstructionReader._syllable,
    "cs0": InstructionReader._syllable,
    "cs1": InstructionReader._syllable,
    "lts": InstructionReader._syllables,
    "pls": InstructionReader._syllables,
    "cds": InstructionReader._syllables,
}
