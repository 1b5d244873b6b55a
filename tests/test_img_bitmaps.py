"""Command lines about bitmaps for Debian's qemu-img and for ours: same answers, same bitmaps, bit for bit."""

import re
import shutil

import pytest

from tests import oracles
from tests.bitmap_lab import AUTO, IN_USE, set_flags, stored
from tests.img_bitmap_cases import INTO_BITMAPS, SETUP, all_cases
from tests.img_server import Server
from tests.test_img_differential import mask, words

pytestmark = pytest.mark.needs("qemu-utils")

CASES = all_cases()
SAMPLE = CASES[len(INTO_BITMAPS) :: 40]
"""The fast tier's share."""
SLICES = 8

DIFFERENCES: dict[str, str] = {
    r"amend -o compat=0.10 two.q ; info": "bitmaps are removed with their space, not left behind as leaks",
    r"amend -o refcount_bits=64 lazy.q": "done; qemu-img never ends",
    r"amend -o refcount_bits=64 stale.q": "counts everything anew, so that nothing is left of the stale bitmaps",
    r"check -r all snap.q": "nothing to repair; qemu-img forgets the snapshots of an image with bitmaps and frees them",
}
"""A regular expression over a case -> why ours answers otherwise."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The images of SETUP, and the states that only a crash or another program leaves."""
    here = tmp_path_factory.mktemp("originals")
    for line in SETUP:
        program, name, *rest = line.split(" ", 2)
        if program == "io":
            oracles.qemu_io(here / name, *rest[0].split("|"))
        else:
            oracles.run("qemu-img", *words(line), cwd=here)
    for name in ("used.q", "used1.q", "stale.q", "stale2.q"):
        shutil.copy(here / "two.q", here / name)
    set_flags(here / "used.q", "b0", IN_USE | AUTO)
    set_flags(here / "used.q", "b1", IN_USE)
    set_flags(here / "used1.q", "b1", IN_USE)
    stale = bytearray((here / "stale.q").read_bytes())
    stale[95] = 0
    (here / "stale.q").write_bytes(stale)
    oracles.qemu_img("amend", "-o", "compat=0.10", here / "stale2.q")
    return here


@pytest.fixture(scope="module")
def ours():
    """Our program, as a function of the words of a command line and a directory."""
    server = Server()
    yield server.run
    server.close()


def theirs(words, cwd):
    done = oracles.run("qemu-img", *words, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


NODE = re.compile(r"(persistent in |persistent bitmaps to )\S+:")
END = re.compile(r'Image end offset: \d+|"image-end-offset": \d+')
"""A bitmap that nobody has changed stays where it is; qemu-img writes all of them anew."""


def answers(case, program, originals, here):
    """What a program prints, and the bitmaps of all images afterwards."""
    here.mkdir()
    # Only what the case names: copying all images takes longer than the commands.
    named = {word.rpartition("=")[2] for line in case for word in line.split()} | {"two.q"}
    for path in originals.iterdir():
        if path.name in named:
            shutil.copy(path, here)
    found = []
    for line in case:
        status, output, errors = program(words(line), here)
        found.append((line, status, END.sub("", mask(output)), NODE.sub(r"\1NODE:", mask(errors))))
    bitmaps = {}
    for path in sorted(here.iterdir()):
        with open(path, "rb") as file:
            if file.read(4) == b"QFI\xfb":
                bitmaps[path.name] = {name: (b.flags, b.granularity, b.dirty) for name, b in stored(path).items()}
    return found, bitmaps


def difference(case, ours, originals, here):
    """None, or what differs."""
    their_words, their_bitmaps = answers(case, theirs, originals, here / "theirs")
    our_words, our_bitmaps = answers(case, ours, originals, here / "ours")
    if their_words != our_words:
        return "\n".join(f"{a}\n{b}" for a, b in zip(their_words, our_words, strict=True) if a != b)
    failed = any(status for _, status, _, _ in our_words)
    for name in sorted({*their_bitmaps, *our_bitmaps}):
        if failed and name.startswith("new"):
            continue  # what a command leaves of an image that it could not finish
        if their_bitmaps.get(name) != our_bitmaps.get(name):
            return f"{name}:\n{their_bitmaps.get(name)}\n{our_bitmaps.get(name)}"
        if not _is_untouched(name, originals, here / "ours"):
            checks = [oracles.check_image(here / side / name) for side in ("theirs", "ours")]
            if checks[0]["status"] != checks[1]["status"]:
                return f"{name}: {checks}"
    return None


def _is_untouched(name, originals, here):
    return (originals / name).exists() and (here / name).read_bytes() == (originals / name).read_bytes()


def reason_for(case):
    return next((why for pattern, why in DIFFERENCES.items() if re.search(pattern, " ; ".join(case))), None)


def check(cases, ours, originals, tmp_path):
    wrong = []
    for number, case in enumerate(cases):
        if reason_for(case) is not None:
            continue
        here = tmp_path / str(number)
        here.mkdir()
        found = difference(case, ours, originals, here)
        if found is not None:
            wrong.append(f"{' ; '.join(case)}\n{found}")
        shutil.rmtree(here)
    assert not wrong, f"{len(wrong)} of {len(cases)}\n" + "\n\n".join(wrong)


def test_a_sample_of_command_lines_about_bitmaps_answers_as_qemu_img_does(ours, originals, tmp_path):
    check(SAMPLE, ours, originals, tmp_path)


def test_whatever_way_convert_writes_its_target_marks_it(ours, originals, tmp_path):
    check(INTO_BITMAPS, ours, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_every_command_line_about_bitmaps_answers_as_qemu_img_does(part, ours, originals, tmp_path):
    check(CASES[part::SLICES], ours, originals, tmp_path)


def test_where_ours_differs_it_says_so_in_words(ours, originals, tmp_path):
    for number, case in enumerate(case for case in CASES if reason_for(case)):
        for line, status, _, errors in answers(case, ours, originals, tmp_path / str(number))[0]:
            assert "mistake in e2kdisk" not in errors, line
            assert status in (0, 1, 3), line
    assert len(CASES) > 600
    assert sum(reason_for(case) is not None for case in CASES) < 10
