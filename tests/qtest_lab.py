"""Our own qemu-system-ARCH for tests: as a program that is called by that name, and inside the test's own process."""

import sys
import tempfile
from functools import cache
from pathlib import Path

from e2kdisk.exports.qtest import command_line, models, program
from e2kdisk.exports.qtest.qmp import QmpSession
from e2kdisk.exports.qtest.session import QtestLog, QtestSession

ROOT = Path(__file__).resolve().parent.parent

# What pip makes of a console script, finding this checkout.
SCRIPT = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
from e2kdisk.tools.main import main
sys.exit(main())
"""


@cache
def _directory():
    return tempfile.TemporaryDirectory()


@cache
def our_program(name="qemu-system-aarch64"):
    """The path of a link of this name to the command e2kdisk."""
    directory = Path(_directory().name)
    script = directory / "e2kdisk"
    script.write_text(SCRIPT.format(python=sys.executable, root=str(ROOT)))
    script.chmod(0o755)
    link = directory / name
    if not link.exists():
        link.symlink_to(script)
    return link


class Inside:
    """An emulator in this process, spoken to without a line; a context manager."""

    def __init__(self, *options, name="qemu-system-aarch64"):
        self.configuration = command_line.parse(options, models.machines_of(name), name)
        self.emulator = program.build(self.configuration)
        self.said = bytearray()
        self.qtest = QtestSession(self.emulator, QtestLog(None), self.said.__iadd__)
        self.qmp = QmpSession(self.emulator, self.configuration.machines, self.said.__iadd__)

    def say(self, data, session=None):
        """What is answered to some bytes on the qtest line, or another session."""
        session = session or self.qtest
        self.said.clear()
        session.receive(data)
        while session.step():
            pass
        return bytes(self.said)

    def ask(self, line):
        """Client.ask: the answer to one line."""
        said = self.say(line.encode("utf-8", "surrogateescape") + b"\n")
        return said.decode("utf-8", "surrogateescape").splitlines()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.emulator.close()
