"""attach(): a disk controller on anybody's unicorn.Uc.

The guest, its memory and its run loop are somebody else's. By default a request finishes inside the register access
that started it, so there is nothing else to call. With asynchronous=True what cannot be done at once finishes later:
then call Attachment.poll() between slices of emu_start, or wait() when the guest has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from e2kdisk.aio.scheduler import Scheduler
from e2kdisk.devices.controller import Controller
from e2kdisk.devices.irq import IrqLine
from e2kdisk.devices.memory import GuestMemory, RamMemory
from e2kdisk.errors import UsageError
from e2kdisk.machine.bus import PAGE, Bus, Window
from e2kdisk.machine.cpu import unicorn_raw as raw
from e2kdisk.machine.uc_memory import UcMemory


class _Pages:
    """The pages of registers that we have put on one engine; controllers may share a page."""

    def __init__(self, uc: raw.Engine) -> None:
        self._uc = uc
        self.bus = Bus()
        self.bus.after_write = self._finish
        self.controllers: dict[int, Controller] = {}
        self.synchronous: set[Scheduler] = set()
        """Whose requests finish inside the register access."""
        self.windows: dict[int, tuple[Window, raw.MmioMapping]] = {}

    @classmethod
    def of(cls, uc: raw.Engine) -> _Pages:
        """Kept on the engine itself: who attaches in two places of a program must find them."""
        pages: _Pages = uc.__dict__.setdefault("_e2kdisk_pages", cls(uc))
        return pages

    def add(self, base: int, controller: Controller) -> None:
        """Map what is not mapped yet and put the controller there. Raises UsageError and changes nothing then."""
        self.bus.add(base, controller)
        try:
            start, end = base & -PAGE, (base + controller.size + PAGE - 1) & -PAGE
            for address in range(start, end, PAGE):
                if address not in self.windows:
                    self._refuse_overlap(address)
            for address in range(start, end, PAGE):
                if address not in self.windows:
                    window = Window(self.bus, address, PAGE)
                    self.windows[address] = window, raw.MmioMapping(self._uc, address, PAGE, window, self._failed)
                self._arrange(address)
        except BaseException:
            del self.bus.devices[base]
            raise
        self.controllers[base] = controller

    def remove(self, base: int) -> None:
        """Take the controller away and unmap the pages that it leaves empty."""
        controller = self.bus.devices.pop(base)
        self.controllers.pop(base)
        self.synchronous &= {left.scheduler for left in self.controllers.values()}
        for address in range(base & -PAGE, base + controller.size, PAGE):
            if not self._arrange(address):
                self._uc.mem_unmap(address, PAGE)
                del self.windows[address]

    def _arrange(self, address: int) -> bool:
        """Find out which devices are on a page; whether there are any."""
        window = self.windows[address][0]
        devices = self.bus.devices.items()
        window.devices = [(at, device) for at, device in devices if at < address + PAGE and address < at + device.size]
        window.prepare()
        return bool(window.devices)

    def _refuse_overlap(self, address: int) -> None:
        for first, last, _permissions in self._uc.mem_regions():
            if first < address + PAGE and address <= last:
                raise UsageError(
                    f"the page at {address:#x} is mapped already (from {first:#x} to {last:#x}): "
                    "unmap it, or choose another base"
                )

    def _finish(self) -> None:
        for scheduler in self.synchronous:
            if scheduler.tasks:
                scheduler.drain()

    def _failed(self, error: BaseException) -> None:
        # What the binding does for its own callbacks: stop, and raise from emu_start.
        if self._uc._hook_exception is None:
            self._uc._hook_exception = error
        self._uc.emu_stop()


class Attachment:
    """A controller that is plugged into somebody's engine; detach() unplugs it. Also a context manager."""

    def __init__(self, uc: raw.Engine, controller: Controller, base: int) -> None:
        self.uc = uc
        self.controller = controller
        self.base = base

    def poll(self) -> bool:
        """Deliver completions that are due, without blocking; True if there were any."""
        return self.controller.scheduler.poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until a completion was delivered; False if none is to come, or `timeout` seconds passed."""
        return self.controller.scheduler.wait(timeout)

    def detach(self) -> None:
        """Finish what is in flight and take the registers off the engine; a second call does nothing."""
        pages = _Pages.of(self.uc)
        if pages.controllers.get(self.base) is self.controller:
            self.controller.reset()
            pages.remove(self.base)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.detach()


def attach(
    uc: Any,
    controller: Controller,
    *,
    base: int,
    irq: Callable[[bool], None] | None = None,
    ram: Mapping[int, Any] | None = None,
    asynchronous: bool = False,
) -> Attachment:
    """Put a controller's registers at a physical address of a unicorn.Uc and connect it to the guest's memory.

    base need not be page-aligned, and controllers may share a page; what must not be there is a mapping of yours.
    irq is called with the new level whenever the interrupt line changes, often inside a register access.
    ram names host memory that the engine works in (what you gave to mem_map_ptr) as {address: buffer}: DMA then moves
    data in place. Without it, data is copied through the engine, for whatever RAM is mapped at that time.
    asynchronous is for all controllers of one scheduler, see the module. Raises UsageError.

    >>> uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
    >>> attach(uc, VirtioMmio(VirtioBlk(open_disk("disk.qcow2"))), base=0x0A00_0000)
    """
    memory = _memory(uc, ram)
    pages = _Pages.of(uc)
    pages.add(base, controller)
    if not asynchronous:
        pages.synchronous.add(controller.scheduler)
    controller.connect(memory, IrqLine(irq))
    return Attachment(uc, controller, base)


def _memory(uc: raw.Engine, ram: Mapping[int, Any] | None) -> GuestMemory:
    if ram is None:
        return UcMemory(uc, _Pages.of(uc).windows.keys())
    memory = RamMemory(on_written=uc.ctl_remove_cache)
    for address, buffer in ram.items():
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise UsageError(f"the buffer for RAM at {address:#x} is read-only: give the one that mem_map_ptr works in")
        memory.add_bank(address, view)
    return memory
