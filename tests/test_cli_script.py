"""Scripts for the guest's console: what the lines mean, and errors that name the line."""

import pytest

from e2kdisk.errors import UsageError
from e2kdisk.tools.script import DEFAULT_LIMIT, Expect, PowerOff, Send, Sleep, Vm, load_script, parse_script


def only(line):
    (step,) = parse_script(line)
    return step


@pytest.mark.parametrize(
    ("line", "regex", "seconds"),
    [
        ("expect =>", "=>", DEFAULT_LIMIT),
        ("expect => 10", "=>", 10),
        ("expect Hit any key 2.5", "Hit any key", 2.5),
        ('expect "=> " 10', "=> ", 10),
        ('expect "=> "', "=> ", DEFAULT_LIMIT),
        ("expect 'crc32 1234'", "crc32 1234", DEFAULT_LIMIT),
        ('expect say "x" 3', 'say "x"', 3),
        (r'expect "\d+ bytes"', r"\d+ bytes", DEFAULT_LIMIT),
        ('  expect "a" or "b" ', 'a" or "b', DEFAULT_LIMIT),
    ],
)
def test_expect_has_a_pattern_and_perhaps_a_limit(line, regex, seconds):
    step = only(line)
    assert isinstance(step, Expect)
    assert (step.pattern.pattern, step.seconds) == (regex, seconds)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("send help", b"help\r"),
        ("send", b"\r"),
        (r"send \x03\c", b"\x03"),
        (r"send a\tb\\", b"a\tb\\\r"),
        (r"send dir c:\\c", b"dir c:\\c\r"),
        ("send größe", "größe\r".encode()),
        ("send  two  words", b"two  words\r"),
    ],
)
def test_send_types_the_text_and_enter(line, data):
    assert only(line) == Send(1, data)


def test_the_other_steps():
    text = "# a comment\n\nsleep 0.5\npoweroff\npoweroff 3\n"
    assert parse_script("savevm at the prompt") == [Vm(1, "savevm", "at the prompt")]
    assert parse_script(text) == [Sleep(3, 0.5), PowerOff(4, DEFAULT_LIMIT), PowerOff(5, 3)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("expect", "expect what"),
        ("savevm", "savevm what"),
        ("expect (", "not a regular expression"),
        ("expect .*", "would not wait"),
        ("sleep", "not a number of seconds"),
        ("sleep soon", "not a number of seconds"),
        ("sleep -1", "not a number of seconds"),
        ("poweroff now", "not a number of seconds"),
        (r"send \q", "not an escape"),
        ("exepct =>", "unknown step 'exepct'; known are expect"),
    ],
)
def test_a_wrong_line_is_named(line, complaint):
    with pytest.raises(UsageError, match=rf"^boot\.txt, line 2: .*{complaint}") as raised:
        parse_script(f"send ok\n{line}\n", "boot.txt")
    assert "\n" not in str(raised.value)


def test_a_script_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"^script .*nowhere\.txt: No such file"):
        load_script(str(tmp_path / "nowhere.txt"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        load_script(str(tmp_path / "binary"))
