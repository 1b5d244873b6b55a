"""Runtime options of qcow2, by the names that QEMU gives them: what holds while an image is open, not in the image."""

from __future__ import annotations

from typing import Any

from e2kdisk.block.tree import Taken
from e2kdisk.errors import UnsupportedFeature, UsageError
from e2kdisk.qcow2.overlap import TEMPLATES

OVERLAP_KINDS = (
    "main-header",
    "active-l1",
    "active-l2",
    "refcount-table",
    "refcount-block",
    "snapshot-table",
    "inactive-l1",
    "inactive-l2",
    "bitmap-directory",
)
HINTS = ("pass-discard-request", "pass-discard-snapshot", "pass-discard-other")
"""Where freed space is given back to the host at once: read and checked; ours is given back whenever it can be."""


def take_runtime(taken: Taken, filename: str) -> dict[str, Any]:
    """Take the options of qcow2 and return them as OpenOptions.extras. Raises UsageError, UnsupportedFeature."""
    extras: dict[str, Any] = {}
    lazy = taken.switch("lazy-refcounts")
    if lazy is not None:
        extras["lazy_refcounts"] = lazy
    l2_cache = _cache_sizes(taken)
    if l2_cache is not None:
        extras["l2_cache_size"] = max(l2_cache, 1)
    template = _overlap_check(taken, filename)
    if template is not None:
        extras["overlap_check"] = template
    for hint in HINTS:
        taken.switch(hint)
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


def _overlap_check(taken: Taken, filename: str) -> str | None:
    value = taken.any("overlap-check")
    if isinstance(value, dict):
        checks = Taken("qcow2", {f"overlap-check.{key}": item for key, item in value.items()}, kind="format")
        template = checks.text("overlap-check.template")
        single = [kind for kind in OVERLAP_KINDS if checks.switch(f"overlap-check.{kind}") is not None]
        checks.finish()
        if single:
            what = f"only whole templates are supported: {', '.join(TEMPLATES)}"
            raise UnsupportedFeature(filename, f"overlap-check.{single[0]}", what)
    else:
        template = value
    if template is not None and template not in TEMPLATES:
        names = ", ".join(TEMPLATES)
        what = f"Unsupported value '{template}' for qcow2 option 'overlap-check'. Allowed are any of the following:"
        raise UsageError(f"{what} {names}")
    return template
