"""Other people's programs that judge ours: where they are, which Debian package has them, how to call them.

Only the standard library is imported here: tests/run.py reads the table before anything is installed.

Calling a program that is not installed skips the test that calls it, and fails it in CI, where nothing may be left out.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # mkfs and friends are not on an ordinary user's PATH


Argument = str | int | os.PathLike[str]
Option = str | int | bool


@dataclass(frozen=True)
class Oracle:
    """What the tests use of one Debian package."""

    package: str
    programs: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def is_here(self) -> bool:
        return all(map(find_program, self.programs)) and all(file.is_file() for file in self.files)


UBOOT = Path("/usr/lib/u-boot")

ORACLES = {
    oracle.package: oracle
    for oracle in (
        Oracle("qemu-utils", programs=("qemu-img", "qemu-io", "qemu-nbd")),
        Oracle("u-boot-qemu", files=(UBOOT / "qemu_arm64/u-boot.bin", UBOOT / "qemu-riscv64/u-boot.bin")),
        Oracle("e2fsprogs", programs=("mke2fs", "debugfs", "e2fsck")),
        Oracle("dosfstools", programs=("mkfs.fat", "fsck.fat")),
        Oracle("mtools", programs=("mcopy", "mdir")),
        Oracle("chromium", programs=("chromium",)),
        Oracle("fdisk", programs=("sfdisk",)),
        Oracle("qemu-system-arm", programs=("qemu-system-aarch64",)),
        Oracle("qemu-system-misc", programs=("qemu-system-riscv64",)),
        Oracle("qemu-system-x86", programs=("qemu-system-x86_64",)),
    )
}

PACKAGE_OF = {program: oracle.package for oracle in ORACLES.values() for program in oracle.programs}


def in_ci() -> bool:
    """Whether nothing may be left out."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def find_program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), SBIN)))


def missing(packages: Iterable[str] = tuple(ORACLES)) -> list[str]:
    """Return those of the packages that are not (fully) here."""
    return [package for package in packages if not ORACLES[package].is_here]


def require(*packages: str) -> None:
    """Leave the running test out unless the packages are here; in CI, fail it."""
    absent = missing(packages)
    if not absent:
        return
    import pytest

    names = " ".join(absent)
    reason = f"needs Debian package {names} (apt-get install {names})"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def run(
    program: str, *args: Argument, check: bool = True, stdin: str = "", cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a program of the table with its output captured; with check, a non-zero exit status fails the test."""
    require(PACKAGE_OF[program])
    command = [find_program(program) or program, *map(str, args)]
    done = subprocess.run(
        command, input=stdin, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def qemu_img(*args: Argument, check: bool = True, timeout: float = 60) -> str:
    """Run qemu-img and return what it prints; without check its errors too, for tests of what it refuses."""
    done = run("qemu-img", *args, check=check, timeout=timeout)
    return done.stdout if check else done.stdout + done.stderr


def qemu_io(
    image: Argument,
    *commands: str,
    format: str | None = "qcow2",
    read_only: bool = False,
    check: bool = True,
    timeout: float = 60,
) -> str:
    """Run qemu-io commands ("read -P 0x11 0 64k", "write ...", "flush") on an image and return what it prints.

    With check, a command that fails or a pattern that differs fails the test. format=None lets qemu probe.
    """
    options = [*(("-f", format) if format else ()), *(("-r",) if read_only else ())]
    arguments = [argument for command in commands for argument in ("-c", command)]
    done = run("qemu-io", *options, *arguments, image, check=check, timeout=timeout)
    if check and "Pattern verification failed" in done.stdout:
        raise AssertionError(f"{image}: {done.stdout}")
    return done.stdout if check else done.stdout + done.stderr


def create_image(
    path: Path,
    size: int | str | None = None,
    *,
    format: str = "qcow2",
    version: int = 3,
    cluster_size: int | None = None,
    backing: Argument | None = None,
    backing_format: str = "qcow2",
    **options: Option,
) -> Path:
    """Create an image with qemu-img; without size it is as long as its backing file.

    size is in bytes or as qemu-img writes it ("64M"). options are those of `qemu-img create -o`, True and False for
    on and off: lazy_refcounts=True, refcount_bits=1, compression_type="zstd", preallocation="metadata".
    """
    if format == "qcow2":
        options["compat"] = {2: "0.10", 3: "1.1"}[version]
        if cluster_size is not None:
            options["cluster_size"] = cluster_size
    arguments: list[Argument] = ["-q", "-f", format]
    if backing is not None:
        arguments += ["-b", backing, "-F", backing_format]
    for name, value in options.items():
        arguments += ["-o", f"{name}={_spelled(value)}"]
    qemu_img("create", *arguments, path, *(() if size is None else (size,)))
    return path


def _spelled(value: Option) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def source(image: Argument, *, format: str = "qcow2", key: str | None = None) -> list[Argument]:
    """Return the arguments that name an image to qemu-img and qemu-io; with the key of an AES image."""
    if key is None:
        return ["-f", format, image]
    place = f"driver={format},file.filename={image},encrypt.key-secret=key"
    return ["--object", f"secret,id=key,data={key}", "--image-opts", place]


def check_image(image: Argument, format: str = "qcow2", *, key: str | None = None) -> dict[str, Any]:
    """Return the report of `qemu-img check`, with its exit status added as "status" (0 clean, 2 corrupt, 3 leaks)."""
    done = run("qemu-img", "check", "--output=json", *source(image, format=format, key=key), check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{image} cannot be checked: {done.stdout}{done.stderr}") from None
    return report | {"status": done.returncode, "messages": done.stderr}


def assert_clean(image: Argument, *, allow_leaks: bool = False, key: str | None = None) -> None:
    """Fail the test unless `qemu-img check` finds a qcow2 image consistent (with allow_leaks: leaks at most)."""
    report = check_image(image, key=key)
    wrong = ["check-errors", "corruptions"] if allow_leaks else ["check-errors", "corruptions", "leaks"]
    found = {what: report[what] for what in wrong if report.get(what)}
    if found or report["status"] not in ((0, 3) if allow_leaks else (0,)):
        raise AssertionError(f"{image} is not clean: {found}\n{report}")


def uboot(build: str) -> Path:
    """Return Debian's unmodified U-Boot for one of its boards: qemu_arm64, qemu-riscv64."""
    require("u-boot-qemu")
    return UBOOT / build / "u-boot.bin"
