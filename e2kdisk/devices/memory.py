"""Guest memory as a device sees it: validated access for rings and registers, buffers for DMA.

A wild guest address is a guest's mistake, so it is an answer (None), never an exception. All addresses are
guest-physical, all lengths bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol


class Area(Protocol):
    """A piece of guest memory that a device uses for long (a ring); its bounds were checked when it was made."""

    length: int

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        """Read a record at an offset inside the area."""
        ...

    def pack(self, layout: Struct, offset: int, *values: Any) -> None:
        """Write a record at an offset inside the area."""
        ...


class GuestMemory(Protocol):
    """What a controller knows of the guest's RAM."""

    def area(self, address: int, length: int) -> Area | None:
        """The ring or structure at an address; None unless all of it is RAM."""
        ...

    def source(self, address: int, length: int) -> memoryview | None:
        """The bytes that a device will read (guest to disk); None unless all of it is RAM."""
        ...

    def target(self, address: int, length: int) -> memoryview | None:
        """Room for bytes that a device will write (disk to guest); None unless all of it is RAM.

        The guest is sure to see them only after `written`.
        """
        ...

    def written(self, address: int, view: memoryview) -> None:
        """A device has filled this view, which target() gave for this address; translated code there is stale."""
        ...

    def publish(self) -> None:
        """Called by a device before the guest can learn of a completion: makes all `written` take effect."""
        ...


class _RamArea:
    """An Area straight in the host's mapping of guest RAM."""

    __slots__ = ("_view", "length")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.length = view.nbytes

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        return layout.unpack_from(self._view, offset)

    def pack(self, layout: Struct, offset: int, *values: Any) -> None:
        layout.pack_into(self._view, offset, *values)


class RamMemory:
    """Guest RAM that the host can address directly: DMA goes straight between the file and these views."""

    def __init__(self, on_written: Callable[[int, int], None] | None = None) -> None:
        self._banks: list[tuple[int, int, memoryview]] = []
        self._dirty: list[tuple[int, int]] = []
        self.on_written = on_written
        """Called by publish() with (start, end) of each range that devices have written: drop translated code."""

    def add_bank(self, base: int, view: memoryview) -> None:
        """Add RAM: `view` is writable, byte format, and stays where it is."""
        self._banks.append((base, base + view.nbytes, view))

    def _find(self, address: int, length: int) -> memoryview | None:
        for start, end, view in self._banks:
            # Slices clamp silently, so the bounds are checked here and nowhere else.
            if start <= address and address + length <= end:
                return view[address - start : address - start + length]
        return None

    def area(self, address: int, length: int) -> Area | None:
        """GuestMemory.area."""
        view = self._find(address, length)
        return None if view is None else _RamArea(view)

    def source(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.source."""
        return self._find(address, length)

    def target(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.target."""
        return self._find(address, length)

    def written(self, address: int, view: memoryview) -> None:
        """GuestMemory.written."""
        end = address + view.nbytes
        dirty = self._dirty
        if dirty and dirty[-1][1] == address:
            dirty[-1] = (dirty[-1][0], end)
        else:
            dirty.append((address, end))

    def publish(self) -> None:
        """GuestMemory.publish: one invalidation per contiguous range, not per descriptor."""
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            if self.on_written is not None:
                for start, end in dirty:
                    self.on_written(start, end)
