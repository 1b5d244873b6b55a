"""BoardBus: a board's addresses for a test that takes the place of the CPU."""

from __future__ import annotations

from e2kdisk.exports.qtest.address_space import AddressSpace
from e2kdisk.machine.machine import Machine


class BoardBus:
    """Reads and writes RAM and registers of a machine whose CPU never runs; its time stands still."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._space = AddressSpace(machine.board)
        machine.time.still = True

    def read(self, address: int, size: int) -> int:
        """A number of `size` bytes, little-endian."""
        return int.from_bytes(self._space.read(address, size), "little")

    def write(self, address: int, size: int, value: int) -> None:
        """Write a number of `size` bytes, little-endian."""
        self._space.write(address, value.to_bytes(size, "little"))

    def load(self, address: int, length: int) -> bytes:
        """Bytes."""
        return self._space.read(address, length)

    def store(self, address: int, data: bytes) -> None:
        """Write bytes."""
        self._space.write(address, data)

    def finish(self) -> None:
        """Let all requests in flight end. Raises DeadlockError for one that cannot."""
        self.machine.scheduler.drain()
