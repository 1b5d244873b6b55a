"""e2kdisk disasm: show the wide instructions of an e2k image as assembler text."""

from __future__ import annotations

from collections.abc import Sequence

from e2kdisk.errors import UsageError
from e2kdisk.tools.arguments import Parser
from e2kdisk.tools.asm import number

HELP = """\
Show the wide instructions of a raw Elbrus (e2k) image. What is printed without
--bytes is source for `e2kdisk asm`: assembled at the same base it gives the
same bytes again. What is no instruction is shown as .word.

examples:
  $ e2kdisk disasm boot.bin --base 0x100000000
  $ e2kdisk disasm --bytes --offset 0x40 --length 0x100 boot.bin
"""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("disasm", HELP)
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument(
        "--base", type=number("--base"), default=0, metavar="ADDRESS", help="the address of its first byte (0)"
    )
    parser.add_argument("--offset", type=number("--offset"), default=0, metavar="N", help="bytes to leave out")
    parser.add_argument("--length", type=number("--length"), metavar="N", help="bytes to show (all)")
    parser.add_argument("--bytes", action="store_true", help="print address and bytes before each")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    from e2kdisk.machine.cpu.e2k.disassembler import listing

    if given.offset % 8:
        raise UsageError(f"--offset {given.offset}: must be a multiple of 8, as wide instructions lie")
    with open(given.file, "rb") as file:
        file.seek(given.offset)
        code = file.read() if given.length is None else file.read(given.length)
    base = given.base + given.offset
    if not given.bytes:
        print(f"    .org {base:#x}")
    for address, part, text in listing(code, base):
        print(f"{address:09x}  {part.hex():<32}  {text}" if given.bytes else f"    {text}")
    return 0
