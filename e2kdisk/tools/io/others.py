"""The commands that concern the program itself: help, quit, sleep, sigraise, abort."""

from __future__ import annotations

import os
import signal
import sys
import time

from e2kdisk.tools.io.command import Command, size
from e2kdisk.tools.io.session import CommandFailed, Quit, Session
from e2kdisk.tools.io.values import parse_number

MAX_SIGNAL = 64


def help_(session: Session, command: Command, words: list[str]) -> None:
    """Help [command]."""
    from e2kdisk.tools.io.commands import COMMANDS, find

    if words:
        found = find(words[0])
        if found is None:
            raise CommandFailed(f"command {words[0]} not found")
        session.say(found.usage)
        if found.help:
            session.say(f"\n{found.help.strip()}\n")
        return
    for one in COMMANDS:
        session.say(one.usage)
    session.say("\n'help COMMAND' says more about one command.")


def quit_(session: Session, command: Command, words: list[str]) -> None:
    """Quit."""
    raise Quit


def sleep(session: Session, command: Command, words: list[str]) -> None:
    """Let requests go on for some milliseconds."""
    milliseconds = parse_number(words[0])
    if milliseconds is None or milliseconds < 0:
        raise CommandFailed(f"{words[0]} is not a valid number")
    until = time.monotonic() + milliseconds / 1000
    while (left := until - time.monotonic()) > 0:
        if not session.scheduler.wait(left):
            time.sleep(max(0.0, until - time.monotonic()))
    if milliseconds:
        session.print_reports()


def sigraise(session: Session, command: Command, words: list[str]) -> None:
    """Raise a signal in this process."""
    number = size(session, words[0])
    if number > MAX_SIGNAL:
        raise CommandFailed(f"signal argument '{words[0]}' is too large to be a valid signal")
    sys.stdout.flush()
    if number:
        # As a C program dies of it: the interpreter's own handlers (SIGINT, SIGPIPE) would only raise an exception.
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def abort(session: Session, command: Command, words: list[str]) -> None:
    """End as after a failed assertion; nothing is closed."""
    sys.stdout.flush()
    import faulthandler

    faulthandler.disable()
    os.abort()
