"""What the e2k assembler reads and refuses, and that it and the disassembler are each other's inverse."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2kdisk.machine.cpu.e2k.assembler import AssemblyError, assemble
from e2kdisk.machine.cpu.e2k.bundle import pack, unpack
from e2kdisk.machine.cpu.e2k.decode import Guard, Prepare, SetBase, Transfer
from e2kdisk.machine.cpu.e2k.disassembler import disassemble, items, listing
from e2kdisk.machine.cpu.e2k.operations import OPERATIONS, Kind
from e2kdisk.machine.cpu.e2k.symbolic import Literal, Op, PredicateOp, Wide, Window, build, lift
from e2kdisk.machine.cpu.e2k.trap import GuestTrap
from tests.e2k_lab import vectors

BASE = 0x1_0000_0000


def test_labels_data_and_expressions():
    program = assemble(
        """
        .org 0x100               # a comment
        .equ SIZE, (2 + 3) * 4 - ~0 % 7 << 1
    first: second:
        addd 0, SIZE -> r1
    .byte 1, -1, 'A', '\\n'; .half 0x1234
        .align 8
    text: .asciz "a\\"\\0", "b"
    end:
        .word text, . - text
        .dword -1, end | 0x1_0000
        """
    )
    assert program.base == 0x100
    assert program.symbols["SIZE"] == (2 + 3) * 4 - ~0 % 7 << 1
    assert program.symbols["first"] == program.symbols["second"] == 0x100
    text, end = program.symbols["text"], program.symbols["end"]
    assert program.code[16:22] == b"\x01\xffA\n\x34\x12"
    assert (text, end) == (0x118, 0x11E)
    assert program.code[text - 0x100 : end - 0x100] == b'a"\0\0b\0'
    assert program.code[end - 0x100 :][:8] == (0x118).to_bytes(4, "little") + (6).to_bytes(4, "little")


def test_a_label_of_code_is_where_the_code_is():
    program = assemble(".byte 1\nhere:\n\n addd 0, 1 -> r1", base=BASE)
    assert (program.symbols["here"], program.lines) == (BASE + 8, ((BASE + 8, 4, "<text>"),))


def test_forward_references_get_the_shortest_literal_that_holds_them():
    for base, form in ((0x1000, "d8"), (BASE, "dc")):
        program = assemble("addd 0, end -> r1\naddd 0, 0 -> r2\nend:", base=base)
        assert (program.symbols["end"] - base, program.code[5:6].hex()) == (24, form)
    assert len(assemble("addd 0, far -> r1\n.equ far, 3").code) == 8
    assert disassemble(assemble("adds r1, 0xffffffff -> r1").code) == "adds,0 r1, -1 -> r1"


def test_channels_are_found_where_none_are_written():
    text = "{ ldd [r1] -> r2; addd 0, 1 -> r3; cmpedb r1, 0 -> p0; std r4 -> [r5]; ldb [r6] -> r7; shls r1, 2 -> r8 }"
    operations = re.findall(r"(\w+),(\d)", disassemble(assemble(text).code))
    assert sorted(int(channel) for _, channel in operations) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(AssemblyError, match="no channel is left for udivd"):
        assemble("{ udivd r1, r2 -> r3; udivd r1, r2 -> r4 }")


def test_operations_share_literals():
    code = assemble("{ addd 0, 0x12345678 -> r1; addd 0, 0x12345678 -> r2; addd 0, lit16(0x5678) -> r3 }").code
    assert len(code) == 24
    with pytest.raises(AssemblyError, match="no room for the literal"):
        assemble("{" + ";".join(f"addd 0, {n << 40:#x} -> r{n}" for n in range(1, 4)) + "}")


def test_strings_in_expressions_lie_after_the_program_once_each():
    program = assemble('addd 0, "one\\n" -> r1\naddd 0, "two" -> r2\n.dword "one\\n"', base=BASE)
    assert program.code.endswith(b"one\n\0two\0")
    assert program.code.count(b"one") == 1
    address = int.from_bytes(program.code[-17:-9], "little")
    assert program.code[address - BASE :] == b"one\n\0two\0"
    assert program.symbols == {}


def test_labels_and_register_names_belong_to_their_routine():
    program = assemble(
        """
        .routine first
            .reg count r3, more p1
        .next:
            { subd count, 1 -> r3; cmpledb count, 1 -> more }
            branch .next ? ~more
        .routine second
            .reg count r5
        .next: addd count, 1 -> count
            branch .next
            branch first.next
        """
    )
    assert list(program.symbols) == ["first", "first.next", "second", "second.next"]
    assert [text for _, _, text in listing(program.code)] == [
        "{ cmpledb,0 r3, 1 -> p1; subd,1 r3, 1 -> r3 }",
        "branch 0x0 ? ~p1",
        "addd,0 r5, 1 -> r5",
        "branch 0x20",
        "branch 0x0",
    ]


def test_a_file_is_included_once_from_beside_the_one_that_asks(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.s").write_text('.include "b.s"\na: addd 0, b -> r1')
    (tmp_path / "lib/b.s").write_text('.include "a.s"\nb: addd 0, 2 -> r1')
    file = str(tmp_path / "main.s")
    program = assemble('.include "lib/b.s"\n.include "lib/a.s"\nend:', file=file)
    assert program.symbols == {"a": 0, "b": 8, "end": 16}
    assert program.lines == ((0, 2, str(tmp_path / "lib/a.s")), (8, 2, str(tmp_path / "lib/b.s")))
    (tmp_path / "lib/b.s").write_text("b: addd 0, 2 - r1")
    with pytest.raises(AssemblyError, match=r"lib/b.s:1:16: a number expected, not 'r1'"):
        assemble('.include "lib/b.s"', file=file)


MISTAKES = {
    "add 0, 1 -> r1": "1:1: no operation is called 'add'",
    "\n  addd 0 1 -> r1": "2:10: ',' expected, not '1'",
    "addd 0, 1 -> r64": "1:14: r64: the last one is r63",
    "addd 0, 1 -> x": "1:14: a register expected, not 'x'",
    "addd 32, 1 -> r1": "1:6: source 1 is a register or a number; 32: must be 0 to 31",
    "addd,6 0, 1 -> r1": "1:6: '6' is neither a channel nor one of sm, io, be, ua, mas=",
    "addd,io 0, 1 -> r1": "1:6: addd is neither a load nor a store",
    "ldd,1 [r1] -> r2": "1:1: ldd is not possible in channel 1, only in 0, 2, 3, 5",
    "addd 0, nowhere -> r1": "1:9: 'nowhere' is not defined",
    "addd 0, 1 -> r1 r2": "1:17: 'r2' where the line should end",
    "{ addd 0, 1 -> r1": "1:18: '}' expected, not the end of the file",
    "{ addd,0 0, 1 -> r1; addd,0 0, 1 -> r2 }": "1:1: two operations in one channel",
    "{ branch . ; branch . }": "1:14: branch: only one of its kind fits a wide instruction",
    "{ branch . ; disp ctpr1, . }": "1:1: a branch and the preparation of a ctpr share one syllable",
    "branch 4": "1:1: a branch over 4 bytes: must be a multiple of 8 within 1 GiB",
    "disp ctpr4, 0": "1:6: ctpr1, ctpr2 or ctpr3 expected, not 'ctpr4'",
    "return ctpr1": "1:8: a return is prepared in ctpr3",
    "setwd nfx=1": "1:1: setwd needs wsz=",
    "cmpedb 0, 0 -> p32": "1:16: a predicate (p0 to p31) expected, not 'p32'",
    "addd 0, lit16(0x12345) -> r1": "1:1: 0x12345 does not fit a literal of 16 bits",
    "addd 0, 1 << 70 -> r1": "1:11: shift by 70",
    "addd 0, 1 / 0 -> r1": "1:11: division by zero",
    "addd 0, (1 -> r1": "1:12: ')' expected, not '->'",
    "addd 0, 0b2 -> r1": "1:10: '->' expected, not 'b2'",
    "a: nop\na: nop": "2:1: 'a' is defined twice",
    "r1: nop": "1:1: 'r1' has a meaning of its own",
    ".org 16\nnop\n.org 8": "3:1: .org 0x8 is behind 0x18",
    ".align 3": "1:1: .align 3: must be a power of two",
    ".byte 256": "1:1: 0x100 does not fit .byte",
    ".space -1": "1:1: .space: -1 bytes",
    ".ascii 5": "1:8: a string expected",
    '.include "none.s"': "1:10: none.s: No such file or directory",
    ".include none": "1:10: the name of a file expected, in quotes",
    ".reg count r1": "1:1: .reg belongs into a .routine",
    ".routine .inner": "1:10: '.inner': the name of a routine begins with a letter",
    ".routine a\n.reg count 5": "2:12: a register or predicate expected, not '5'",
    ".routine a\n.reg count ctpr1": "2:12: a register or predicate expected, not 'ctpr1'",
    ".routine a\n.reg addd r1": "2:6: 'addd' has a meaning of its own",
    ".routine a\n.reg a r1": "2:6: 'a' has a meaning of its own",
    ".routine a\n.reg x r1\n.routine b\naddd x, 1 -> r1": "4:6: 'x' is not defined",
    ".nonsense": "1:1: no directive is called '.nonsense'",
    "addd 0, @ -> r1": "1:9: '@' is not part of the language",
    '.ascii "open': "1:8: '\"' is not part of the language",
    "merges r1, r2 -> r3": "1:1: illegal instruction: merge without a predicate",
    "{ std,2 r1 -> [r2]; ldd,3 [r2] -> r3 }": "1:1: illegal instruction: store in channel 2 with load in channel 3",
    "{ setwd wsz=8; setbn rsz=1 }": "1:1: only one of setwd, setbn, call and I/O or byte order fits a wide instruction",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(text):
    with pytest.raises(AssemblyError) as error:
        assemble(text, file="boot.s")
    assert str(error.value) == f"boot.s:{MISTAKES[text]}"


registers = st.integers(0, 0xBF) | st.integers(0xE0, 0xFF)
numbers = st.sampled_from([0, 1, 15, 16, -1, 0x7FFF_FFFF, 1 << 31, 1 << 40, -(1 << 63)]) | st.integers(
    -(1 << 63), (1 << 63) - 1
)
literals = numbers.map(Literal) | st.integers(-(1 << 15), (1 << 15) - 1).map(lambda n: Literal(n, 16))
guards = st.builds(Guard, st.integers(0, 31), st.booleans())


@st.composite
def operations(draw, channel):
    operation = draw(st.sampled_from([o for o in OPERATIONS.values() if channel in o.channels]))
    kind = operation.kind
    source2 = draw(registers | literals)
    sources = (source2,) if kind in (Kind.UNARY, Kind.CONTROL) else (draw(registers | st.integers(0xC0, 0xDF)), source2)
    if kind is Kind.TERNARY:
        sources = (*sources, draw(registers))
    limit = {Kind.COMPARE: st.integers(0, 31), Kind.CONTROL: st.integers(1, 3)}
    target = draw(limit.get(kind, registers))
    mas = draw(st.sampled_from([0, 0, 6, 8, 16, 24, 0x61])) if kind in (Kind.LOAD, Kind.STORE) else 0
    wanted = (guards,) if kind is Kind.MERGE or draw(st.booleans()) else ()
    return Op(operation, channel, sources, target, draw(st.booleans()), tuple(map(draw, wanted)), mas)


@st.composite
def wide_instructions(draw):
    ops = tuple(draw(operations(channel)) for channel in sorted(draw(st.sets(st.integers(0, 5)))))
    predicate = st.integers(0, 31)
    steps = st.builds(PredicateOp, predicate, guards, guards, st.sampled_from([0, 1, 3]))
    condition = st.none() | guards
    distance = st.integers(-(1 << 27), (1 << 27) - 1).map(lambda n: 8 * n)
    ctpr = st.integers(1, 3)
    control = draw(
        st.sampled_from(
            [
                {},
                {"transfer": Transfer(draw(condition), 0, draw(distance))},
                {"transfer": Transfer(draw(condition), draw(ctpr)), "prepare": Prepare(draw(ctpr), draw(distance))},
                {"transfer": Transfer(draw(condition), draw(ctpr), 0, draw(st.integers(0, 127)))},
                {"prepare": Prepare(3, None), "advance": True},
                {"window": Window(draw(st.integers(0, 127)), draw(st.booleans()), draw(st.booleans()))},
                {"base": SetBase(*(draw(st.integers(0, 63)) for _ in range(3)))},
            ]
        )
    )
    predicates = tuple(draw(st.lists(steps, max_size=2)))
    return Wide(ops, predicates, nop=draw(st.integers(0, 7)), **control)


@given(wide=wide_instructions())
def test_any_wide_instruction_survives_its_bytes_and_its_text(wide):
    try:
        code = pack(build(wide))
    except ValueError:
        return  # too much for one
    bundle = unpack(code)
    assert pack(bundle) == code
    text = disassemble(code, BASE)
    assert assemble(text, base=BASE).code == code


@given(wide=wide_instructions())
def test_what_was_built_is_lifted_without_raw_syllables(wide):
    try:
        bundle = build(wide)
        pack(bundle)
        text = "; ".join(items(lift(bundle), BASE))
    except (ValueError, GuestTrap):
        return  # the test above looks at those
    if not re.search(r"lit16|lit64|lts", text):
        assert not re.search(r"\b(ss|cs0|cs1|cds|pls) 0x", text)


@given(code=st.binary(min_size=8, max_size=256).map(lambda code: code[: len(code) // 4 * 4]))
def test_any_bytes_disassemble_to_text_that_gives_them_back(code):
    text = "\n".join(line for _, _, line in listing(code, BASE))
    assert assemble(text, base=BASE).code == code


@given(
    vector=st.sampled_from(vectors()),
    flips=st.lists(st.integers(0, 255), min_size=1, max_size=3),
)
def test_damaged_instructions_disassemble_to_text_that_gives_them_back(vector, flips):
    code = bytearray(bytes.fromhex(vector["code"]))
    for flip in flips:
        code[flip // 8 % len(code)] ^= 1 << flip % 8
    text = "\n".join(line for _, _, line in listing(bytes(code), BASE))
    assert assemble(text, base=BASE).code == code
