#!/usr/bin/env python3
"""Build the guest programs that are in C: firmware/images/*.bin.

    python firmware/build.py            compile and replace the images
    python firmware/build.py --check    compile and compare: exit code 1 and one line when an image is out of date

The compiler is zig's C compiler at one exact version, from PyPI (`pip install ziglang==0.16.0`): the same bytes come
out on every host. The images hold no path, no time and no address. Each image is linked twice, at different places, and
must come out equal, so it runs wherever it is loaded (at a multiple of 4 KiB).

The images are raw: entered at the first byte, on the emulator's `virt` boards.

    guest-arm64.bin     EL1, MMU off. As flash at 0 (`qemu-system-aarch64 -M virt -bios`).
                        Uses RAM 0x40100000-0x40400000.
    guest-riscv64.bin   M-mode, a0 = hart (others than 0 are parked), a1 = device tree (not used). At 0x80000000
                        (`qemu-system-riscv64 -M virt -bios`). Uses RAM 0x80100000-0x80400000.

    reader-elbrus-arm64.bin
                        The arm64 CPU of the board elbrus; as its firmware. Uses RAM below 0x8000000.

What guest-* do is told by sector 0 of the disk: guest/options.h. What they write: guest/pattern.h. The reader is told
on its serial port: elbrus-arm64/main.c.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ZIGLANG = "0.16.0"
HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"


class BuildError(Exception):
    """The images cannot be built: one line that says why."""


class CompilerMissing(BuildError):
    """There is no compiler, or another version: what it built could not be compared."""


@dataclass(frozen=True)
class Target:
    """An image."""

    name: str
    base: int  # where the board loads the image; any other multiple of 4 KiB gives the same bytes
    sources: tuple[str, ...]  # patterns of files
    include: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def image(self) -> Path:
        """Where the image is kept."""
        return IMAGES / f"{self.name}.bin"


# With the MMU off all memory is Device memory, where unaligned accesses fault; and FP is off at reset. Said in
# zig's own words: it silently drops -mstrict-align and -mgeneral-regs-only when it passes the CPU's features on.
ARM64 = ("-target", "aarch64-freestanding-none", "-mcpu=generic+strict_align-neon-fp_armv8")
# rv64imac. medany: the image is above the first 2 GiB.
RISCV64 = ("-target", "riscv64-freestanding-none", "-mcpu=generic_rv64+m+a+c", "-mcmodel=medany")


def guest(cpu: str, base: int, flags: tuple[str, ...]) -> Target:
    """The program that is the same on all CPUs."""
    return Target(f"guest-{cpu}", base, ("guest/*", f"{cpu}/*"), (cpu, "guest"), flags)


TARGETS = (
    guest("arm64", 0x0, ARM64),
    guest("riscv64", 0x8000_0000, RISCV64),
    Target(
        "reader-elbrus-arm64",
        0x1_0000_0000,
        ("guest/console.c", "elbrus-arm64/*"),
        ("elbrus-arm64", "guest"),
        ARM64,
    ),
)

C_FLAGS = (
    *("-std=c11", "-Os", "-g0", "-Wall", "-Wextra", "-Werror"),
    # -fno-builtin: no loop becomes a call of memset, which nobody provides.
    *("-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-sanitize=all", "-ffunction-sections"),
    "-fno-jump-tables",  # their entries may be addresses
)


def zig(arguments: Sequence[str | Path], scratch: Path) -> None:
    """Run the pinned compiler, or say why not."""
    try:
        found = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != ZIGLANG:
        raise CompilerMissing(f"needs the Python package ziglang=={ZIGLANG}, found {found}")
    # Its cache must not outlive the build: neither may an old object slip in, nor the user's home fill up.
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(scratch), "ZIG_LOCAL_CACHE_DIR": str(scratch)}
    command = [sys.executable, "-m", "ziglang", *map(str, arguments)]
    result = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)}\n{result.stderr}")


def build(target: Target) -> bytes:
    """Compile one guest in a scratch folder and return the image."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        objects: list[Path] = []
        # Sorted, and named relative to HERE: the order of files and the place of the checkout must not matter.
        files = (path for pattern in target.sources for path in HERE.glob(pattern))
        sources = sorted(path.relative_to(HERE) for path in files if path.suffix in (".c", ".S"))
        for source in sources:
            objects.append(scratch / f"{source.name}.o")
            include = [part for folder in target.include for part in ("-I", folder)]
            zig(["cc", *C_FLAGS, *target.flags, *include, "-c", source, "-o", objects[-1]], scratch)

        def link(base: int) -> bytes:
            image = scratch / "image"
            linker: list[str | Path] = ["ld.lld", "-T", "guest/link.ld", f"--defsym=BASE={base:#x}", "--gc-sections"]
            zig([*linker, "--oformat", "binary", "-o", image, *objects], scratch)
            return image.read_bytes()

        built = link(target.base)
        if built != link(target.base + 0x12_3000):
            raise BuildError(f"{target.image.name} holds an address of its own: it runs at {target.base:#x} only")
        return built


def main(argv: Sequence[str] | None = None) -> int:
    """Build all images and keep or compare them; the exit code."""
    parser = argparse.ArgumentParser(description="Build the guest programs.")
    parser.add_argument("--check", action="store_true", help="compare with the images instead of replacing them")
    check: bool = parser.parse_args(argv).check
    try:
        for target in TARGETS:
            built = build(target)
            name = target.image.relative_to(HERE.parent)
            if not check:
                IMAGES.mkdir(exist_ok=True)
                target.image.write_bytes(built)
                print(f"{name}: {len(built)} bytes")
            elif not target.image.exists() or target.image.read_bytes() != built:
                print(f"{name} is not what its source builds: run python firmware/build.py", file=sys.stderr)
                return 1
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
