"""What each command may load: nothing heavy that it does not use, so that small work is over in milliseconds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2kdisk.tools.img import main as img
from e2kdisk.tools.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "img": "from e2kdisk.tools.img.main import script; script()",
    "io": "from e2kdisk.tools.io.program import script; script()",
    "e2kdisk": "from e2kdisk.tools.main import main; sys.exit(main())",
}

HEAVY = frozenset(
    [
        "argparse",
        "asyncio",
        "capstone",
        "concurrent.futures",
        "cryptography",
        "ctypes",
        "dataclasses",
        "deflate",
        "difflib",
        "fdt",
        "inspect",
        "isal",
        "json",
        "logging",
        "multiprocessing",
        "numpy",
        "pathlib",
        "random",
        "rich",
        "subprocess",
        "tempfile",
        "threading",
        "typing",
        "unicorn",
        "zlib",
    ]
)
OPTIONAL = frozenset({"isal", "numpy"})
"""Used where they are installed."""

NODES = frozenset({"threading"})
"""Coroutines, an I/O engine and a file."""
ENGINE = NODES | {"zlib"}
"""A qcow2 image besides, which may have compressed clusters."""
DECLARED = frozenset({"typing"})
"""Named tuples; where only annotations need it, it is not loaded (5 ms with what it loads itself)."""
PARSED = frozenset({"argparse", "zlib"})
"""Options and help by argparse, which loads zlib by itself (shutil)."""
HOST = frozenset({"ctypes"})
"""Calls of the host that Python does not offer: fallocate."""
MACHINE = frozenset({"dataclasses", "inspect", "typing"})
"""Registers, boards and drives are declared with dataclasses."""

IMG = {
    "info base": frozenset(),
    "info --output=json --backing-chain over": frozenset(),
    "info raw": frozenset(),
    "create -q -f qcow2 new 1M": NODES,
    "create -q -f qcow2 -b base -F qcow2 new 1M": ENGINE,
    "check empty": frozenset(),
    "check over": ENGINE,
    "check -r all base": ENGINE,
    "map --output=json over": ENGINE,
    "compare base over": ENGINE,
    "compare -f raw -F raw raw raw": NODES,
    "convert -f raw -O qcow2 raw new": ENGINE | HOST,
    "convert -f qcow2 -O raw empty new": ENGINE,
    "convert -f raw -O raw raw new": NODES | HOST,
    "convert -c -f raw -O qcow2 raw new": ENGINE | {"isal"},
    "snapshot -l base": ENGINE,
    "snapshot -c another base": ENGINE,
    "resize empty 2M": ENGINE,
    "rebase -u -b empty -F qcow2 over": ENGINE,
    "rebase -b empty -F qcow2 over": ENGINE,
    "commit over": ENGINE,
    "amend -o compat=0.10 empty": ENGINE | DECLARED,
    "dd if=base of=new": ENGINE,
    "measure -O qcow2 base": ENGINE,
    "bench -c 10 base": ENGINE | DECLARED,
    "bitmap --add empty bits": ENGINE,
    "--help": frozenset(),
    "--version": frozenset(),
}
IO = {
    "-c quit": NODES,
    "-c help": NODES,
    "-c map base": ENGINE,
    "-f raw -c length raw": NODES,
    "--help": frozenset(),
}
E2KDISK = {
    "--help": frozenset(),
    "--version": frozenset(),
    "info base": ENGINE | PARSED | DECLARED,
    "check base": ENGINE | PARSED,
    "create new 1M": ENGINE | PARSED | DECLARED,
    "asm --help": PARSED | {"pathlib"},
    "disasm --help": PARSED | {"pathlib"},
    "lab --help": PARSED,
    "run --help": PARSED | MACHINE,
    "qtest --help": NODES | MACHINE | HOST | {"json", "pathlib"},
    "demo --help": PARSED | MACHINE | {"random", "subprocess", "tempfile", "threading"},
    "img info base": frozenset(),
    "io -c quit": NODES,
}
CASES = [
    (program, line, allowed)
    for program, table in (("img", IMG), ("io", IO), ("e2kdisk", E2KDISK))
    for line, allowed in table.items()
]


def loaded(code: str, words: list[str], where: Path) -> set[str]:
    """The modules that a program loads."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", code, *words],
        cwd=where, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1000:]
    return set(re.findall(r"\|\s*([\w.]+)$", done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What the interpreter and its environment load by themselves."""
    return loaded("pass", [], tmp_path_factory.mktemp("bare"))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """base, with data and a snapshot; empty; over, an overlay on base; raw, with data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").write_bytes(bytes(range(256)) * 4096)
    for line in (
        "convert -f raw -O qcow2 raw base", "snapshot -c first base", "create -q -f qcow2 empty 1M",
        "create -q -f qcow2 -b base -F qcow2 over",
    ):  # fmt: skip
        assert img.main(line.split()) == 0
    return tmp_path


@pytest.mark.parametrize(("program", "line", "allowed"), CASES, ids=[f"{program} {line}" for program, line, _ in CASES])
def test_a_command_loads_nothing_heavy_but_what_it_uses(images, bare, program, line, allowed):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = {program!r}; {PROGRAMS[program]}"
    heavy = (loaded(code, line.split(), images) - bare) & HEAVY
    assert heavy <= allowed
    assert heavy >= allowed - OPTIONAL - bare, "the table allows more than is used"


def test_every_sub_command_is_in_the_table():
    assert {line.split()[0] for line in IMG if not line.startswith("-")} == set(img.COMMANDS)
    assert {line.split()[0] for line in E2KDISK if not line.startswith("-")} == set(COMMANDS)
