"""The few calls that must not go through Unicorn's Python binding, and why.

A register access through the binding's mmio_map costs 800 ns, through a bare ctypes callback on the library's handle
300 ns. An exception inside such a callback would be printed and lost, so it is kept and raised after the run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import unicorn
from unicorn.arm64_const import UC_CPU_ARM64_A53
from unicorn.unicorn_const import UC_ARCH_ARM64, UC_CTL_IO_WRITE, UC_CTL_TLB_FLUSH, UC_ERR_ARG, UC_MODE_ARM
from unicorn.unicorn_py3.unicorn import uclib

_MMIO_READ = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p)
_MMIO_WRITE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p)

library = uclib

NOWHERE = 0xFFFF_FFFF_FFFF_FFF0
"""An `until` address that no guest reaches; the library translates it all the same when a run begins."""

_binding: Any = unicorn  # its annotations are partial and partly wrong
UcError = _binding.UcError
Engine = Any
"""A unicorn.Uc."""


class Registers(Protocol):
    """What a window of physical addresses leads to."""

    def read(self, offset: int, size: int) -> int:
        """A load."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """A store."""
        ...


def open_engine(arch: int, mode: int, model: int) -> Engine:
    """Make a unicorn.Uc."""
    return _binding.Uc(arch, mode, model)


def handle_of(uc: Engine) -> ctypes.c_void_p:
    """The library's own handle of an engine."""
    return ctypes.c_void_p(uc._uch.value)


VERSION = f"unicorn {_binding.__version__}"
"""What a saved CPU can go on with: the library's picture of one is only known to itself."""


def check(status: int) -> None:
    """Raise what the binding would raise."""
    if status:
        raise UcError(status)


def restore(uc: Engine, context: bytes) -> None:
    """Put back what bytes(uc.context_save()) gave, here or in another process; forget all address translations."""
    if len(context) != library.uc_context_size(handle_of(uc)):
        raise UcError(UC_ERR_ARG)
    check(library.uc_context_restore(handle_of(uc), ctypes.create_string_buffer(context, len(context))))
    uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)


class MmioMapping:
    """One mapped range of registers. Keep it as long as the guest may run: it owns the callbacks."""

    def __init__(
        self, uc: Engine, base: int, size: int, registers: Registers, failed: Callable[[BaseException], None]
    ) -> None:
        read, write = registers.read, registers.write

        def on_read(_handle: int, offset: int, width: int, _user: int) -> int:
            try:
                return read(offset, width)
            except BaseException as error:
                failed(error)
                return 0

        def on_write(_handle: int, offset: int, width: int, value: int, _user: int) -> None:
            try:
                write(offset, width, value)
            except BaseException as error:
                failed(error)

        self._callbacks = (_MMIO_READ(on_read), _MMIO_WRITE(on_write))
        check(library.uc_mmio_map(handle_of(uc), base, size, self._callbacks[0], None, self._callbacks[1], None))


class Count:
    """The library's own counter and limit: it counts for `count=` but neither tells nor lets anybody shorten it.

    Shortening it is the only clean way to stop. After emu_stop inside a register access pc is still at that access,
    which then happens again: a character printed twice, a request started twice. Called from another thread,
    emu_stop may even repeat a load whose result has overwritten its own address.
    """

    def __init__(self, uc: Engine, offset: int) -> None:
        # Next to each other: instructions counted (one is counted before it runs), and the limit.
        self._words = (ctypes.c_uint64 * 2).from_address(uc._uch.value + offset)

    def executed(self) -> int:
        """Instructions since the current emu_start began; inside a hook, with the one that makes it."""
        counted, limit = self._words
        # The one beyond the limit is counted too but does not run. A shortened limit is 0 (see below).
        return int(counted - 1 if counted > limit else counted)

    def ended_early(self) -> bool:
        """Whether the last emu_start ended before its limit by itself: the guest waits for an interrupt."""
        return bool(self._words[0] <= self._words[1])

    def end_after_this(self) -> None:
        """End the current emu_start after the instruction that runs now; callable from any thread."""
        self._words[1] = 0


@cache
def find_counter() -> int:
    """Offset of the counter in the library's engine structure, which is not public.

    It lies next to the limit that it is compared with, so a probe run with a limit that occurs nowhere else finds it.
    Raises RuntimeError for a version of Unicorn that keeps it elsewhere.
    """
    limit, searched = 0x3A7, 0x1000
    uc = open_engine(UC_ARCH_ARM64, UC_MODE_ARM, UC_CPU_ARM64_A53)
    uc.mem_map(0x1000, 0x1000)
    uc.mem_write(0x1000, b"\x00\x00\x00\x14")  # b .
    uc.emu_start(0x1000, 0, count=limit)
    words = (ctypes.c_uint64 * (searched // 8)).from_address(uc._uch.value)
    found = [i for i in range(len(words) - 1) if words[i + 1] == limit and words[i] == limit + 1]
    if len(found) != 1:
        raise RuntimeError(f"Unicorn {_binding.__version__} keeps its instruction counter where it is not known")
    return found[0] * 8
