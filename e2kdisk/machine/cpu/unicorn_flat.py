"""Fast address translation while the guest's virtual addresses are its physical ones.

Unicorn sends each store to a page that may be executed through a slow path (25 ns instead of 2), and pages of
firmware are executable: without translation, or with page tables that map everything as it is. Unicorn can let a hook
fill its TLB instead. The hook here gives a page either for data or for code:

    load, store    readable and writable      store: fast; translated code of the page is dropped first
    fetch          readable and executable    the next store comes here again

so code that the guest has overwritten is never run again, by pages. A page that goes back and forth (code and data of
a tiny guest) becomes both, slowly, as Unicorn would have it. As soon as the guest uses an address that is not its own
physical one, another privilege level, or anything unusual, the hook declines and Unicorn translates for good.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any

from unicorn import unicorn_const as const

from e2kdisk.machine.cpu import unicorn_raw as raw

CODE = const.UC_PROT_READ | const.UC_PROT_EXEC
DATA = const.UC_PROT_READ | const.UC_PROT_WRITE
TURNS = 8
"""So often a page may become data after it was code."""


class _Entry(ctypes.Structure):
    """Unicorn's uc_tlb_entry."""

    _fields_ = [
        ("address", ctypes.c_uint64),
        ("permissions", ctypes.c_uint32),
    ]


_TLB_FILL = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(_Entry), ctypes.c_void_p
)


class FlatTlb:
    """Fills the TLB of one engine until the guest needs real translation."""

    def __init__(
        self,
        uc: raw.Engine,
        is_data: Callable[[int], bool],
        is_code: Callable[[int], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        """is_data and is_code say whether the guest may use a page at its own physical address, for what."""
        self.active = True
        self.declined: int | None = None
        """The kind of access (UC_MEM_*) at which the hook declined, which ends emu_start with an error."""
        self._uc = uc
        self._page_size: int = uc.ctl_get_page_size()  # 1 KiB on Arm
        self._code: set[int] = set()
        """Pages that may have translated code."""
        self._turns: Counter[int] = Counter()
        self._dropping = False
        nowhere = raw.NOWHERE & -self._page_size
        code, turns = self._code, self._turns

        def fill(_handle: int, page: int, access: int, entry: Any, _user: int) -> bool:
            try:
                if access == const.UC_MEM_FETCH:
                    allowed, permissions = is_code(page), CODE | DATA if turns[page] > TURNS else CODE
                    if not self._dropping:
                        code.add(page)
                else:
                    allowed, permissions = is_data(page), DATA
                    if page in code:
                        permissions = self._from_code_to_data(page, access)
                if not allowed and page < nowhere:
                    self.declined = access
                    return False
                answer = entry[0]
                answer.address = page
                answer.permissions = permissions
                return True
            except BaseException as error:
                failed(error)
                return False

        self._callback = _TLB_FILL(fill)
        hook = ctypes.c_size_t()
        begin, end = ctypes.c_uint64(1), ctypes.c_uint64(0)
        handle = raw.handle_of(uc)
        raw.check(
            raw.library.uc_hook_add(
                handle, ctypes.byref(hook), const.UC_HOOK_TLB_FILL, self._callback, None, begin, end
            )
        )
        uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)

    def _from_code_to_data(self, page: int, access: int) -> int:
        if access == const.UC_MEM_READ:
            return CODE  # constants between functions: no reason to drop anything
        self._turns[page] += 1
        if self._turns[page] > TURNS:
            return CODE | DATA
        self._drop(page, page + self._page_size)
        self._code.discard(page)
        return DATA

    def _drop(self, start: int, end: int) -> None:
        # The library looks the addresses up as if it fetched from them: that alone makes no page one with code.
        self._dropping = True
        self._uc.ctl_remove_cache(start, end)
        self._dropping = False

    def invalidate(self, start: int, end: int) -> None:
        """Forget translated code of a range that a device has written; nearly always there is none."""
        size, code = self._page_size, self._code
        pages = range(start & -size, end, size)
        if any(page in code for page in pages) if len(pages) < len(code) else any(page in pages for page in code):
            self._drop(start, end)

    def leave(self) -> int:
        """Let Unicorn translate from now on; how many instructions were counted that have yet to run."""
        declined, self.declined = self.declined, None
        self.active = False
        self._uc.ctl_set_tlb_mode(const.UC_TLB_CPU)
        self._uc.ctl(const.UC_CTL_TLB_FLUSH, const.UC_CTL_IO_WRITE)
        return int(declined != const.UC_MEM_FETCH)
