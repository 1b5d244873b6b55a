"""The program e2kdisk-img: finds the sub-command in a table; whatever goes wrong becomes one line.

Only what every sub-command needs is imported here: `info` shall not cost more than a few times qemu-img's.
"""

from __future__ import annotations

import os
import sys

from e2kdisk.tools.img.errors import Failure, called_as, program_name, report, usage, write_error
from e2kdisk.tools.short_run import begin, end
from e2kdisk.tools.standard_output import install

COMMANDS = (
    "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure",
    "rebase", "resize", "snapshot",
)  # fmt: skip
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    _prepare_streams()
    status = _status(sys.argv[1:] if arguments is None else list(arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except (OSError, ValueError):
        _drop_output()
        status = status or 1
    return status


def script() -> None:
    """Run as a script."""
    called_as(sys.argv[0])
    begin()
    if sys.argv[1:2] != ["info"]:  # over before anybody could interrupt it, and the import would be felt
        import signal

        # Ctrl-C ends it on the spot, as qemu-img; images are in order at any moment.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = install()
    status = main()
    if output is not None and output.complaint is not None:
        report(output.complaint)
    end(status)


def _status(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except Failure as failure:
        report(failure.text)
        write_error(failure.tail)
        return failure.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """What the engine refuses where the command has no words of its own."""
    from e2kdisk.errors import E2kDiskError, MismatchError

    if isinstance(error, MismatchError):
        write_error(f"{error}\n")  # in the words of blkverify, which ends the program where it is
    elif isinstance(error, OSError):
        name = error.filename
        shown = f"{os.fsdecode(name)}: " if name is not None else ""
        report(f"{shown}{error.strerror or error}")
    elif isinstance(error, E2kDiskError):
        report(str(error))
    elif isinstance(error, MemoryError):
        report("not enough memory")
    else:
        if os.environ.get("E2KDISK_DEBUG"):
            raise error
        report(f"this is a mistake in e2kdisk itself: {type(error).__name__}: {error} (E2KDISK_DEBUG=1 shows where)")
    return 1


def _run(arguments: list[str]) -> int:
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option in ("-h", "--help"):
            return _help()
        if option in ("-V", "--version"):
            return _version()
        name, equals, _ = option.partition("=")
        if name in ("-T", "--trace"):
            if not equals and not arguments:
                raise usage(f"missing argument for option '{option}'")
            if not equals:
                arguments.pop(0)  # accepted, nothing is traced
            continue
        if option.startswith("-T"):
            continue
        raise usage(f"unrecognized option '{option}'")
    if not arguments:
        raise usage("Not enough arguments")
    name = arguments[0]
    if name not in COMMANDS:
        raise usage(f"Command not found: {name}")
    from e2kdisk.tools.img.given import HelpWanted

    module = __import__(f"e2kdisk.tools.img.{name}_command", fromlist=["run"])
    try:
        status: int = module.run(arguments[1:])
    except HelpWanted:
        return _help()
    return status


def _version() -> int:
    import e2kdisk

    print(f"{program_name()} (e2kdisk) version {e2kdisk.__version__}, as qemu-img version 7.2")
    return 0


def _help() -> int:
    from e2kdisk.tools.img.help import help_text

    print(help_text(program_name()))
    return 0


def _drop_output() -> None:
    """Let what could not be printed go nowhere when the interpreter tries once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _prepare_streams() -> None:
    """Names are bytes and are printed as the bytes they are; a closed stream is as good as /dev/null.

    With a standard stream closed, the next file that is opened would get its number, and be printed into.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(1 if stream == "stdout" else 2, "w", closefd=False))  # noqa: SIM115
        reconfigure = getattr(getattr(sys, stream), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape", encoding="utf-8")
