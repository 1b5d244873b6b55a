"""The same command lines for Debian's qemu-img and for ours: same exit status, same output, same images."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import img_option_cases, oracles
from tests.img_cases import SETUP, all_cases
from tests.img_debug_cases import CONFIGS

pytestmark = pytest.mark.needs("qemu-utils")

ROOT = Path(__file__).resolve().parent.parent
CASES = all_cases()
SAMPLE = CASES[::50]
"""The fast tier's share."""
SLICES = 24

DIFFERENCES = {
    r"^rebase -b disk.raw -F raw over.q ; check": "zeros become zero clusters; qemu-img writes them out",
    r"extended_l2=on": "extended L2 entries are not built yet: one line says so, no file is made",
    r"compression_type=zstd": "zstd is not built yet: one line says so, no file is made",
    r"data_file=": "external data files are not built yet: one line says so, no file is made",
    r"encrypt.format=luks": "LUKS is not built yet: one line says so, no file is made",
    r"driver=null-co,size=x": "refused in one line; qemu-img aborts",
    r"^info --image-opts (driver=raw,offset=4096,size|driver=null-aio,size|.*file.file.filename)": (
        "QEMU names it by its options, in the order of a hash table"
    ),
    r"^bench -d 0": "refused; qemu-img never ends",
    r"^convert -c -n -O qcow2 base.q big.q": "compressed clusters replace what is there; qemu-img: Input/output error",
    r"^(-V|--version|-h|--help|create --help)$": "our own name and help",
    r"nbd:|fat:": "the protocol is refused in one line",
    r"^convert .*blkdebug:read.conf": "ours reads in order and ends at the first error, qemu-img meets several at once",
    r"^convert -n .*blkdebug:(write|update).conf": "the image cannot be closed either; ours says one error",
}
"""A regular expression over a case -> why ours answers otherwise."""

OURS = [
    sys.executable,
    "-I",
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'qemu-img';"
    "from e2kdisk.tools.img.main import script; script()",
]


def words(line):
    return ["" if word == "%" else word for word in line.split()]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The images of SETUP, three broken ones, and files that are no images."""
    here = tmp_path_factory.mktemp("originals")
    for line in SETUP:
        program, name, *rest = line.split(" ", 2)
        if program in ("io", "io-raw"):
            oracles.qemu_io(here / name, *rest[0].split("|"), format="raw" if program == "io-raw" else "qcow2")
        else:
            oracles.run("qemu-img", *words(line), cwd=here)
    data = bytearray((here / "base.q").read_bytes())
    l1 = struct.unpack(">Q", data[40:48])[0]
    l2 = struct.unpack(">Q", data[l1 : l1 + 8])[0] & 0xFFFFFFFFFFFE00
    leak, corrupt = bytearray(data), bytearray(data)
    leak[l2 : l2 + 16] = bytes(16)
    corrupt[l2 : l2 + 8] = corrupt[l2 + 8 : l2 + 16]
    (here / "leak.q").write_bytes(leak)
    (here / "corrupt.q").write_bytes(corrupt)
    (here / "cut.q").write_bytes(data[:60])
    (here / "text").write_text("hello\n")
    (here / "nothing").write_bytes(b"")
    for name, text in CONFIGS.items():
        (here / f"{name}.conf").write_text(text)
    return here


MASKS = (
    (r"(disk size: ).*", r"\1X"),
    (r'("actual-size": )\d+', r"\1X"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r'("date-n?sec": )\d+', r"\1X"),
    (r"in \d+\.\d+ seconds", "in X seconds"),
    (r"\(\d+\.\d+/100%\)\r", ""),
    (r"[ ]*\r", ""),
    (r" +\n", "\n"),
)


def mask(text):
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text


def run_case(case, program, originals, here):
    """What a program prints and does: (status, output, errors) of each line, and what the images read as."""
    subprocess.run(["cp", "-a", "--sparse=always", str(originals), str(here)], check=True)
    before = {path.name: path.read_bytes() for path in originals.iterdir()}
    answers = []
    for line in case:
        done = subprocess.run([*program, *words(line)], cwd=here, capture_output=True, timeout=120, check=False)
        answers.append(
            (line, done.returncode, *(mask(text.decode(errors="replace")) for text in (done.stdout, done.stderr)))
        )
    changed = sorted(
        path for path in here.iterdir() if path.name not in before or path.read_bytes() != before[path.name]
    )
    return answers, changed


def contents(path, failed):
    """What an image reads as, to qemu-img: its facts and a raw copy; nothing of what a failed command left."""
    if failed:
        return None
    raw = path.with_name("raw copy")
    done = oracles.run("qemu-img", "convert", "-O", "raw", path.name, raw.name, cwd=path.parent, check=False)
    if done.returncode:
        return done.stderr
    data = raw.read_bytes() if raw.stat().st_size <= 64 << 20 else raw.stat().st_size
    raw.unlink()
    if path.read_bytes()[:4] == b"QFI\xfb":
        check = oracles.run("qemu-img", "check", "-q", path.name, cwd=path.parent, check=False)
        facts = oracles.run("qemu-img", "info", "--output=json", path.name, cwd=path.parent).stdout
        return data, check.returncode, mask(facts)
    return data


def difference(case, originals, here):
    """None, or what differs."""
    theirs, changed_there = run_case(case, [oracles.find_program("qemu-img")], originals, here / "theirs")
    ours, changed_here = run_case(case, OURS, originals, here / "ours")
    if theirs != ours:
        return "\n".join(f"{a}\n{b}" for a, b in zip(theirs, ours, strict=True) if a != b)
    failed = any(status for _, status, _, _ in ours)
    for name in sorted({path.name for path in (*changed_there, *changed_here)}):
        if not failed and ((here / "ours" / name).exists() != (here / "theirs" / name).exists()):
            return f"{name} is only on one side"
    for path in changed_there if not failed else ():
        if contents(path, failed) != contents(here / "ours" / path.name, failed):
            return f"{path.name} reads otherwise"
    return None


def reason_for(case):
    return next((why for pattern, why in DIFFERENCES.items() if re.search(pattern, " ; ".join(case))), None)


def check(cases, originals, tmp_path):
    wrong = []
    for number, case in enumerate(cases):
        if reason_for(case) is not None:
            continue
        here = tmp_path / str(number)
        here.mkdir()
        found = difference(case, originals, here)
        if found is not None:
            wrong.append(f"{' ; '.join(case)}\n{found}")
        shutil.rmtree(here)
    assert not wrong, f"{len(wrong)} of {len(cases)}\n" + "\n\n".join(wrong)


def test_a_sample_of_command_lines_answers_as_qemu_img_does(originals, tmp_path):
    check(SAMPLE, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_every_command_line_answers_as_qemu_img_does(part, originals, tmp_path):
    check(CASES[part::SLICES], originals, tmp_path)


def test_where_ours_differs_it_says_so_in_words(originals, tmp_path):
    for number, case in enumerate(case for case in CASES if reason_for(case)):
        for line, status, _, errors in run_case(case, OURS, originals, tmp_path / str(number))[0]:
            assert "Traceback" not in errors, line
            assert "mistake in e2kdisk" not in errors, line
            assert status == 0 or errors.startswith("qemu-img: ") or "ERROR" in errors, line


def test_every_option_that_qemu_img_lists_is_in_a_case():
    listed = {}
    for line in oracles.run("qemu-img", "--help").stdout.splitlines():
        if (syntax := re.fullmatch(r"  (\w+) (.*\[?-.*)", line)) is not None:
            # An option begins a bracket, an alternative or a word of its own.
            listed[syntax[1]] = sorted({*re.findall(r"(?<![\w=-])(--?[A-Za-z][\w-]*)", syntax[2])})
    assert listed == {name: sorted(options.split()) for name, options in img_option_cases.OPTIONS.items()}


def test_there_are_several_hundred_cases_and_few_deliberate_differences():
    assert len(CASES) > 600
    assert sum(reason_for(case) is not None for case in CASES) < len(CASES) / 10
