"""Options as the C library's getopt reads them: clusters, values attached or not, words between; its messages."""

from __future__ import annotations

from collections.abc import Sequence


class OptionError(Exception):
    """A wrong option; the text is the C library's, without the program's name."""


def short_options(words: Sequence[str], spec: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Split words into (letter, value) pairs and the other words; in spec a letter with a value has a ":" after it.

    Raises OptionError.
    """
    return options(words, spec, {})


def options(words: Sequence[str], spec: str, names: dict[str, bool]) -> tuple[list[tuple[str, str]], list[str]]:
    """The same with long options: name -> whether it has a value. Unique beginnings of names are understood."""
    with_value = {letter for letter, after in zip(spec, spec[1:] + " ", strict=True) if after == ":"}
    found: list[tuple[str, str]] = []
    others: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            others += queue
            break
        if word.startswith("--"):
            found.append(_long(word[2:], queue, names))
        elif word.startswith("-") and len(word) > 1:
            _cluster(word[1:], queue, spec, with_value, found)
        else:
            others.append(word)
    return found, others


def _cluster(letters: str, queue: list[str], spec: str, with_value: set[str], found: list[tuple[str, str]]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter == ":" or letter not in spec:
            raise OptionError(f"invalid option -- '{letter}'")
        if letter not in with_value:
            found.append((letter, ""))
            continue
        if not letters:
            if not queue:
                raise OptionError(f"option requires an argument -- '{letter}'")
            letters = queue.pop(0)
        found.append((letter, letters))
        return


def _long(text: str, queue: list[str], names: dict[str, bool]) -> tuple[str, str]:
    given, equals, value = text.partition("=")
    close = [given] if given in names else [name for name in names if name.startswith(given)]
    if not close:
        raise OptionError(f"unrecognized option '--{given}'")
    if len(close) > 1:
        known = " ".join(f"'--{name}'" for name in close)
        raise OptionError(f"option '--{text}' is ambiguous; possibilities: {known}")
    name = close[0]
    if not names[name]:
        if equals:
            raise OptionError(f"option '--{name}' doesn't allow an argument")
        return name, ""
    if not equals:
        if not queue:
            raise OptionError(f"option '--{name}' requires an argument")
        value = queue.pop(0)
    return name, value
