"""Session: what the commands of one run share: the open image, the requests on their way, and how errors are said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine

from e2kdisk.aio.engine import AutoEngine
from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.errors import DeadlockError, E2kDiskError, MismatchError
from e2kdisk.tools.io.image import Image, OpenFlags, open_image
from e2kdisk.tools.io.messages import open_error, request_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from e2kdisk.block.blkdebug import BlkdebugNode
    from e2kdisk.block.tree import Tree
    from e2kdisk.crypto.secret import Secrets

    T = TypeVar("T")


class CommandFailed(Exception):
    """A command that did not work; the text is a line for the standard output, "" if everything is said already."""


class Complaint(CommandFailed):
    """The same for the standard error."""


class Mistake(Complaint):
    """A complaint that begins with the program's name."""


class UsageMistake(CommandFailed):
    """The command was called wrongly: its one line of usage is printed."""


class Quit(Exception):
    """End the program; `status` if not the one that the commands so far have earned."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(status)
        self.status = status


class Session:
    """One run of the program."""

    def __init__(
        self,
        program: str,
        flags: OpenFlags,
        secrets: Secrets | None = None,
        misaligned: bool = False,
    ) -> None:
        self.program = program
        """The name that messages begin with."""
        self.flags = flags
        """How the image of the command line was opened; reopen starts from those of the last open."""
        self.secrets = secrets
        self.misaligned = misaligned
        self.image: Image | None = None
        self.in_flight = 0
        """Asynchronous requests that have not ended."""
        self.scheduler = Scheduler()
        self.engine = AutoEngine(self.scheduler)
        self._reports: list[str] = []

    # -- saying things ----------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Print on the standard output."""
        print(text)

    def complain(self, text: str) -> None:
        """Print on the standard error, behind what was said before."""
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)

    def mistake(self, text: str) -> None:
        """Complain under the program's name."""
        self.complain(f"{self.program}: {text}")

    def warn(self, text: str) -> None:
        """Warn under the program's name."""
        self.mistake(f"warning: {text}")

    # -- requests ---------------------------------------------------------------------------------

    def need_image(self) -> Image:
        """The open image. Raises Complaint."""
        if self.image is None:
            raise Complaint("no file open, try 'help open'")
        return self.image

    def wait(self, request: Coroutine[Any, Any, T]) -> T:
        """Run a request to its end, then print the reports of those that have ended meanwhile.

        Raises its error, and Mistake when it waits for a request that is suspended at a breakpoint.
        """
        try:
            return self.scheduler.run(request)
        except DeadlockError:
            tags = ", ".join(tag for node in self.debug_nodes() for tag in node.suspended)
            raise Mistake(
                f"waits for a request that is suspended at breakpoint {tags}: nothing can resume it"
            ) from None
        finally:
            self.print_reports()

    def start(self, request: Coroutine[Any, Any, Any], ended: Callable[[BaseException | None, float], str]) -> None:
        """Start a request; `ended(error, seconds)` makes the report, printed when somebody waits for requests."""
        self.in_flight += 1
        begun = time.perf_counter()

        def then(_result: Any, error: BaseException | None) -> None:
            self.in_flight -= 1
            if error is not None and not isinstance(error, (OSError, E2kDiskError)):
                raise error
            text = ended(error, time.perf_counter() - begun)
            if text:
                self._reports.append(text)

        self.scheduler.start(request, then=then)

    def print_reports(self) -> None:
        """Print the reports of requests that have ended."""
        reports, self._reports = self._reports, []
        for text in reports:
            self.say(text)

    def poll(self) -> None:
        """Let requests go on that can, without waiting."""
        self.scheduler.poll()
        self.print_reports()

    def drain(self) -> None:
        """Wait until no request is on its way. Raises Mistake when some never end."""
        while self.in_flight and self.scheduler.wait():
            self.print_reports()
        self.print_reports()
        if self.in_flight:
            tags = ", ".join(tag for node in self.debug_nodes() for tag in node.suspended) or "?"
            raise Mistake(f"{self.in_flight} request(s) never end, suspended at breakpoint {tags}")

    def debug_nodes(self) -> list[BlkdebugNode]:
        """The blkdebug nodes below the open image, the lowest first."""
        return [] if self.image is None else self.image.debug_nodes

    # -- images -----------------------------------------------------------------------------------

    def open(self, name: str | None, options: Tree, flags: OpenFlags) -> None:
        """Open an image. Raises Mistake that says why not."""
        if self.image is not None:
            raise Mistake("file open already, try 'help close'")
        try:
            self.image = self.scheduler.run(open_image(self, name, options, flags))
        except MismatchError:
            raise
        except (OSError, E2kDiskError) as error:
            device = "" if name is None else f" device {name}"
            raise Mistake(f"can't open{device}: {open_error(error, name or '', writing=not flags.read_only)}") from None

    def close(self) -> None:
        """Wait for all requests and close the image; one that never ends is let go first."""
        image = self.image
        if image is None:
            return
        try:
            self.drain()
        except Mistake as mistake:
            self.mistake(f"{mistake}; resumed to close the image")
            for node in image.debug_nodes:
                for tag in node.suspended:
                    node.resume(tag)
            self.drain()
        self.image = None
        self.scheduler.run(image.close())

    def end(self) -> bool:
        """Close everything; whether that worked."""
        image = self.image
        try:
            self.close()
        except (OSError, E2kDiskError) as error:
            name = self.program if image is None else image.node.name
            self.mistake(f"{name}: closing it: {request_error(error)}")
            return False
        finally:
            self.engine.close()
        return True
