"""Guest memory as a device sees it: validated access for rings and registers, buffers for DMA.

A wild guest address is a guest's mistake, so it is an answer (None), never an exception. All addresses are
guest-physical, all lengths bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

    __slots__ = ("length", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.length = view.nbytes

    def unpack(self, layout: Struct, offset: int) -> tuple[Any, ...]:
        return layout.unpack_from(self.view, offset)

    def pack(self, layout: Struct, offset: int, *values: Any) -> None:
        layout.pack_into(self.view, offset, *values)


def reader(area: Area, layout: Struct) -> Callable[[int], tuple[Any, ...]]:
    """Area.unpack for one kind of record, as a function of the offset; in RAM without a Python frame a call."""
    return partial(layout.unpack_from, area.view) if isinstance(area, _RamArea) else partial(area.unpack, layout)


def writer(area: Area, layout: Struct) -> Callable[..., None]:
    """Area.pack for one kind of record, as a function of the offset and the values."""
    return partial(layout.pack_into, area.view) if isinstance(area, _RamArea) else partial(area.pack, layout)


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

    def target(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.target."""
        for start, end, view in self._banks:
            # Slices clamp silently, so the bounds are checked here and nowhere else.
            if start <= address and address + length <= end:
                return view[address - start : address - start + length]
        return None

    def area(self, address: int, length: int) -> Area | None:
        """GuestMemory.area."""
        view = self.target(address, length)
        return None if view is None else _RamArea(view)

    source = target
    """GuestMemory.source: the bytes in place, in both directions."""

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
