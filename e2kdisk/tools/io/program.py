"""e2kdisk io: reads the command line, opens the image, runs the commands of -c or of the standard input.

Exit status: 0, every command worked; 1, one did not, or the image could not be opened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from e2kdisk.tools.io.getopt import OptionError, options
from e2kdisk.tools.short_run import begin, end
from e2kdisk.tools.standard_output import install

SHORT = "hVc:d:f:rsnCmki:t:T:U"
LONG = {
    "help": False,
    "version": False,
    "cmd": True,
    "format": True,
    "read-only": False,
    "snapshot": False,
    "nocache": False,
    "copy-on-read": False,
    "misalign": False,
    "native-aio": False,
    "aio": True,
    "discard": True,
    "cache": True,
    "trace": True,
    "force-share": False,
    "object": True,
    "image-opts": False,
}
LETTERS = {
    "help": "h",
    "version": "V",
    "cmd": "c",
    "format": "f",
    "read-only": "r",
    "snapshot": "s",
    "nocache": "n",
    "copy-on-read": "C",
    "misalign": "m",
    "native-aio": "k",
    "aio": "i",
    "discard": "d",
    "cache": "t",
    "trace": "T",
    "force-share": "U",
}

HELP = """\
usage: {program} [OPTIONS]... [-c STRING]... [file]
Requests to a disk image, by hand or from a script, as qemu-io makes them.

  -c, --cmd STRING     run this command; several run one after the other.
                       Without -c, commands are read from the standard input
  -f, --format FMT     format of the image: qcow2, raw; guessed without it
      --image-opts     file is a list of options: driver=qcow2,file.filename=...
      --object OBJECT  a secret: secret,id=NAME,data=TEXT, or file=FILE
  -r, --read-only      open for reading only
  -s, --snapshot       writes go to a temporary overlay
  -C, --copy-on-read   keep in the image what is read from its backing file
  -t, --cache=MODE     writeback, writethrough, none, directsync, unsafe
  -n, --nocache        past the host's cache, as -t none
  -d, --discard=MODE   ignore, unmap
  -i, --aio=MODE       threads; native and io_uring are read, threads do it
  -k, --native-aio     as -i native
  -m, --misalign       use buffers that are not aligned
  -U, --force-share    open although somebody writes to it; with -r
  -T, --trace PATTERN  is read, there is nothing to trace
  -h, --help           this text
  -V, --version        which version this is

`{program} -c help` lists the commands."""


class _Given:
    """The command line."""

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.commands: list[str] = []
        self.format: str | None = None
        self.image_opts = False
        self.objects: list[str] = []
        self.letters: set[str] = set()
        self.values: dict[str, str] = {}


def script() -> None:
    """The program e2kdisk-io, under whatever name it was called."""
    begin()
    import signal

    # Ctrl-C ends it on the spot, as qemu-io; images are in order at any moment.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = install()
    program = os.path.basename(sys.argv[0]) or "e2kdisk-io"
    status = _guarded(sys.argv[1:], program)
    if output is not None and output.complaint is not None and sys.stderr is not None:
        print(f"{program}: {output.complaint}", file=sys.stderr)
    end(status)


def main(arguments: Sequence[str]) -> int:
    """The sub-command of e2kdisk."""
    return _guarded(arguments, "e2kdisk io")


def _guarded(arguments: Sequence[str], program: str) -> int:
    """Run, and let no stack trace out for what is the world's fault."""
    try:
        status = run(arguments, program)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if sys.stderr is not None:
            print(f"{program}: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def run(arguments: Sequence[str], program: str) -> int:
    """Run one command line; its exit status."""
    try:
        given = _parse(arguments)
    except OptionError as error:
        sys.stdout.flush()
        # As getopt says it: under the whole name that the program was called by.
        called = program if " " in program else sys.argv[0]
        print(f"{called}: {error}", file=sys.stderr, flush=True)
        print(HELP.format(program=program))
        return 1
    if "h" in given.letters:
        print(HELP.format(program=program))
        return 0
    if "V" in given.letters:
        import e2kdisk

        print(f"{program} (e2kdisk) {e2kdisk.__version__}")
        return 0
    if len(given.files) > 1:
        print(HELP.format(program=program))
        return 1
    from e2kdisk.tools.main import _make_every_name_printable

    _make_every_name_printable()
    return _run(given, program)


def _parse(arguments: Sequence[str]) -> _Given:
    found, files = options(arguments, SHORT, LONG)
    given = _Given(files=files)
    for name, value in found:
        letter = LETTERS.get(name, name)
        if letter == "c":
            given.commands.append(value)
        elif letter == "f":
            given.format = value
        elif letter == "image-opts":
            given.image_opts = True
        elif letter == "object":
            given.objects.append(value)
        else:
            given.letters.add(letter)
            given.values[letter] = value
            if letter in ("h", "V"):
                break
    return given


def _run(given: _Given, program: str) -> int:
    from e2kdisk.errors import MismatchError
    from e2kdisk.tools.io.image import OpenFlags
    from e2kdisk.tools.io.session import Mistake, Quit, Session

    session = Session(program, OpenFlags())
    worked = True
    from e2kdisk.tools.io.commands import run_line

    try:
        _prepare(session, given)
        for line in given.commands or _lines(session):
            worked = run_line(session, line) and worked
            sys.stdout.flush()
    except Mistake as mistake:
        session.mistake(str(mistake))
        worked = False
    except Quit:
        pass
    except MismatchError as error:
        # Found by blkverify: nothing is believed any more, and nothing written.
        session.complain(str(error))
        return 1
    return 0 if session.end() and worked else 1


def _prepare(session: object, given: _Given) -> None:
    """Secrets, flags and the image of the command line. Raises Mistake."""
    from e2kdisk.tools.io.image import OpenFlags
    from e2kdisk.tools.io.opening import cache_named, check_aio, discard_mode, option_pairs
    from e2kdisk.tools.io.session import Mistake, Session

    assert isinstance(session, Session)
    letters, values = given.letters, given.values
    flags = OpenFlags(
        read_only="r" in letters,
        snapshot="s" in letters,
        copy_on_read="C" in letters,
        force_share="U" in letters,
        cache="none" if "n" in letters else "writethrough",
        aio="native" if "k" in letters else "threads",
    )
    session.misaligned = "m" in letters
    if "d" in values:
        flags = flags.with_(discards=discard_mode(values["d"]))
    if "i" in values:
        flags = flags.with_(aio=check_aio(values["i"]))
    if "t" in values:
        flags = flags.with_(cache=cache_named(values["t"]))
    if "T" in values:
        session.warn(f"trace event '{values['T']}' does not exist")
    for text in given.objects:
        _add_secret(session, text)
    if given.format is not None and given.image_opts:
        raise Mistake("--image-opts and -f are mutually exclusive")
    if not given.files:
        return
    name = given.files[0]
    if given.image_opts:
        session.open(None, option_pairs(session, name), flags)
    else:
        session.open(name, {} if given.format is None else {"driver": given.format}, flags)


def _add_secret(session: object, text: str) -> None:
    from e2kdisk.crypto.secret import Secrets
    from e2kdisk.errors import UsageError
    from e2kdisk.tools.io.session import Mistake, Session
    from e2kdisk.tools.secret_objects import add_object

    assert isinstance(session, Session)
    if session.secrets is None:
        session.secrets = Secrets()
    try:
        add_object(session.secrets, text)
    except UsageError as error:
        raise Mistake(str(error)) from None


def _lines(session: object) -> Iterator[str]:
    """The lines of the standard input, each asked for with a prompt."""
    from e2kdisk.tools.io.session import Session

    assert isinstance(session, Session)
    if sys.stdin is None:
        return
    prompt = f"{session.program}> "
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        import readline  # noqa: F401 (input() then has a history and editing)
    while True:
        if terminal:
            session.poll()
        try:
            if terminal:
                line = input(prompt)
            else:
                sys.stdout.write(prompt)
                sys.stdout.flush()
                line = sys.stdin.readline()
                if not line:
                    return
        except (EOFError, ValueError):
            print()
            return
        yield line.rstrip("\n")
