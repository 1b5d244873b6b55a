"""Assembler for e2k: text in, wide instructions and data out.

    .org 0x1_0000_0000           # comments run to the end of the line
    .equ DATA, 0x1f0
    start:
        addd 0, message -> r1                               # one operation is one wide instruction
        { addd,0 r1, 1 -> r2; ldb,2 [r1] -> r3 }            # several in braces; ",2" is the channel, else chosen
        { cmpesb r3, 0 -> p0
          addd r2, 0 -> r1 ? ~p1 }                          # under a predicate
        branch start ? ~p0
        ldh,io [r4 + DATA] -> r5                            # from I/O space; also be (big-endian), ua (unaligned)
        disp ctpr1, procedure                               # prepare, then
        call ctpr1, wbs=4                                   # call: the callee's r0 is our r8
    stop: branch stop
    procedure:
        { setwd wsz=8; return ctpr3 }
        p2 = p0 & ~p1                                       # also && and: p2 = p1 if p0
        { muls r0, r1 -> r0; ct ctpr3 }
    message: .asciz "hello\\n"

Numbers become the shortest literal that holds them; lit16(x), lit32(x), lit64(x) say which. A store is written
`stb r1 -> [r2 + 3]`. Directives: .org .align .space .byte .half .word .dword .ascii .asciz .equ. Where that does
not say every bit, syllables may be written as they are: ss, cs0, cs1, lts, pls, cds; and lts0.lo, .hi, .w, .d as
source 2.

For programs of more than a page:

    .include "console.s"                # once, however often it is asked for; beside the file that asks
    .routine print                      # a label, after which names may be given to registers and predicates,
        .reg text r0, port r1, end p0   # valid up to the next .routine;
    .next:                              # labels that begin with a point are the routine's own
        addd 0, "ready\n" -> r8         # a string in an expression: the address of its copy after the program
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from e2kdisk.machine.cpu.e2k.bundle import pack, unpack
from e2kdisk.machine.cpu.e2k.decode import decode
from e2kdisk.machine.cpu.e2k.operations import OPERATIONS
from e2kdisk.machine.cpu.e2k.source import AssemblyError, Reader, Source, Token, unquote
from e2kdisk.machine.cpu.e2k.symbolic import CannotEncode, build
from e2kdisk.machine.cpu.e2k.syntax import InstructionReader, is_register, is_reserved
from e2kdisk.machine.cpu.e2k.trap import GuestTrap, Trap

MAX_PASSES = 10
MAX_BYTES = 64 << 20
ALIGNMENT = 8
"""Of wide instructions."""
STRING = '"'
"""How the key of a string begins in the table of symbols; no name does."""


class Line(NamedTuple):
    """Where the wide instruction at an address was written."""

    address: int
    line: int
    file: str


@dataclass(frozen=True)
class Program:
    """What came out."""

    base: int
    code: bytes
    symbols: dict[str, int]
    """Labels and constants; labels of a routine as "routine.label"."""
    lines: tuple[Line, ...]
    texts: dict[str, str]
    """The source files, by the name that `lines` gives."""


def assemble(text: str, *, base: int = 0, file: str = "<text>") -> Program:
    """Assemble a program that starts at `base`, unless its first .org says otherwise; raises AssemblyError.

    How long a wide instruction is depends on its literals, these on the addresses of labels, those on the lengths: so
    the text is read again until nothing moves.
    """
    source = Source(text, file)
    symbols: dict[str, int] = {}
    for number in range(MAX_PASSES):
        one_pass = _Pass(source, base, symbols, first=number == 0)
        one_pass.run()
        if one_pass.symbols == symbols and not one_pass.guessed:
            named = {name: value for name, value in symbols.items() if not name.startswith(STRING)}
            return Program(one_pass.base, bytes(one_pass.code), named, tuple(one_pass.lines), source.texts)
        symbols = one_pass.symbols
    raise AssemblyError(file, 1, 1, "addresses do not settle: fix the size of literals with lit32() or lit64()")


class _Pass:
    """One reading of the source."""

    def __init__(self, source: Source, base: int, known: dict[str, int], *, first: bool) -> None:
        self.reader = Reader(source, self._symbol)
        self.base = base
        self.code = bytearray()
        self.known = known
        self.symbols: dict[str, int] = {}
        self.lines: list[Line] = []
        self.strings: dict[str, None] = {}
        """Those to be placed after the program, as they were written."""
        self.routine = ""
        self.first = first
        self.guessed = False

    @property
    def here(self) -> int:
        """The address of what comes next."""
        return self.base + len(self.code)

    def _symbol(self, token: Token) -> int:
        if token.text == ".":
            return self.here
        if is_reserved(token.text):
            self.reader.fail(f"a number expected, not {token.text!r}", token)
        name = token.text if token.kind == "string" else self._full_name(token)
        if token.kind == "string":
            self.strings[name] = None
        value = self.symbols.get(name, self.known.get(name))
        if value is None:
            if not self.first:
                self.reader.fail(f"{token.text!r} is not defined", token)
            # A label further down: something near keeps the guess of how long literals are good.
            self.guessed = True
            return self.here
        return value

    def _full_name(self, token: Token) -> str:
        """The name of a symbol; one with a point belongs to its routine."""
        return self.routine + token.text if token.text.startswith(".") else token.text

    def run(self) -> None:
        """Read it all."""
        reader = self.reader
        while reader.token.kind != "end":
            if reader.accept("\n", ";"):
                continue
            if reader.token.kind == "name" and reader.following.text == ":":
                self._define(reader.next(), self._aligned_here())
                reader.next()
                continue
            if reader.token.text in _DIRECTIVES:
                _DIRECTIVES[reader.token.text](self, reader.next())
            elif reader.token.text.startswith(".") and reader.token.kind == "name":
                reader.fail(f"no directive is called {reader.token.text!r}")
            else:
                self._instruction()
            if reader.token.kind != "end" and not reader.accept("\n", ";"):
                reader.fail(f"{reader.token.text!r} where the line should end")
        for text in self.strings:
            self.symbols[text] = self.here
            self.code += unquote(text).encode() + b"\0"

    def _aligned_here(self) -> int:
        """The address of a label: that of the wide instruction after it, where one follows."""
        ahead = self.reader.following_after_label()
        if ahead.kind != "end" and not ahead.text.startswith("."):
            self._pad(ALIGNMENT)
        return self.here

    def _define(self, name: Token, value: int) -> None:
        full_name = self._full_name(name)
        if full_name in self.symbols:
            self.reader.fail(f"{name.text!r} is defined twice", name)
        if is_reserved(name.text) or name.text in OPERATIONS:
            self.reader.fail(f"{name.text!r} has a meaning of its own", name)
        self.symbols[full_name] = value

    def _instruction(self) -> None:
        start = self.reader.token
        self._pad(ALIGNMENT)
        wide = InstructionReader(self.reader, self.here).read()
        try:
            code = pack(build(wide))
            decode(unpack(code))
        except ValueError as problem:
            self.reader.fail(str(problem), start)
        except GuestTrap as trap:
            # What is unsupported here may well run elsewhere.
            if trap.trap is Trap.ILLEGAL:
                self.reader.fail(str(trap), start)
        self.lines.append(Line(self.here, start.line, start.file))
        self.code += code

    def _pad(self, alignment: int) -> None:
        self.code += bytes(-self.here % alignment)

    # -- directives -------------------------------------------------------------------------------

    def _grow(self, count: int, token: Token) -> None:
        if not 0 <= count <= MAX_BYTES - len(self.code):
            self.reader.fail(f"{token.text}: {count} bytes", token)
        self.code += bytes(count)

    def _org(self, token: Token) -> None:
        address = self.reader.expression()
        if not self.code and not self.lines:
            self.base = address
        elif address < self.here:
            self.reader.fail(f".org {address:#x} is behind {self.here:#x}", token)
        else:
            self._grow(address - self.here, token)

    def _align(self, token: Token) -> None:
        alignment = self.reader.expression()
        if alignment < 1 or alignment & alignment - 1:
            self.reader.fail(f".align {alignment}: must be a power of two", token)
        self._grow(-self.here % alignment, token)

    def _space(self, token: Token) -> None:
        self._grow(self.reader.expression(), token)

    def _equ(self, token: Token) -> None:
        name = self.reader.name("a name")
        self.reader.expect(",")
        self._define(name, self.reader.expression())

    def _begin_routine(self, token: Token) -> None:
        self.reader.aliases.clear()
        name = self.reader.name("the name of a routine")
        if name.text.startswith("."):
            self.reader.fail(f"{name.text!r}: the name of a routine begins with a letter", name)
        self._pad(ALIGNMENT)
        self._define(name, self.here)
        self.routine = name.text

    def _reg(self, token: Token) -> None:
        reader, aliases = self.reader, self.reader.aliases
        if not self.routine:
            reader.fail(".reg belongs into a .routine", token)
        while True:
            name = reader.name("a name")
            if (
                is_reserved(name.text)
                or name.text in OPERATIONS
                or name.text in self.symbols
                or name.text in self.known
            ):
                reader.fail(f"{name.text!r} has a meaning of its own", name)
            register = reader.name("a register or predicate")
            if not is_register(register.text):
                reader.fail(f"a register or predicate expected, not {register.text!r}", register)
            aliases[name.text] = register.text
            if not reader.accept(","):
                return

    def _data(self, token: Token) -> None:
        size = {".byte": 1, ".half": 2, ".word": 4, ".dword": 8}[token.text]
        values = bytearray()
        while not values or self.reader.accept(","):
            value = self.reader.expression()
            if not -1 << 8 * size - 1 <= value < 1 << 8 * size:
                self.reader.fail(f"{value:#x} does not fit {token.text}", token)
            values += (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.code += values

    def _text(self, token: Token) -> None:
        while True:
            text = self.reader.next()
            if text.kind != "string":
                self.reader.fail("a string expected", text)
            self.code += unquote(text.text).encode() + b"\0" * (token.text == ".asciz")
            if not self.reader.accept(","):
                return


_DIRECTIVES: dict[str, Callable[[_Pass, Token], None]] = {
    ".org": _Pass._org,
    ".align": _Pass._align,
    ".space": _Pass._space,
    ".equ": _Pass._equ,
    ".routine": _Pass._begin_routine,
    ".reg": _Pass._reg,
    ".byte": _Pass._data,
    ".half": _Pass._data,
    ".word": _Pass._data,
    ".dword": _Pass._data,
    ".ascii": _Pass._text,
    ".asciz": _Pass._text,
}

__all__ = ["AssemblyError", "CannotEncode", "Program", "assemble"]
