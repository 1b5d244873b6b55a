"""The wires of a rig: interrupts that may be delayed and merged, DMA that stands in the stream of events."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import Area, GuestMemory
from e2kdisk.machine.boards.wiring import Wiring

if TYPE_CHECKING:
    from e2kdisk.lab.rig import Rig


class LabIrq(IrqLine):
    """Rises when a decision says so and falls at once: what completes in between shares the interrupt."""

    __slots__ = ("_cancel", "_line", "_rig", "_source")

    def __init__(self, rig: Rig, source: str, line: IrqLine) -> None:
        super().__init__()
        self._rig = rig
        self._source = source
        self._line = line
        self._cancel: Callable[[], None] | None = None

    def set(self, level: bool) -> None:
        """IrqLine.set."""
        if level == self.level:
            return
        self.level = level
        rig = self._rig
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        delay_ns = 0
        if level and rig.running:
            delays = rig.traffic.rules.irq_delays_ns
            delay_ns = delays[rig.decisions.choose(f"{self._source} interrupt: delay", len(delays))]
        if delay_ns:
            self._cancel = rig.machine.scheduler.call_at(rig.machine.time.now_ns() + delay_ns, self._rise)
        else:
            self._drive(level)

    def _rise(self) -> None:
        self._cancel = None
        self._drive(True)

    def _drive(self, level: bool) -> None:
        self._rig.events.event(self._source, "interrupt", level=level)
        self._line.set(level)


class LabArea:
    """A ring whose changes stand in the stream of events."""

    def __init__(self, memory: LabMemory, address: int, area: Area) -> None:
        self.length = area.length
        self.unpack = area.unpack
        self._memory = memory
        self._address = address
        self._area = area

    def pack(self, layout: Struct, offset: int, *values: Any) -> None:
        """Area.pack."""
        self._area.pack(layout, offset, *values)
        self._memory.report("ring", address=self._address + offset, values=values)


class LabMemory:
    """GuestMemory that reports what devices read and write."""

    def __init__(self, rig: Rig, source: str, memory: GuestMemory) -> None:
        self._rig = rig
        self._source = source
        self._memory = memory
        self.publish = memory.publish
        self.target = memory.target

    def area(self, address: int, length: int) -> Area | None:
        """GuestMemory.area."""
        area = self._memory.area(address, length)
        return None if area is None else LabArea(self, address, area)

    def report(self, kind: str, **fields: object) -> None:
        """Put a change of guest memory into the stream."""
        self._rig.events.event(self._source, kind, **fields, request=self._rig.events.current)

    def source(self, address: int, length: int) -> memoryview | None:
        """GuestMemory.source."""
        view = self._memory.source(address, length)
        if view is not None:
            self.report("dma", address=address, length=length, direction="from guest")
        return view

    def written(self, address: int, view: memoryview) -> None:
        """GuestMemory.written."""
        self.report("dma", address=address, length=view.nbytes, direction="to guest")
        self._memory.written(address, view)


class LabWiring(Wiring):
    """Wiring of one rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def irq(self, controller: str, line: IrqLine) -> IrqLine:
        """Wiring.irq."""
        return LabIrq(self._rig, controller, line)

    def memory(self, controller: str, memory: GuestMemory) -> GuestMemory:
        """Wiring.memory."""
        return LabMemory(self._rig, controller, memory)
