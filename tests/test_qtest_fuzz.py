"""Whatever a test program sends, each line has one answer and the next line is heard; nobody gets a traceback."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2kdisk.exports.qtest.command_line import OPTIONS
from e2kdisk.exports.qtest.protocol import VERBS
from e2kdisk.exports.qtest.qmp import COMMANDS
from e2kdisk.tools.main import main
from tests.qtest_lab import Inside

NULL = "file=null-co://,format=raw,if=none"
A_SLOT = ["-drive", f"{NULL},id=a", "-device", "virtio-blk-device,drive=a"]
A_FUNCTION = ["-drive", f"{NULL},id=b", "-device", "virtio-blk-pci,drive=b"]
AN_IDE_DRIVE = ["-drive", f"{NULL},id=c", "-device", "ide-hd,drive=c"]
BOARDS = {
    "arm": ("qemu-system-aarch64", ["-M", "virt", "-m", "16", *A_SLOT, *A_FUNCTION]),
    "riscv": ("qemu-system-riscv64", ["-M", "virt", "-m", "16", *A_SLOT]),
    "e2k": ("qemu-system-e2k", ["-M", "elbrus", "-m", "16", *AN_IDE_DRIVE, *A_FUNCTION]),
}

places = st.sampled_from(
    [0, 0x1F0, 0x3F6, 0xCF8, 0xCFC, 0x0200_0000, 0x0800_0000, 0x0900_0000, 0x0A00_0000, 0x0A00_3E00]
)
places |= st.sampled_from([0x1000_1000, 0x1000_8000, 0x10_0000, 0x3EFF_0000, 0x4000_0000, 0x40_1000_8000, 0x8000_1000])
places |= st.sampled_from([0xFEC0_0000, 0xFEE0_0000, 0x1_0000_0000, 0x1_0100_01F0, 0x2_0001_8000, (1 << 64) - 2])
numbers = st.builds(lambda place, more: hex(place + more), places, st.integers(0, 0x110))
numbers |= st.integers(0, 600).map(str) | st.integers(-(1 << 65), 1 << 65).map(str) | st.text(max_size=5)
texts = st.text("0123456789abcdefxzAZ+/=", max_size=40)
verbs = st.sampled_from(sorted({name for name, _ in VERBS})) | st.text(max_size=8)
lines = st.builds(
    lambda verb, words: " ".join([verb, *words]).replace("\n", ""),
    verbs,
    st.lists(numbers | texts | st.just("gic") | st.just("ioapic"), max_size=4),
)


@pytest.fixture(scope="module")
def boards():
    machines = {board: Inside(*options, name=name) for board, (name, options) in BOARDS.items()}
    yield machines
    for machine in machines.values():
        machine.emulator.close()


def check(inside, lines):
    """Each line must have one answer, and the next one must be heard."""
    for line in lines:
        said = inside.say(line.encode("utf-8", "surrogateescape") + b"\n").decode("utf-8", "surrogateescape")
        said = [answer for answer in said.split("\n")[:-1] if not answer.startswith("IRQ ")]
        assert len(said) == 1, line
        assert said[0].split(" ")[0] in ("OK", "ERR", "FAIL")
    assert inside.ask("endianness") == "OK little"


@pytest.mark.parametrize("board", BOARDS)
@settings(max_examples=40)
@given(lines=st.lists(lines, max_size=10))
def test_each_line_has_one_answer(boards, board, lines):
    check(boards[board], lines)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@settings(max_examples=1000)
@given(lines=st.lists(lines, max_size=30))
def test_each_of_many_lines_has_one_answer(boards, board, lines):
    check(boards[board], lines)


@given(data=st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b"readb 0\n", b"\xff\n"]), max_size=10))
def test_any_bytes_leave_the_line_usable(boards, data):
    inside = boards["arm"]
    for piece in data:
        inside.say(piece)
    assert inside.say(b"\nendianness\n").endswith(b"OK little\n")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "b", "device"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(
    st.sampled_from(["device", "node-name", "size", "implements", "abstract", "x"]), values, max_size=3
)
names = st.sampled_from(sorted(set(COMMANDS) - {"quit"})) | st.text(max_size=5)
messages = st.fixed_dictionaries(
    {}, optional={"execute": names | values, "arguments": arguments | values, "id": values}
)


@settings(max_examples=60)
@given(messages=st.lists(messages | values, max_size=6))
def test_each_message_has_one_answer(messages):
    with Inside("-machine", "none") as inside:
        inside.qmp.opened()
        inside.say(b'{"execute": "qmp_capabilities"}', inside.qmp)
        for message in messages:
            text = json.dumps(message).encode() + b" "
            said = [json.loads(line) for line in inside.say(text, inside.qmp).splitlines()]
            answers = [answer for answer in said if "event" not in answer]
            assert len(answers) == 1
            assert {"return", "error"} & answers[0].keys()


@given(pieces=st.lists(st.binary(max_size=20) | st.sampled_from([b"{", b"[", b'"', b"'", b"\\", b"}"]), max_size=12))
def test_after_any_bytes_a_message_is_heard(pieces):
    with Inside("-machine", "none") as inside:
        inside.qmp.opened()
        for piece in pieces:
            inside.say(piece, inside.qmp)
        said = inside.say(b'\xff{"execute": "qmp_capabilities", "id": "x"}', inside.qmp)
        assert json.loads(said.splitlines()[-1])["id"] == "x"


WORDS = ["virt-arm64", "elbrus", "none", "virtio-blk-device", "virtio-blk-pci", "ide-hd", "drive=d", "id=d", "if=none"]
WORDS += [
    "file=null-co://",
    "format=raw",
    "addr=4",
    "bus=ide.0",
    "unit=1",
    "off",
    "null",
    "serial=x",
    "qcow2",
    "node-name=n",
]
WORDS += [
    "help",
    "16",
    "size=32M",
    "backend=null",
    "mode=control",
    "chardev=d",
    "chardev:d",
    "driver=file",
    "filename=/",
    "{}",
]
option_values = st.lists(st.sampled_from(WORDS) | st.text('abc=,.:-{}"[]019', max_size=6), max_size=4).map(",".join)
NOT_HERE = ("qtest-log",)
"""They write where they are told."""
options = st.sampled_from(sorted(set(OPTIONS) - set(NOT_HERE))).flatmap(
    lambda name: (
        st.tuples(st.just("-" + name), option_values) if OPTIONS[name].argument else st.tuples(st.just("-" + name))
    )
)


@settings(max_examples=60)
@given(chosen=st.lists(options, max_size=6))
def test_any_command_line_works_or_is_refused_in_one_line(chosen):
    words = ["-qtest-log", "none", *(word for option in chosen for word in option), "-M", "virt-arm64"]
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        status = main(["qtest", *words])
    assert "mistake in e2kdisk itself" not in said.getvalue()
    assert (status, said.getvalue().count("\n")) in ((0, 0), (1, 1))
