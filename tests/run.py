#!/usr/bin/env python3
"""Set up and pass every check and test: `python3 tests/run.py`, on a fresh machine with nothing but Python.

Makes .venv-tests with e2kdisk and its test tools, installs the Debian packages that the tests compare us with when it
may, then runs linters, types, the import order and the tests, and says what was left out and why.
"""

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if sys.version_info < (3, 11):  # noqa: UP036  (who starts this may have any Python)
    sys.exit("tests/run.py: Python 3.11 or later is needed, this is " + sys.version.split()[0])

from tests import oracles  # noqa: E402  (only the standard library, and found by the line above)

VENV = ROOT / ".venv-tests"
EXTRAS = ".[dev,fast]"


class CannotGoOn(Exception):
    """Nothing can be tested; the message says what to do."""


def main() -> int:
    """Prepare, run each step, sum up; 0 if all of them passed."""
    options = parse_arguments()
    os.chdir(ROOT)
    try:
        python = Path(sys.executable) if options.here else prepared_environment()
    except CannotGoOn as problem:
        print(f"tests/run.py: {problem}", file=sys.stderr)
        return 1
    install_oracles()
    absent = oracles.missing()

    results = [timed(name, command) for name, command in steps(python, options)]
    print()
    for name, passed, seconds in results:
        print(f"{'passed' if passed else 'FAILED'}  {name:14} {seconds:6.1f} s")
    if absent:
        names = " ".join(absent)
        print(f"{'FAILED  ' if oracles.in_ci() else ''}left out: the tests that need {names}; apt-get install {names}")
    return 0 if all(passed for _, passed, _ in results) and not (absent and oracles.in_ci()) else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Set up and run all checks and tests of e2kdisk.")
    tier = parser.add_mutually_exclusive_group()
    tier.add_argument(
        "--fast", dest="tier", action="store_const", const="fast", help="without the slow tests (default)"
    )
    tier.add_argument("--all", dest="tier", action="store_const", const="all", help="with the slow tests, as CI does")
    parser.add_argument("--here", action="store_true", help="use this Python and what it has; make no environment")
    parser.add_argument("-k", metavar="EXPRESSION", help="only the tests whose names match, as for pytest")
    parser.add_argument("-n", metavar="N", default="2", help="processes that run tests (default 2)")
    parser.set_defaults(tier="fast")
    return parser.parse_args()


def steps(python: Path, options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """List what is run, in order: the quick answers first."""
    module = [str(python), "-m"]
    pytest = [*module, "pytest", "-n", options.n, f"--tier={options.tier}"]
    if options.k:
        pytest += ["-k", options.k]
    return [
        ("ruff check", [*module, "ruff", "check"]),
        ("ruff format", [*module, "ruff", "format", "--check"]),
        ("mypy", [*module, "mypy"]),
        ("import order", [str(python.parent / "lint-imports"), "--no-logo"]),
        ("pytest", pytest),
    ]


def timed(name: str, command: Sequence[str]) -> tuple[str, bool, float]:
    """Run one step in the open, and return its name, whether it passed and how long it took."""
    began = time.monotonic()
    passed = run(command)
    return name, passed, time.monotonic() - began


def run(command: Sequence[str]) -> bool:
    """Show a command, run it, return whether it succeeded."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError as error:
        print(f"{error.filename}: not installed")
        return False


def prepared_environment() -> Path:
    """Return the Python of .venv-tests, made anew when pyproject.toml or the Python differ from last time."""
    python = VENV / "bin" / "python"
    stamp = VENV / "made-from"
    recipe = f"{sys.version}\n{ROOT}\n{(ROOT / 'pyproject.toml').read_text()}"  # an environment cannot be moved
    wanted = hashlib.sha256(recipe.encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if importlib.util.find_spec("ensurepip") is None and not apt_install(["python3-venv"]):
        raise CannotGoOn("this Python cannot make a virtual environment: apt-get install python3-venv")
    if not run([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        raise CannotGoOn(f"{VENV} could not be made, see above")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "5"]
    if not run([*pip, "--editable", EXTRAS]):
        raise CannotGoOn("pip could not install what the tests need, see above")
    stamp.write_text(wanted)
    return python


def install_oracles() -> None:
    """Install the Debian packages that are missing, if this machine has apt and we are allowed to."""
    absent = oracles.missing()
    if absent and not apt_install(absent):
        print(f"\nDebian packages not installed: {' '.join(absent)}; the tests that need them are left out")


def apt_install(packages: Sequence[str]) -> bool:
    """Install Debian packages if we may, without a question, and return whether that succeeded."""
    if shutil.which("apt-get") is None:
        return False
    if os.geteuid() == 0:
        as_root = []
    elif (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        as_root = ["sudo", "-n"]
    else:
        return False
    patience = ["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"]
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *patience]
    run([*apt, "update"])  # a failing mirror matters only if the packages cannot be had
    return run([*apt, "install", "--yes", "--no-install-recommends", *packages])


if __name__ == "__main__":
    sys.exit(main())
