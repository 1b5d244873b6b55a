"""qemu-io and ours, on copies of the same images: the same exit status, the same output, images that are identical."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import io_cases, oracles
from tests.io_cases import Case

ROOT = Path(__file__).resolve().parent.parent
OURS = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = '/usr/bin/qemu-io'; "
    "from e2kdisk.tools.io.program import script; script()"
)

ERRORS, OUTPUT, EVERYTHING = range(1, 4)
DIFFERENCES = {
    "rule write-eio-always": (
        ERRORS,
        "an image that cannot be closed is one line that names it, not one for each cache",
    ),
    "rule compressed": (
        EVERYTHING,
        "after a failed compressed write QEMU's image has a cluster that cannot be read; ours not",
    ),
    "debug disk.qcow2 zero-while-allocating": (EVERYTHING, "zeros wait for the allocation in flight that they overlap"),
    "debug over.qcow2 dependent-write-behind": (EVERYTHING, "overlapping requests in flight: ours go on run by run"),
}
"""How a case's name begins: how much of it we do otherwise (ERRORS: only the standard error), and why."""

CASES = io_cases.cases()
SAMPLE = 24
"""Every n-th case runs in the fast tier."""

pytestmark = pytest.mark.needs("qemu-utils")


def test_there_are_enough_cases_and_no_name_twice():
    names = [case.name for case in CASES]
    assert len(CASES) >= 500
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_option_that_qemu_io_lists_is_in_a_case():
    given = set()
    for case in CASES:
        given |= {option.partition("=")[0] for option in case.options}
        for line in (*case.commands, *(case.stdin or "").splitlines()):
            command, *words = line.split() or [""]
            given |= {f"{command} -{letter}" for word in words if re.match("-[A-Za-z]", word) for letter in word[1:]}
    options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", oracles.run("qemu-io", "--help").stdout, re.MULTILINE)
    listed = {*options} - {"--help", "--version"}
    for command, syntax in re.findall(r"^(\w+) (.*?) -- ", oracles.run("qemu-io", "-c", "help").stdout, re.MULTILINE):
        listed |= {f"{command} -{letter}" for letters in re.findall(r"-([A-Za-z]+)", syntax) for letter in letters}
    assert len(listed) > 50
    assert listed - given == set()


def test_every_difference_is_of_a_case():
    assert [name for name in DIFFERENCES if not any(case.name.startswith(name) for case in CASES)] == []


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A directory with the images that the cases start from."""
    path = tmp_path_factory.mktemp("io-images")

    def image(name, *commands, size="4M", format="qcow2", **options):
        oracles.create_image(path / name, size, format=format, **options)
        oracles.run("qemu-io", "-f", format, *(f"-c{command}" for command in commands), path / name)

    content = ("write -P 0x11 0 64k", "write -P 0x22 1M 64k", "write -P 0x33 1200k 100k")
    image("disk.qcow2", *content)
    image("other.raw", "write -P 0x11 0 64k", "write -P 0x22 512k 64k", size="1M", format="raw")
    image("base.qcow2", *content, size="3584k")
    image("over.qcow2", "write -P 0x33 2M 64k", "write -z 512k 64k", backing="base.qcow2")
    image("v2.qcow2", *content, version=2)
    image("small.qcow2", "write -P 0x11 0 64k", size="1M", cluster_size=512)
    image("large.qcow2", *content, cluster_size=2 << 20)
    image("lost.qcow2")
    oracles.qemu_img("rebase", "-u", "-b", "gone.qcow2", "-F", "qcow2", path / "lost.qcow2")
    image("copy.raw", *content, format="raw")
    image("wrong.raw", *content, "write -P 9 1M 1", format="raw")
    secret = ("--object", "secret,id=s,data=geheim")
    locked = "encrypt.format=aes,encrypt.key-secret=s"
    oracles.qemu_img("create", "-q", "-f", "qcow2", *secret, "-o", locked, path / "locked.qcow2", "4M")
    opened = f"driver=qcow2,encrypt.key-secret=s,file.filename={path}/locked.qcow2"
    oracles.run("qemu-io", *secret, "--image-opts", "-cwrite -P 0x44 0 64k", opened)
    stale = oracles.create_image(path / "stale.qcow2", "1M")
    oracles.qemu_img("bitmap", "--add", stale, "b0")
    with stale.open("r+b") as file:  # as if somebody had written who knows no bitmaps
        file.seek(88)
        file.write(bytes(8))
    (path / "pattern").write_bytes(bytes(range(256)) + b"end")
    for name, ((event, number, once), _) in io_cases.RULES.items():
        rule = f'[inject-error]\nevent = "{event}"\nerrno = "{number}"\nonce = "{once}"\n'
        (path / f"{name}.conf").write_text(rule)
    return path


@pytest.fixture
def both(images, tmp_path):
    """Call `both(case) -> (theirs, ours)`: what the program did, on copies of the images."""

    def both(case):
        qemu = oracles.find_program("qemu-io") or "qemu-io"
        return (
            _run(case, [qemu], shutil.copytree(images, tmp_path / "theirs")),
            _run(case, [sys.executable, "-I", "-c", OURS], shutil.copytree(images, tmp_path / "ours")),
        )

    return both


def _run(case: Case, program: list[str], directory: Path) -> tuple[int, str, str]:
    arguments = [*case.options, *(word for command in case.commands for word in ("-c", command))]
    arguments += [] if case.image is None else [case.image]
    done = subprocess.run(
        [*program, *arguments],
        cwd=directory,
        input=case.stdin or "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    return done.returncode, _masked(done.stdout), _masked(done.stderr)


def _masked(text: str) -> str:
    """Output without times and rates, and without the words of a usage line that follow " -- "."""
    text = re.sub(r"ops; .*\(.*\)$", "ops; TIME", text, flags=re.M)
    text = re.sub(r"^(\d+,1),[\d:.]+,[\d.]+,[\d.]+$", r"\1,TIME", text, flags=re.M)
    return re.sub(r"^(\w+ .*) -- .*$", r"\1 -- WHAT", text, flags=re.M)


def _same_images(ours: Path, theirs: Path) -> None:
    for image in sorted(theirs.glob("*.qcow2")):
        mine = ours / image.name
        if mine.read_bytes() == image.read_bytes() or image.name == "lost.qcow2":
            continue
        if image.name == "locked.qcow2":
            opts = "driver=qcow2,encrypt.key-secret=s,file.filename="
            oracles.qemu_img(
                "compare", "--object", "secret,id=s,data=geheim", "--image-opts", f"{opts}{image}", f"{opts}{mine}"
            )
        else:
            oracles.qemu_img("compare", "-f", "qcow2", "-F", "qcow2", image, mine)
        theirs_leak = oracles.check_image(image)["status"] == 3
        oracles.assert_clean(mine, allow_leaks=theirs_leak)
    for image in sorted(theirs.glob("*.raw")):
        assert (ours / image.name).read_bytes() == image.read_bytes(), image.name


def _difference(case: Case) -> int:
    level = next((level for name, (level, _) in DIFFERENCES.items() if case.name.startswith(name)), 0)
    return OUTPUT if case.known else level


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if number % SAMPLE == 0 else pytest.mark.slow)
        for number, case in enumerate(CASES)
    ],
)
def test_the_same_as_qemu_io(both, case, tmp_path):
    theirs, ours = both(case)
    alike = len(theirs) - _difference(case)
    assert ours[:alike] == theirs[:alike]
    assert "Traceback" not in ours[2]
    if alike:
        _same_images(tmp_path / "ours", tmp_path / "theirs")
