"""The commands about breakpoints, which blkdebug nodes have: break, remove_break, resume, wait_break."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from e2kdisk.tools.io.command import Command
from e2kdisk.tools.io.session import CommandFailed, Mistake, Session


def break_(session: Session, command: Command, words: list[str]) -> None:
    """Set a breakpoint."""
    event, tag = words
    _on_debug_node(session, "Could not set breakpoint", lambda node: node.break_at(event, tag))


def remove_break(session: Session, command: Command, words: list[str]) -> None:
    """Remove a breakpoint."""
    tag = words[0]
    try:
        _on_debug_node(session, f"Could not remove breakpoint {tag}", lambda node: node.remove_break(tag))
    finally:
        session.scheduler.poll()


def resume(session: Session, command: Command, words: list[str]) -> None:
    """Let a suspended request go on."""
    tag = words[0]
    _on_debug_node(session, "Could not resume request", lambda node: node.resume(tag))
    session.scheduler.poll()


def wait_break(session: Session, command: Command, words: list[str]) -> None:
    """Wait until a request is suspended under a tag."""
    tag = words[0]
    session.need_image()
    while not any(node.is_suspended(tag) for node in session.debug_nodes()):
        if not session.scheduler.wait():
            session.print_reports()
            raise Mistake(f"no request comes to breakpoint '{tag}'")
    session.print_reports()


def _on_debug_node(session: Session, what: str, act: Callable[..., None]) -> None:
    session.need_image()
    nodes = session.debug_nodes()
    if not nodes:
        raise CommandFailed(f"{what}: {os.strerror(errno.EOPNOTSUPP)}")
    try:
        act(nodes[-1])
    except FileNotFoundError as error:
        raise CommandFailed(f"{what}: {error.strerror}") from None
