"""Runs command lines of ours one after the other without starting Python for each: a server that forks.

Hundreds of comparisons with qemu-img would otherwise spend their time in the interpreter's start. A request is a line
of JSON, {"words": [...], "cwd": "..."}; the answer is [status, output, errors].
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def serve() -> None:
    """Answer requests until the input ends."""
    sys.argv[0] = "qemu-img"
    # Everything that a command imports late, once for all of them.
    from e2kdisk.tools.img import bitmap_copying, copying, info_engine, measure_command  # noqa: F401
    from e2kdisk.tools.img.main import script

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                os.chdir(request["cwd"])
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                sys.argv[1:] = request["words"]
                script()  # which ends the process
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        print(json.dumps([status, *texts]), flush=True)


class Server:
    """The other end."""

    def __init__(self) -> None:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.img_server import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words: list[str], cwd: Path) -> tuple[int, str, str]:
        """Run one command line in a directory."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "cwd": str(cwd)}) + "\n")
        self._process.stdin.flush()
        status, output, errors = json.loads(self._process.stdout.readline())
        return status, output, errors

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
