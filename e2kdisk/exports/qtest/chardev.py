"""Character devices: the lines that sessions speak on. One client at a time, as in QEMU.

stdio; unix:PATH, where somebody listens; unix:PATH,server=on, where somebody will connect; null, where nobody is.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress

from e2kdisk.block.tree import Tree
from e2kdisk.errors import UsageError
from e2kdisk.exports.qtest import option_text
from e2kdisk.exports.qtest.option_text import Properties
from e2kdisk.exports.qtest.session import Session

READ_BYTES = 1 << 16
PIPE_BYTES = 4096
"""So much can be written without waiting to a pipe that polls as writable (PIPE_BUF of Linux)."""
OUTBOX_MAX = 1 << 20
"""While more than so many bytes wait for a client to read them, nothing of what it says is looked at."""


class Line:
    """One character device; the server polls its descriptors, the session on it uses send()."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.outbox = bytearray()
        self.connected = False
        self.ended = False
        """Input is over."""

    # -- to be said by each kind ------------------------------------------------------------------

    def open(self) -> None:
        """Connect, or listen. Raises UsageError."""
        raise NotImplementedError

    def input(self) -> int | None:
        """The descriptor to poll for input, None for no such."""
        raise NotImplementedError

    def output(self) -> int | None:
        """The descriptor to poll when output waits."""
        raise NotImplementedError

    def _read(self) -> bytes | None:
        """What has come; b"" at the end, None when there was nothing after all."""
        raise NotImplementedError

    def _write(self, data: memoryview) -> int:
        """Write what can be written without waiting; bytes."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        """The other side is gone."""

    def can_come_back(self) -> bool:
        """Whether somebody may speak on this line, now or later."""
        return self.connected

    def close(self) -> None:
        """Give the descriptors back."""

    # -- what they share --------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send, or keep until it can be sent; lost when nobody is there."""
        if self.connected:
            self.outbox += data

    def connect(self) -> None:
        """Somebody is there."""
        self.connected = True
        if self.session is not None:
            self.session.opened()

    def disconnect(self) -> None:
        """Nobody is there any more."""
        if self.connected:
            self.connected = False
            self.outbox.clear()
            self._hang_up()
            if self.session is not None:
                self.session.closed()

    @property
    def congested(self) -> bool:
        """Whether the client must read before anything else is done for it."""
        return len(self.outbox) > OUTBOX_MAX

    def readable(self) -> None:
        """Take what has come."""
        try:
            data = self._read()
        except OSError:
            data = b""
        if data is None:
            return
        if data and self.session is not None:
            self.session.receive(data)
        elif not data:
            # What was asked before the end of input is still answered; the server disconnects then.
            self.ended = True

    def flush(self) -> None:
        """Send what can be sent."""
        try:
            while self.outbox:
                with memoryview(self.outbox) as view:
                    sent = self._write(view)
                if not sent:
                    return
                del self.outbox[:sent]
        except OSError:
            self.disconnect()


class NullLine(Line):
    """Nobody is ever there."""

    def open(self) -> None:
        """Line.open."""

    def input(self) -> int | None:
        """Line.input."""
        return None

    def output(self) -> int | None:
        """Line.output."""
        return None


class StdioLine(Line):
    """Standard input and output, which may be pipes, files or a terminal; left as they are."""

    def open(self) -> None:
        """Line.open."""
        self.connect()

    def input(self) -> int | None:
        """Line.input."""
        return 0 if self.connected and not self.ended else None

    def output(self) -> int | None:
        """Line.output."""
        return 1

    def _read(self) -> bytes | None:
        return os.read(0, READ_BYTES)

    def _write(self, data: memoryview) -> int:
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        return os.write(1, data[:PIPE_BYTES]) if poll.poll(0) else 0


class _SocketLine(Line):
    """A line over a stream socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._socket: socket.socket | None = None

    def input(self) -> int | None:
        """Line.input."""
        return None if self._socket is None or self.ended else self._socket.fileno()

    def output(self) -> int | None:
        """Line.output."""
        return None if self._socket is None else self._socket.fileno()

    def _read(self) -> bytes | None:
        assert self._socket is not None
        try:
            return self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None

    def _write(self, data: memoryview) -> int:
        assert self._socket is not None
        try:
            return self._socket.send(data, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0

    def _adopt(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self.ended = False
        self.connect()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Line.close."""
        self._hang_up()


class ClientLine(_SocketLine):
    """Connects to somebody who listens: what libqtest expects."""

    def open(self) -> None:
        """Line.open."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            raise UsageError(f"Failed to connect to '{self.path}': {error.strerror or error}") from None
        self._adopt(connection)


class ServerLine(_SocketLine):
    """Listens; the next client is taken when the one before has gone."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Line.open."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            _remove_stale(self.path)
            listener.bind(self.path)
            listener.listen(1)
        except OSError as error:
            listener.close()
            raise UsageError(f"Failed to bind socket to {self.path}: {error.strerror or error}") from None
        listener.setblocking(False)
        self._listener = listener

    def input(self) -> int | None:
        """Line.input."""
        if self._socket is None and self._listener is not None:
            return self._listener.fileno()
        return super().input()

    def readable(self) -> None:
        """Line.readable."""
        if self._socket is None and self._listener is not None:
            with suppress(OSError):
                self._adopt(self._listener.accept()[0])
        else:
            super().readable()

    def can_come_back(self) -> bool:
        """Line.can_come_back."""
        return True

    def close(self) -> None:
        """Line.close."""
        super().close()
        if self._listener is not None:
            self._listener.close()
            with suppress(OSError):
                os.unlink(self.path)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError for one that is in use, or no socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


# -- options ------------------------------------------------------------------------------------------


def make(tree: Tree) -> tuple[str, Line]:
    """A -chardev: its id, and the line. Raises UsageError."""
    given = Properties("chardev", tree)
    name = given.identifier("id")
    if not name:
        raise UsageError("Parameter 'id' is missing")
    kind = given.text("backend")
    if kind not in ("socket", "stdio", "null"):
        raise UsageError(f"'{kind}' is not a valid char driver name; known are socket, stdio, null")
    given.must_be("mux", "off")
    given.ignore("signal", "logfile", "logappend")
    line = _socket(given) if kind == "socket" else StdioLine() if kind == "stdio" else NullLine()
    for key in given.rest():
        raise UsageError(f"Invalid parameter '{key}'")
    return name, line


def _socket(given: Properties) -> Line:
    path = given.text("path")
    if not path:
        raise UsageError("a socket needs path=; other than Unix sockets are not modelled")
    server = given.switch("server", False)
    given.ignore("wait", "abstract", "tight")
    given.must_be("reconnect", "0")
    for key in ("telnet", "websocket", "tn3270"):
        given.must_be(key, "off")
    return ServerLine(path) if server else ClientLine(path)


def from_short_form(text: str) -> Line:
    """What -qtest, -qmp and -serial take besides chardev:ID. Raises UsageError."""
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        tree = option_text.parse(rest, "path")
        return make({"backend": "socket", "id": "unix"} | tree)[1]
    if text == "stdio":
        return StdioLine()
    if text in ("null", "none"):
        return NullLine()
    raise UsageError(f"'{text}' is not a valid char driver; known are stdio, unix:PATH, chardev:ID, null")
