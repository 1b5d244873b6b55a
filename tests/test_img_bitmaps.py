"""Command lines about bitmaps for Debian's qemu-img and for ours: same answers, same bitmaps, bit for bit."""

import os
import re
import shutil

import pytest

from tests import oracles
from tests.bitmap_lab import AUTO, IN_USE, set_flags, stored
from tests.img_bitmap_cases import SETUP, all_cases
from tests.test_img_differential import OURS, run_case, words

pytestmark = pytest.mark.needs("qemu-utils")

CASES = all_cases()
SAMPLE = CASES[::25]
"""The fast tier's share."""
SLICES = 16

DIFFERENCES: dict[str, str] = {
    r"amend -o compat=0.10 two.q ; info": "bitmaps are removed with their space, not left behind as leaks",
    r"amend -o refcount_bits=64 lazy.q": "done; qemu-img never ends",
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
    for name, place in (("stale.q", 95), ("stale2.q", None)):
        data = bytearray((here / name).read_bytes())
        if place is not None:
            data[place] = 0
        (here / name).write_bytes(data)
    oracles.qemu_img("amend", "-o", "compat=0.10", here / "stale2.q")
    return here


END = re.compile(r'Image end offset: \d+|"image-end-offset": \d+')
"""A bitmap that nobody has changed stays where it is; qemu-img writes all of them anew."""
NODE = re.compile(r"(persistent in |persistent bitmaps to )\S+:")


def chosen(case, originals, here):
    """A directory with those of the images that a case needs: copying all of them takes longer than the commands."""
    here.mkdir()
    needed = {word.rpartition("=")[2] for line in case for word in line.split()} | {"two.q"}
    for path in originals.iterdir():
        if path.name in needed or "json:" in case[0]:
            os.link(path, here / path.name)
    return here


def answers(case, program, originals, here):
    """What a program prints, the bitmaps of all images afterwards, and which images it has changed."""
    found, changed = run_case(case, program, originals, here)
    masked = [
        (line, status, END.sub("", output), NODE.sub(r"\1NODE:", errors)) for line, status, output, errors in found
    ]
    bitmaps = {}
    for path in sorted(here.iterdir()):
        with open(path, "rb") as file:
            if file.read(4) == b"QFI\xfb":
                bitmaps[path.name] = {name: (b.flags, b.granularity, b.dirty) for name, b in stored(path).items()}
    return masked, bitmaps, {path.name for path in changed}


def difference(case, originals, here):
    needed = chosen(case, originals, here / "originals")
    theirs, their_bitmaps, _ = answers(case, [oracles.find_program("qemu-img")], needed, here / "theirs")
    ours, our_bitmaps, changed = answers(case, OURS, needed, here / "ours")
    if theirs != ours:
        return "\n".join(f"{a}\n{b}" for a, b in zip(theirs, ours, strict=True) if a != b)
    failed = any(status for _, status, _, _ in ours)
    for name in sorted({*their_bitmaps, *our_bitmaps}):
        if their_bitmaps.get(name) != our_bitmaps.get(name) and not (failed and name.startswith("new")):
            return f"{name}:\n{their_bitmaps.get(name)}\n{our_bitmaps.get(name)}"
    for name in changed & our_bitmaps.keys() & their_bitmaps.keys():
        checks = [oracles.check_image(here / side / name) for side in ("theirs", "ours")]
        if checks[0]["status"] != checks[1]["status"]:
            return f"{name}: {checks}"
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


def test_a_sample_of_command_lines_about_bitmaps_answers_as_qemu_img_does(originals, tmp_path):
    check(SAMPLE, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_every_command_line_about_bitmaps_answers_as_qemu_img_does(part, originals, tmp_path):
    check(CASES[part::SLICES], originals, tmp_path)
