"""e2kdisk qtest, and the same as qemu-system-aarch64, -riscv64, -e2k: devices for the programs that test them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str], program: str = "e2kdisk qtest") -> int:
    """Run the command under a program's name."""
    from e2kdisk.exports.qtest.program import main as serve

    return serve(arguments, program)
