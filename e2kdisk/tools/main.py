"""The command e2kdisk: finds the sub-command in a table, and turns whatever goes wrong into one line.

Nothing is imported here that `e2kdisk --help` does not need.

Exit status: 0, it worked; 1, it did not, and one line says why; 130, Ctrl-C. What else a command returns, its own
help says.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import e2kdisk

PROGRAM = "e2kdisk"
INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C has ended."""

OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "see it work: Elbrus firmware boots a kernel from a new disk",
        "e2kdisk demo --board virt-arm64",
        "e2kdisk.tools.demo",
    ),
    "run": (
        "run a firmware with disks, in your terminal or from a script",
        "e2kdisk run --board virt-arm64 --bios u-boot.bin --drive disk.qcow2",
        "e2kdisk.tools.run",
    ),
    "create": (
        "make a new qcow2 image, empty or on top of another image",
        "e2kdisk create disk.qcow2 1G",
        "e2kdisk.tools.create",
    ),
    "info": ("say what an image is", "e2kdisk info disk.qcow2", "e2kdisk.tools.info"),
    "check": ("look for damage in a qcow2 image", "e2kdisk check disk.qcow2", "e2kdisk.tools.check"),
    "asm": ("assemble a program for Elbrus (e2k)", "e2kdisk asm boot.s -o boot.bin", "e2kdisk.tools.asm"),
    "disasm": (
        "show the wide instructions of an Elbrus image",
        "e2kdisk disasm boot.bin --base 0x100000000",
        "e2kdisk.tools.disasm",
    ),
    "lab": (
        "run a guest under every order, error and power cut, from a seed",
        "e2kdisk lab explore guest-arm64 --rules power --seeds 1000",
        "e2kdisk.tools.lab",
    ),
    "qtest": (
        "boards for test programs in the place of the CPU, as QEMU's -qtest",
        "e2kdisk qtest -machine virt-arm64 -qtest stdio",
        "e2kdisk.tools.qtest",
    ),
    "io": (
        "requests to an image by hand or from a script, as qemu-io",
        "e2kdisk io -c 'write -P 0x55 0 64k' disk.qcow2",
        "e2kdisk.tools.io.program",
    ),
    "img": (
        "what qemu-img does, said as qemu-img says it",
        "e2kdisk img convert -O qcow2 disk.raw disk.qcow2",
        "e2kdisk.tools.img.main",
    ),
}
"""Name -> what it does, an example, the module whose main(arguments) does it."""


EMULATOR = "qemu-system-"
"""A name that begins so means the command qtest, in whose place it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; never raises for what a user can do wrong."""
    _make_every_name_printable()
    called = os.path.basename(sys.argv[0]) if arguments is None else ""
    program = called if called.startswith(EMULATOR) else PROGRAM
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = _exit_status(arguments, program)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk still becomes one line
        return status
    except KeyboardInterrupt:
        _complain("interrupted", program)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # whoever reads it has seen enough
        return 1
    except OSError as error:
        _complain(_os_error(error), program)
        return 1
    except Exception as error:
        if os.environ.get("E2KDISK_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        _complain(f"this is a mistake in e2kdisk itself: {what} (please report it; E2KDISK_DEBUG=1 shows where)")
        return 1


def _exit_status(arguments: Sequence[str], program: str) -> int:
    from e2kdisk.errors import E2kDiskError

    try:
        if program != PROGRAM:
            from e2kdisk.tools.qtest import main as qtest

            return qtest(arguments, program)
        return _run(arguments)
    except SystemExit as end:  # argparse after --help, a signal
        return end.code if isinstance(end.code, int) else 0
    except E2kDiskError as error:
        from e2kdisk.tools.hints import hint_for

        hint = hint_for(error)
        _complain(f"{error} ({hint})" if hint else str(error), program)
        return 1


def _run(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        if name == "help" and len(arguments) > 1:
            return _run([arguments[1], "--help"])
        print(help_text())
        return 0
    if name in ("--version", "-V"):
        print(f"e2kdisk {e2kdisk.__version__}")
        return 0
    if name not in COMMANDS:
        from e2kdisk.tools.hints import unknown_command

        raise unknown_command(name, list(COMMANDS))
    from importlib import import_module

    status: int = import_module(COMMANDS[name][2]).main(arguments[1:])
    return status


def help_text() -> str:
    """What `e2kdisk --help` prints."""
    commands = "\n".join(f"  {name:8}{what}\n          $ {example}\n" for name, (what, example, _) in COMMANDS.items())
    return f"""\
e2kdisk {e2kdisk.__version__}: a virtual disk for emulators.

A guest runs on an emulated CPU and drives a disk controller through its
registers; the controller moves sectors between the guest's memory and an image
file (qcow2 or raw). New here? Start with `e2kdisk demo`.

usage: e2kdisk COMMAND [OPTION...]

{commands}
`e2kdisk COMMAND --help` explains one command. `e2kdisk --version` says which
e2kdisk this is. When something is wrong, one line says what, and the exit
status is 1."""


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOMEM:
        reason += " (a smaller --ram may do)"
    name = error.filename
    if name is None and error.errno in OUTPUT_ERRORS:
        # Every file that we open is named in its errors, so this can only be what we print.
        _drop_output()
        name = "standard output"
    return reason if name is None else f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {reason}"


def _complain(line: str, program: str = PROGRAM) -> None:
    if sys.stderr is not None:  # print() would turn to the standard output
        from contextlib import suppress

        with suppress(OSError):
            print(f"{program}: {' '.join(line.splitlines())}", file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Let what could not be printed go nowhere when the interpreter tries once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _make_every_name_printable() -> None:
    """File names are bytes: those that are no text are printed as the bytes they are, not refused."""
    import codecs

    def as_bytes(error: UnicodeError) -> tuple[bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        characters = error.object[error.start : error.end]
        return bytes(ord(c) & 0xFF if "\udc80" <= c <= "\udcff" else ord("?") for c in characters), error.end

    codecs.register_error("e2kdisk", as_bytes)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="e2kdisk")
