"""The project keeps its own rules: its top level, small documented modules, a command that starts fast."""

import ast
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests import oracles

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "e2kdisk").rglob("*.py"))
TOP_LEVEL = {"pyproject.toml", "e2kdisk", "firmware", "tests", "examples", "README.md", "LICENSE"}

each_module = pytest.mark.parametrize(
    "module", [pytest.param(module, id=module.relative_to(ROOT).as_posix()) for module in MODULES]
)


def test_the_top_level_is_the_agreed_list():
    # safe.directory: the clone may belong to somebody else, as in a container.
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in tracked.split("\0") if name}
    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL


@each_module
def test_a_module_says_in_its_first_line_what_it_is_for(module):
    docstring = ast.get_docstring(ast.parse(module.read_bytes()), clean=False)
    assert docstring
    assert docstring.splitlines()[0].strip()


@each_module
def test_a_module_has_at_most_500_lines(module):
    assert len(module.read_text().splitlines()) <= 500


def test_help_starts_without_the_heavy_imports():
    command = [sys.executable, "-X", "importtime", "-m", "e2kdisk", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": ""}, capture_output=True, text=True, check=True
    )
    # import time:       277 |       1543 |   package.module
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "e2kdisk" in imported
    assert not imported & {"numpy", "unicorn", "asyncio", "cryptography"}


def test_each_command_of_the_oracles_comes_from_one_package():
    programs = [program for oracle in oracles.ORACLES.values() for program in oracle.programs]
    assert sorted(programs) == sorted(set(programs))


def test_in_ci_a_missing_oracle_fails_and_elsewhere_it_skips(monkeypatch):
    gone = oracles.Oracle("gone", programs=("no-such-program",))
    monkeypatch.setitem(oracles.ORACLES, "gone", gone)
    reason = re.escape("needs Debian package gone (apt-get install gone)")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=reason):
        oracles.require("gone")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=reason):
        oracles.require("gone")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cluster_size", [512, 65536, 2 << 20])
def test_the_builders_make_images_that_the_oracles_accept(make_image, qemu_io, assert_clean, version, cluster_size):
    base = make_image("1M", format="raw")
    disk = make_image(version=version, cluster_size=cluster_size, backing=base, backing_format="raw")
    qemu_io(disk, "write -P 0x11 64k 64k", "read -P 0x11 64k 64k", "read -P 0 0 64k")
    with pytest.raises(AssertionError):
        qemu_io(disk, "read -P 0x22 64k 64k")
    assert_clean(disk)


def test_a_leak_passes_only_where_it_is_allowed_and_corruption_never(make_image, qemu_io, assert_clean):
    disk = make_image("1M")
    qemu_io(disk, "write -P 0x11 0 64k")
    with disk.open("r+b") as file:
        header = file.read(56)
        l1_table, refcount_table = struct.unpack(">QQ", header[40:])
        file.seek(l1_table)
        file.write(bytes(8))  # nothing points at the L2 table and its cluster any more
        file.flush()
        assert_clean(disk, allow_leaks=True)
        with pytest.raises(AssertionError, match="leaks"):
            assert_clean(disk)
        file.seek(refcount_table)
        file.write(bytes(8))  # everything is in use and counted as free
    with pytest.raises(AssertionError, match="corruptions"):
        assert_clean(disk, allow_leaks=True)
