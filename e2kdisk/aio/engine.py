"""I/O engines: how a system call on a file is made, inline when it cannot block, else on a thread.

Nothing above this module knows which engine runs. All offsets and lengths are bytes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

from e2kdisk.aio.scheduler import Scheduler, Task, park

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")
else:
    Protocol = object

IoVec = list[memoryview]
"""Where data comes from or goes to: byte-format memory views, used in place, never copied."""

IOV_MAX = 1024
"""Most views that one system call takes (Linux UIO_MAXIOV)."""

INLINE_LIMIT = 16 << 20
"""Larger requests go to a thread at once: a copy of this size is itself worth overlapping (bytes)."""


class Engine(Protocol):
    """Makes system calls for the coroutines of one scheduler.

    The try_ methods are plain calls that do what can be done at once; read and write, which wait, come after them.
    """

    scheduler: Scheduler

    def try_read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Read what can be had without blocking; bytes read, 0 when it would block or at the end of the file."""

    def try_write(self, fd: int, iov: IoVec, offset: int) -> int:
        """Write what can be written through the page cache at once; bytes written from the start of iov, or 0.

        For buffered files only: a write with O_DIRECT or O_DSYNC waits for the device. Raises OSError.
        """

    async def read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Fill iov from offset; fewer bytes only at the end of the file. Raises OSError."""

    async def write(self, fd: int, iov: IoVec, offset: int) -> None:
        """Write all of iov at offset. Raises OSError."""

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Make any other call that may block (fsync, fallocate, ftruncate) and return its result."""

    def close(self) -> None:
        """Release the threads; whoever uses the engine has drained its requests before."""


def iov_length(iov: IoVec) -> int:
    """Bytes that iov covers."""
    if len(iov) == 1:
        return iov[0].nbytes
    return sum([view.nbytes for view in iov])


def iov_slice(iov: IoVec, start: int, length: int) -> IoVec:
    """The part of iov from start, length bytes long; views of the same memory."""
    if len(iov) == 1:
        view = iov[0]
        if start == 0 and length == view.nbytes:
            return iov
        return [view[start : start + length]]
    part: IoVec = []
    for view in iov:
        size = view.nbytes
        if start >= size:
            start -= size
            continue
        piece = view[start : start + length]
        part.append(piece)
        length -= piece.nbytes
        start = 0
        if length <= 0:
            break
    return part


def read_fully(fd: int, iov: IoVec, offset: int) -> int:
    """Blocking read of all of iov; bytes read, fewer only at the end of the file."""
    wanted = iov_length(iov)
    done = 0
    while done < wanted:
        rest = iov_slice(iov, done, wanted - done)[:IOV_MAX]
        count = os.preadv(fd, rest, offset + done)
        if count == 0:
            break
        done += count
    return done


def write_fully(fd: int, iov: IoVec, offset: int) -> None:
    """Blocking write of all of iov."""
    wanted = iov_length(iov)
    done = 0
    while done < wanted:
        count = os.pwritev(fd, iov_slice(iov, done, wanted - done)[:IOV_MAX], offset + done)
        if count == 0:
            raise OSError(errno.EIO, "wrote nothing")  # never seen; better than trying for ever
        done += count


class Workers:
    """Threads that make calls; one more is started whenever all are busy, up to a limit.

    A part of concurrent.futures, which takes longer to import than most commands take to run.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._lock = Lock()
        self._idle = 0
        """Threads that have ended a call, less those for which another has been sent; right until the limit."""

    def submit(self, call: Callable[[], None]) -> None:
        """Make a call, which raises nothing, on a thread. Raises RuntimeError when no thread can be started."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._limit:
                # A daemon: a process that is interrupted does not wait for a disk that does not answer.
                thread = Thread(target=self._work, name=f"e2kdisk-io-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or its buffers would stay until the next one comes
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Wait for the calls under way and end the threads."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()


class _ThreadCall:
    """A place where a task waits for a call on a worker thread."""

    __slots__ = ("args", "engine", "function", "task")

    def __init__(self, engine: ThreadEngine, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.engine = engine
        self.function = function
        self.args = args
        self.task: Task

    def park(self, task: Task) -> None:
        self.task = task
        # Announced before it is submitted: the worker may post before submit() returns.
        self.engine.scheduler.expect_post()
        try:
            self.engine.workers.submit(self._work)
        except RuntimeError as error:  # the interpreter shuts down: no thread starts any more
            self.engine.scheduler.post(task, error=error)

    def unpark(self, task: Task) -> bool:
        return False

    def _work(self) -> None:
        try:
            value = self.function(*self.args)
        except BaseException as error:
            self.engine.scheduler.post(self.task, error=error)
        else:
            self.engine.scheduler.post(self.task, value)


class ThreadEngine:
    """Every call on a worker thread: the kernel's order of completion, nothing inline."""

    def __init__(self, scheduler: Scheduler, threads: int = 8) -> None:
        self.scheduler = scheduler
        self.threads = threads
        self._workers: Workers | None = None

    @property
    def workers(self) -> Workers:
        """The worker threads, started when first needed: most commands never need them."""
        if self._workers is None:
            self._workers = Workers(self.threads)
        return self._workers

    def try_read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_read: never inline."""
        return 0

    def try_write(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_write: never inline."""
        return 0

    async def read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.read."""
        return await self.call(read_fully, fd, iov, offset)

    async def write(self, fd: int, iov: IoVec, offset: int) -> None:
        """Engine.write."""
        await self.call(write_fully, fd, iov, offset)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Engine.call."""
        result: T = await park(_ThreadCall(self, function, args))
        return result

    def close(self) -> None:
        """Engine.close."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None


class AutoEngine(ThreadEngine):
    """What is not expected to block is done inline, the rest on threads.

    Reads with RWF_NOWAIT take what the page cache holds. Buffered writes refuse that flag on ext4, but they only
    copy to the page cache: they block rarely, and a thread costs ten times the copy.
    """

    def try_read(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_read: RWF_NOWAIT returns what the page cache holds."""
        try:
            return os.preadv(fd, iov, offset, os.RWF_NOWAIT)
        except OSError:
            # BlockingIOError: not cached. A file system without RWF_NOWAIT (FUSE, tmpfs before Linux 6) refuses
            # the flag, too many views are EINVAL; a real error comes again from the blocking call that follows.
            return 0

    def try_write(self, fd: int, iov: IoVec, offset: int) -> int:
        """Engine.try_write: a buffered write."""
        if len(iov) > IOV_MAX:
            return 0
        return os.pwritev(fd, iov, offset)
