"""e2kdisk asm: turn e2k assembler text into bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from e2kdisk.errors import UsageError
from e2kdisk.tools.arguments import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.machine.cpu.e2k.assembler import Program

HELP = """\
Assemble a program for Elbrus (e2k) into a raw image, such as `e2kdisk run
--bios` starts.

examples:
  $ e2kdisk asm boot.s -o boot.bin
  $ e2kdisk asm --listing boot.s -o boot.bin

    .org 0x100000000             # where the program lies; or --base
    start:
        addd 0, 0x80001000 -> r4
        { ldb,2 [r4] -> r1; addd,0 r2, 1 -> r2 }
        cmpesb r1, 0 -> p0
        branch start ? p0
    stop: branch stop

`pydoc e2kdisk.machine.cpu.e2k.assembler` shows all of the language."""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("asm", HELP)
    parser.add_argument("file", metavar="FILE", help="the source; - is the standard input")
    parser.add_argument("-o", "--output", metavar="IMAGE", help="the image to write (FILE with .bin for its suffix)")
    parser.add_argument(
        "--base", type=number("--base"), default=0, metavar="ADDRESS", help="where the program starts (0)"
    )
    parser.add_argument("--listing", action="store_true", help="print addresses, bytes and source lines")
    parser.add_argument("--symbols", action="store_true", help="print the symbols and their values")
    return parser


def number(option: str) -> Callable[[str], int]:
    """An argparse type for an address or a count, 0x... or decimal."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            value = -1
        if not 0 <= value < 1 << 64:
            raise UsageError(f"{option} {text}: not a number of 64 bits, such as 0x100000000")
        return value

    return parse


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    from e2kdisk.machine.cpu.e2k.assembler import assemble

    name = "standard input" if given.file == "-" else given.file
    data = sys.stdin.buffer.read() if given.file == "-" else Path(given.file).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text (offset {error.start:#x})") from None
    output = given.output
    if output is None:
        if given.file == "-":
            raise UsageError("-o IMAGE is needed when the source is the standard input")
        output = os.path.splitext(given.file)[0] + ".bin"
        if output == given.file:
            raise UsageError(f"{given.file}: would overwrite itself; say where with -o IMAGE")
    program = assemble(text, base=given.base, file=name)
    Path(output).write_bytes(program.code)
    if given.listing:
        _print_listing(program)
    if given.symbols:
        for symbol, value in sorted(program.symbols.items(), key=lambda item: item[1]):
            print(f"{value & (1 << 64) - 1:016x} {symbol}")
    return 0


def _print_listing(program: Program) -> None:
    from e2kdisk.machine.cpu.e2k.bundle import length_of

    sources = {file: text.splitlines() for file, text in program.texts.items()}
    for address, line, file in program.lines:
        at = address - program.base
        code = program.code[at : at + length_of(program.code[at])]
        print(f"{address:09x}  {code.hex():<32}  {sources[file][line - 1].strip()}")
