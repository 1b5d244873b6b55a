"""What a command line gives, in the form in which every sub-command asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from e2kdisk.tools.img.errors import Failure, usage, write_error
from e2kdisk.tools.img.getopt import Options, parse

CACHE_MODES = ("writeback", "writethrough", "none", "off", "directsync", "unsafe")
LONG: dict[str, bool | str] = {
    "help": "h",
    "object": True,
    "image-opts": False,
}
"""What most commands know; "force-share" goes with U."""


class Given:
    """The options and file names of one command."""

    def __init__(
        self,
        arguments: Sequence[str],
        short: str,
        long: Mapping[str, bool | str] | None = None,
        *,
        without: str | None = None,
    ) -> None:
        """`without` names one that most commands know and this one does not.

        Raises Failure for options that are not known, Help if the help is wanted.
        """
        known = LONG | dict(long or {}) | ({"force-share": "U"} if "U" in short else {})
        known.pop(without or "", None)
        self.options: Options
        self.options, self.names = parse(arguments, "h" + short, known)
        if self.has("h"):
            raise HelpWanted
        self.json = self.value("output") == "json"

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return any(key == name for key, _ in self.options)

    def value(self, name: str) -> str | None:
        """The last value of an option."""
        return next((value for key, value in reversed(self.options) if key == name), None)

    def values(self, name: str) -> list[str]:
        """All values of an option."""
        return [value for key, value in self.options if key == name]

    @property
    def image_opts(self) -> bool:
        """File names are lists of options."""
        return self.has("image-opts")

    @property
    def quiet(self) -> bool:
        """Say nothing that is no error."""
        return self.has("q")

    @property
    def force_share(self) -> bool:
        """Read what somebody else may be writing."""
        return self.has("U")

    def need_output(self) -> None:
        """Check --output. Raises Failure."""
        if self.value("output") not in (None, "human", "json"):
            raise Failure("--output must be used with human or json as argument.")

    def one_name(self, text: str = "Expecting one image file name") -> str:
        """The only file name. Raises Failure."""
        if len(self.names) != 1:
            raise usage(text)
        if self.image_opts and self.has("f"):
            raise Failure("--image-opts and --format are mutually exclusive")
        return self.names[0]

    def cache(self, letter: str, default: str, what: str, status: int = 1) -> str:
        """The cache mode of -t or -T. Raises Failure."""
        mode = self.value(letter) or default
        if mode not in CACHE_MODES:
            raise Failure(f"Invalid {what} option: {mode}", status)
        return "none" if mode == "off" else mode


class HelpWanted(Exception):
    """--help was given."""


def warn_guessed(filename: str) -> None:
    """The warning about an image that is written to although its format was only guessed."""
    write_error(
        f"WARNING: Image format was not specified for '{filename}' and probing guessed raw.\n"
        "         Automatically detecting the format is dangerous for raw images, "
        "write operations on block 0 will be restricted.\n"
        "         Specify the 'raw' format explicitly to remove the restrictions.\n"
    )
