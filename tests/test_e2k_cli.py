"""e2kdisk asm and e2kdisk disasm."""

import io
from pathlib import Path

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.tools import asm, disasm, main

SOURCE = """\
    .org 0x100000000
start:
    addd 0, message -> r1   # where it is
    { ldb,2 [r1] -> r2
      addd,0 r1, 1 -> r1 }
stop: branch stop
message: .word 0x6c6c6548
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("boot.s").write_text(SOURCE)
    return Path("boot.s")


def test_asm_writes_an_image_beside_the_source(source, capsys):
    assert asm.main(["boot.s"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("boot.bin").read_bytes()[-4:] == b"Hell"


def test_asm_lists_code_and_symbols(source, capsys):
    asm.main(["--listing", "--symbols", "-o", "image", "boot.s"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("addd 0, message -> r1   # where it is")
    assert lines[0].startswith("100000000  11000004")
    assert "0000000100000000 start" in lines


def test_disassembled_and_assembled_an_image_is_the_same(source, capsys):
    asm.main(["boot.s"])
    disasm.main(["boot.bin", "--base", "0x100000000"])
    text = capsys.readouterr().out
    assert "{ addd,0 r1, 1 -> r1; ldb,2 [r1] -> r2 }" in text
    Path("again.s").write_text(text)
    asm.main(["again.s"])
    assert Path("again.bin").read_bytes() == Path("boot.bin").read_bytes()


def test_disasm_shows_a_part_with_its_bytes(source, capsys):
    asm.main(["boot.s"])
    disasm.main(["boot.bin", "--bytes", "--base", "0x100000000", "--offset", "0x20", "--length", "16"])
    assert capsys.readouterr().out == "100000020  12500000200000000000000000000000  branch 0x100000020\n"


def test_asm_reads_the_standard_input(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"nop")))
    asm.main(["-", "-o", str(tmp_path / "image")])
    assert (tmp_path / "image").read_bytes() == bytes(8)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["asm", "wrong.s"], "wrong.s:2:5: no operation is called 'add'"),
        (["asm", "none.s"], "none.s: No such file or directory"),
        (["asm", "boot.bin"], "boot.bin: would overwrite itself; say where with -o IMAGE"),
        (["asm", "binary.s"], "binary.s: not UTF-8 text (offset 0x0)"),
        (["asm", "--base", "x", "boot.s"], "--base x: not a number of 64 bits, such as 0x100000000"),
        (["asm", "-"], "-o IMAGE is needed when the source is the standard input"),
        (["disasm", "boot.s", "--offset", "4"], "--offset 4: must be a multiple of 8, as wide instructions lie"),
    ],
)
def test_a_mistake_is_one_line(source, capsys, monkeypatch, arguments, complaint):
    Path("wrong.s").write_text("\n    add 0, 1 -> r1")
    Path("binary.s").write_bytes(b"\xff")
    Path("boot.bin").write_text(SOURCE)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"nop")))
    assert main.main(arguments) == 1
    assert capsys.readouterr().err == f"e2kdisk: {complaint}\n"


def test_numbers_are_unsigned():
    with pytest.raises(UsageError):
        asm.number("--base")("-1")


def test_a_listing_shows_lines_of_included_files(tmp_path, capsys):
    (tmp_path / "lib.s").write_text("    nop                     # of the library\n")
    (tmp_path / "main.s").write_text('    .include "lib.s"\nhere: branch here\n')
    assert main.main(["asm", "--listing", str(tmp_path / "main.s")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("nop                     # of the library")
    assert second.endswith("here: branch here")
