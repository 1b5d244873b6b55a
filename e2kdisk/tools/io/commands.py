"""The table of commands, and running one line of words."""

from __future__ import annotations

from e2kdisk.tools.io import breakpoints, inspecting, opening, others, reading, writing
from e2kdisk.tools.io.command import Command
from e2kdisk.tools.io.session import CommandFailed, Complaint, Mistake, Session, UsageMistake
from e2kdisk.tools.io.values import ValueProblem

_QUIET = """
  -q  say nothing when it worked
  -C  say it in one line for programs: bytes,requests,time,bytes per second,requests per second"""
_PATTERN = "  -P  the byte that is expected everywhere; another one makes the command fail"

COMMANDS = (
    Command("abort", others.abort, 0, 0, "", "crash at once, nothing is closed", needs_image=False),
    Command("aio_flush", inspecting.aio_flush, 0, 0, "", "wait for all asynchronous requests"),
    Command(
        "aio_read",
        reading.aio_read,
        2,
        -1,
        "[-Ciqv] [-P pattern] off len [len..]",
        "start to read bytes",
        help=f"Errors and differences are printed when the request ends; aio_flush waits for it.\n{_PATTERN}\n"
        f"  -v  print the bytes\n  -i  only say that an invalid request is injected{_QUIET}",
    ),
    Command(
        "aio_write",
        writing.aio_write,
        2,
        -1,
        "[-Cfiquz] [-P pattern] off len [len..]",
        "start to write bytes",
        writes=True,
        help="Errors are printed when the request ends; aio_flush waits for it.\n  -P  the byte to write, 0xcd\n"
        "  -f  durable when it ends\n  -z  zeros, as a request of their own; -u: their space may be given back\n"
        f"  -i  only say that an invalid request is injected{_QUIET}",
    ),
    Command("alloc", inspecting.alloc, 1, 2, "offset [count]", "say how much of a range the image itself holds"),
    Command("break", breakpoints.break_, 2, 2, "event tag", "suspend the next request that comes to an event"),
    Command("close", opening.close, 0, 0, "", "close the image", short="c"),
    Command(
        "discard",
        writing.discard,
        2,
        -1,
        "[-Cq] off len",
        "tell that bytes are not needed",
        short="d",
        writes=True,
        help=_QUIET.strip("\n"),
    ),
    Command("flush", inspecting.flush, 0, 0, "", "make what was written durable", short="f"),
    Command("help", others.help_, 0, 1, "[command]", "list the commands, or explain one", short="?", needs_image=False),
    Command("info", inspecting.info, 0, 0, "", "say what the image is", short="i"),
    Command("length", inspecting.length, 0, 0, "", "print the length of the disk", short="l"),
    Command("map", inspecting.map_, 0, 0, "", "list which parts the image itself holds"),
    Command(
        "open",
        opening.open_,
        1,
        -1,
        "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
        "open an image",
        short="o",
        needs_image=False,
        help="  -r  for reading only\n  -s  writes go to a temporary overlay\n  -C  keep what the backing file gives\n"
        "  -n  past the host's cache, as -t none\n  -U  although somebody writes to it\n"
        "  -t  writeback, writethrough, none, directsync, unsafe\n  -d  ignore, unmap\n"
        "  -o  options as key=value,...: driver, file.filename, lazy-refcounts, l2-cache-size, backing.file.filename",
    ),
    Command("quit", others.quit_, 0, -1, "", "end the program", short="q", needs_image=False),
    Command(
        "read",
        reading.read,
        2,
        -1,
        "[-abCqv] [-P pattern [-s off] [-l len]] off len",
        "read bytes",
        short="r",
        help=f"{_PATTERN}\n  -s  compare from this byte of the data on; -l: so many bytes\n  -v  print the bytes\n"
        f"  -b  of the VM state instead of the disk{_QUIET}",
    ),
    Command(
        "readv",
        reading.readv,
        2,
        -1,
        "[-Cqv] [-P pattern] off len [len..]",
        "read bytes into several buffers",
        help=f"{_PATTERN}\n  -v  print the bytes{_QUIET}",
    ),
    Command("remove_break", breakpoints.remove_break, 1, 1, "tag", "remove a breakpoint"),
    Command(
        "reopen",
        opening.reopen,
        0,
        -1,
        "[(-r|-w)] [-c cache] [-o options]",
        "open the image anew with other options",
        help="  -r  for reading only; -w: for writing too\n  -c  another cache mode\n  -o  other options, as for open",
    ),
    Command("resume", breakpoints.resume, 1, 1, "tag", "let a suspended request go on"),
    Command("sigraise", others.sigraise, 1, 1, "signal", "raise a signal", needs_image=False),
    Command("sleep", others.sleep, 1, 1, "", "wait some milliseconds", needs_image=False),
    Command(
        "truncate",
        inspecting.truncate,
        1,
        3,
        "[-m prealloc_mode] off",
        "set the length of the disk",
        short="t",
        writes=True,
        help="  -m  off, metadata, falloc, full",
    ),
    Command("wait_break", breakpoints.wait_break, 1, 1, "tag", "wait until a request is suspended"),
    Command(
        "write",
        writing.write,
        2,
        -1,
        "[-bcCfnquz] [-P pattern | -s source_file] off len",
        "write bytes",
        short="w",
        writes=True,
        help="  -P  the byte to write, 0xcd\n  -s  what to write, again and again, is in a file\n"
        "  -z  zeros, as a request of their own; -u: their space may be given back; -n: only if that is fast\n"
        f"  -c  compressed\n  -b  to the VM state instead of the disk\n  -f  durable when it ends{_QUIET}",
    ),
    Command(
        "writev",
        writing.writev,
        2,
        -1,
        "[-Cfq] [-P pattern] off len [len..]",
        "write bytes from several buffers",
        writes=True,
        help=f"  -P  the byte to write, 0xcd\n  -f  durable when it ends{_QUIET}",
    ),
)

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, command.short) if name}


def find(name: str) -> Command | None:
    """The command of a name or short name."""
    return _BY_NAME.get(name)


def run_line(session: Session, line: str) -> bool:
    """Run one line; whether it worked. Raises Quit."""
    words = [word for word in line.split(" ") if word]
    if not words:
        return True
    try:
        _run(session, words)
    except UsageMistake:
        command = find(words[0])
        assert command is not None
        session.say(command.usage)
    except Mistake as mistake:
        session.mistake(str(mistake))
    except Complaint as complaint:
        session.complain(str(complaint))
    except (CommandFailed, ValueProblem) as failure:
        if str(failure):
            session.say(str(failure))
    else:
        return True
    return False


def _run(session: Session, words: list[str]) -> None:
    name, *rest = words
    command = find(name)
    if command is None:
        raise Complaint(f'command "{name}" not found')
    if command.needs_image:
        session.need_image()
    problem = command.count_problem(name, len(rest))
    if problem is not None:
        raise Complaint(problem)
    if command.writes and session.need_image().node.read_only:
        raise Mistake("Block node is read-only")
    command.run(session, command, rest)
