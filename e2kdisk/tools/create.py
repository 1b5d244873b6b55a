"""e2kdisk create: a new qcow2 image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from e2kdisk.block.sizes import parse_size
from e2kdisk.errors import UsageError
from e2kdisk.tools.arguments import Parser, human, size
from e2kdisk.tools.hints import unknown_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = """\
Make a new qcow2 image. A file of this name is replaced, unless it is in use.

examples:
  $ e2kdisk create disk.qcow2 1G
  $ e2kdisk create disk.qcow2 64M -o cluster_size=4K,version=2
  $ e2kdisk create overlay.qcow2 -b disk.qcow2 -F qcow2
"""

OPTIONS_HELP = """\
options for -o, as KEY=VALUE,...:
  version=2|3              3 unless given; compat=0.10|1.1 says the same
  cluster_size=SIZE        512 to 2M, 64K unless given
  refcount_bits=BITS       1 to 64, 16 unless given
  lazy_refcounts=on|off    off unless given
"""


def parser() -> Parser:
    """The arguments of this command."""
    parser = Parser("create", HELP, OPTIONS_HELP)
    parser.add_argument("file", metavar="FILE", help="the image to make")
    parser.add_argument(
        "size",
        metavar="SIZE",
        nargs="?",
        type=size("SIZE"),
        help="size of the disk that a guest sees: bytes, or a number with K, M, G or T; "
        "with -b it may be left out: as large as the backing file",
    )
    parser.add_argument("-o", metavar="OPTIONS", action="append", default=[], dest="options", help="see below")
    parser.add_argument("-b", "--backing", metavar="FILE", help="what is not written to the new image is read here")
    parser.add_argument("-F", "--backing-format", metavar="FORMAT", help="qcow2 or raw; needed with -b")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    given = parser().parse_args(arguments)
    options = create_options(given.options)
    if given.backing is None and given.size is None:
        raise UsageError(f"{given.file}: how large shall it be? for example: e2kdisk create {given.file} 1G")
    if given.backing is not None and given.backing_format is None:
        raise UsageError(f"{given.file}: which format has {given.backing}? add -F qcow2 or -F raw")

    from e2kdisk.qcow2.create import create
    from e2kdisk.qcow2.info import info

    create(given.file, given.size, backing_file=given.backing, backing_format=given.backing_format, **options)
    if not given.quiet:
        made = info(given.file)
        over = f" over {given.backing}" if given.backing else ""
        print(
            f"{given.file}: qcow2 version {made.header.version}, {human(made.virtual_size)}{over}, "
            f"clusters of {human(made.cluster_size)}"
        )
    return 0


def create_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parse the values of -o into arguments of qcow2.create. Raises UsageError that names the part that is wrong."""
    options: dict[str, Any] = {}
    for part in ",".join(texts).split(","):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if key not in _OPTIONS:
            raise unknown_name("option -o", key, _OPTIONS)
        if not equals:
            raise UsageError(f"option -o {key} has no value; it is written {key}=VALUE")
        argument, convert = _OPTIONS[key]
        options[argument] = convert(key, value)
    return options


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{key}={text}: must be a number")
    return int(text)


def _one_of(**values: object) -> Callable[[str, str], object]:
    def convert(key: str, text: str) -> object:
        if text not in values:
            raise UsageError(f"{key}={text}: must be {' or '.join(values)}")
        return values[text]

    return convert


_OPTIONS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "version": ("version", _one_of(**{"2": 2, "3": 3})),
    "compat": ("version", _one_of(**{"0.10": 2, "1.1": 3, "v2": 2, "v3": 3})),
    "cluster_size": ("cluster_size", parse_size),
    "refcount_bits": ("refcount_bits", _number),
    "lazy_refcounts": ("lazy_refcounts", _one_of(on=True, off=False)),
}
