"""The commands that open and close: open, close, reopen."""

from __future__ import annotations

from e2kdisk.block.open_tree import DISCARD_MODES
from e2kdisk.block.options import CACHE_MODES
from e2kdisk.block.tree import Tree, parse_pairs
from e2kdisk.errors import UsageError
from e2kdisk.tools.io.command import Command
from e2kdisk.tools.io.image import AIO_MODES, OpenFlags
from e2kdisk.tools.io.session import Mistake, Session, UsageMistake

CACHE_NAMES = {"off": "none"}
"""Other names of cache modes."""
CHANGEABLE = (
    "lazy-refcounts",
    "cache-size",
    "l2-cache-size",
    "l2-cache-entry-size",
    "refcount-cache-size",
    "cache-clean-interval",
    "overlap-check",
    "pass-discard-request",
    "pass-discard-snapshot",
    "pass-discard-other",
    "detect-zeroes",
    "discard",
    "read-only",
    "cache",
    "backing",
    "auto-read-only",
    "force-share",
)
"""Options that may change while an image is open."""


def cache_named(name: str) -> str:
    """A cache mode by any of its names. Raises Mistake."""
    name = CACHE_NAMES.get(name, name)
    if name not in CACHE_MODES:
        raise Mistake(f"Invalid cache option: {name}")
    return name


def discard_mode(name: str) -> bool:
    """Whether a discard mode passes discards on. Raises Mistake for what is none."""
    if name not in DISCARD_MODES:
        raise Mistake(f"Invalid discard option: {name}")
    return DISCARD_MODES[name]


def check_aio(name: str) -> str:
    """An AIO mode. Raises Mistake."""
    if name not in AIO_MODES:
        raise Mistake(f"Invalid aio option: {name}")
    return name


def option_pairs(session: Session, text: str) -> Tree:
    """Parse "key=value,..." and complain of keys without a value. Raises Mistake."""
    try:
        tree, bare = parse_pairs(text)
    except UsageError as error:
        raise Mistake(str(error)) from None
    for key in bare:
        session.warn(f"short-form boolean option '{key}' deprecated\nPlease use {key}=on instead")
    return tree


def open_(session: Session, command: Command, words: list[str]) -> None:
    """Open [-rsCnkU] [-t cache] [-d discard] [-o options] [path]."""
    options, rest = command.options(session, words, "snCro:ki:t:d:U")
    flags = OpenFlags(
        read_only="r" in options,
        snapshot="s" in options,
        copy_on_read="C" in options,
        force_share="U" in options,
        aio="native" if "k" in options else "threads",
    )
    if "n" in options:
        flags = flags.with_(cache="none")
    if "t" in options:
        flags = flags.with_(cache=cache_named(options["t"]))
    if "d" in options:
        flags = flags.with_(discards=discard_mode(options["d"]))
    if "i" in options:
        flags = flags.with_(aio=check_aio(options["i"]))
    tree: Tree = option_pairs(session, options["o"]) if "o" in options else {}
    if len(rest) > 1 or (not rest and "o" not in options):
        raise UsageMistake
    session.open(rest[0] if rest else None, tree, flags)


def close(session: Session, command: Command, words: list[str]) -> None:
    """Close."""
    session.need_image()
    session.close()


def reopen(session: Session, command: Command, words: list[str]) -> None:
    """Reopen [(-r|-w)] [-c cache] [-o options]: close the image and open it with other options."""
    image = session.need_image()
    flags, rest = image.flags, words
    options, rest = command.options(session, _access_once(words), "o:c:rw")
    if "c" in options:
        flags = flags.with_(cache=cache_named(options["c"]))
    if rest:
        raise UsageMistake
    if "r" in options or "w" in options:
        flags = flags.with_(read_only="r" in options)
    changes = option_pairs(session, options["o"]) if "o" in options else {}
    if ("r" in options or "w" in options) and "read-only" in changes:
        raise Mistake("Cannot set both -r/-w and 'read-only'")
    if "c" in options and "cache" in changes:
        raise Mistake("Cannot set both -c and the cache options")
    for key in changes:
        if key not in CHANGEABLE:
            raise Mistake(f"Cannot change the option '{key}'")
    if flags == image.flags and not changes:
        return
    name, before = image.name, image.options
    session.close()
    try:
        session.open(name, before | changes, flags)
    except Mistake as mistake:
        session.open(name, before, image.flags)
        text = str(mistake)
        raise Mistake(text.partition(": ")[2] if text.startswith("can't open") else text) from None


def _access_once(words: list[str]) -> list[str]:
    letters = "".join(word[1:] for word in words if word[:1] == "-" and set(word[1:]) <= set("rw"))
    if len(letters) > 1:
        raise Mistake("Only one -r/-w option may be given")
    return words
