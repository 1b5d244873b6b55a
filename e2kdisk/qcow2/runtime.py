"""Runtime options of qcow2, by the names that QEMU gives them: what holds while an image is open, not in the image."""

from __future__ import annotations

from e2kdisk.block.tree import Taken
from e2kdisk.errors import UnsupportedFeature, UsageError
from e2kdisk.qcow2.overlap import TEMPLATES
from e2kdisk.qcow2.refcount import PASSED_ON, Freed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OVERLAP_KINDS = {
    "main-header": "header",
    "active-l1": "active L1 table",
    "active-l2": "active L2 table",
    "refcount-table": "refcount table",
    "refcount-block": "refcount block",
    "snapshot-table": "snapshot table",
    "inactive-l1": "inactive L1 table",
    "inactive-l2": "inactive L2 table",
    "bitmap-directory": "bitmap directory",
}
"""The single switches of overlap-check -> what OverlapGuard calls that kind."""


def take_runtime(taken: Taken, filename: str, *, discards: bool = True) -> dict[str, Any]:
    """Take the options of qcow2 and return them as OpenOptions.extras. Raises UsageError, UnsupportedFeature.

    discards: whether discards reach the image at all.
    """
    extras: dict[str, Any] = {}
    lazy = taken.switch("lazy-refcounts")
    if lazy is not None:
        extras["lazy_refcounts"] = lazy
    l2_cache = _cache_sizes(taken)
    if l2_cache is not None:
        extras["l2_cache_size"] = max(l2_cache, 1)
    guarded = _overlap_check(taken)
    if guarded is not None:
        extras["overlap_check"] = guarded
    # What a guest discards stays where the whole image does not pass on discards.
    passed_on = PASSED_ON if discards else PASSED_ON - {Freed.REQUEST}
    for why in Freed:
        wanted = taken.switch(why.value)
        if wanted is not None:
            passed_on = passed_on | {why} if wanted else passed_on - {why}
    if passed_on != PASSED_ON:
        extras["pass_discard"] = passed_on
    if taken.tree("data-file") is not None:
        raise UnsupportedFeature(filename, "data-file", "external data files are not supported")
    return extras


def _cache_sizes(taken: Taken) -> int | None:
    total, l2_cache = taken.size("cache-size"), taken.size("l2-cache-size")
    refcount_cache = taken.size("refcount-cache-size")
    for name, part in (("l2-cache-size", l2_cache), ("refcount-cache-size", refcount_cache)):
        if total is not None and part is not None and part > total:
            raise UsageError(f"{name} may not exceed cache-size")
    if total is not None and l2_cache is not None and refcount_cache is not None:
        raise UsageError("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
    entry = taken.size("l2-cache-entry-size")
    if entry is not None and (entry < 512 or entry & (entry - 1)):
        raise UsageError("L2 cache entry size must be a power of two between 512 and the cluster size")
    taken.size("cache-clean-interval")
    if l2_cache is None and total is not None:
        l2_cache = total - (refcount_cache or 0)
    return l2_cache


def _overlap_check(taken: Taken) -> frozenset[str] | None:
    """The kinds of metadata that overlap-check names: a template, and single switches that change it."""
    value = taken.any("overlap-check")
    if value is None:
        return None
    switches: dict[str, bool] = {}
    if isinstance(value, dict):
        checks = Taken("qcow2", {f"overlap-check.{key}": item for key, item in value.items()}, kind="format")
        value = checks.text("overlap-check.template") or "cached"
        for name, kind in OVERLAP_KINDS.items():
            wanted = checks.switch(f"overlap-check.{name}")
            if wanted is not None:
                switches[kind] = wanted
        checks.finish()
    if value not in TEMPLATES:
        names = ", ".join(TEMPLATES)
        what = f"Unsupported value '{value}' for qcow2 option 'overlap-check'. Allowed are any of the following:"
        raise UsageError(f"{what} {names}")
    guarded = TEMPLATES[value] | {kind for kind, wanted in switches.items() if wanted}
    return guarded - {kind for kind, wanted in switches.items() if not wanted}
