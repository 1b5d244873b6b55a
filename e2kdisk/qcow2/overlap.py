"""Overlap checks: guest data and new clusters must never land on metadata (QCOW2_OL_* of later QEMU).

Broken refcounts make an allocator hand out clusters that are in use; a broken L2 entry leads a write to a
table. Both are found before the write: the image is marked corrupt and no further write is let through. Two tables
in one place are found when the image is opened, and it is not opened for writing.
"""

from __future__ import annotations

from e2kdisk.errors import CorruptImage, UsageError
from e2kdisk.qcow2.geometry import Geometry

TEMPLATES: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "constant": frozenset({"header", "active L1 table", "refcount table", "snapshot table", "bitmap directory"}),
    "cached": frozenset(
        {"header", "active L1 table", "refcount table", "snapshot table", "bitmap directory"}
        | {"active L2 table", "refcount block", "inactive L1 table"}
    ),
    "all": frozenset(
        {"header", "active L1 table", "refcount table", "snapshot table", "bitmap directory"}
        | {"active L2 table", "refcount block", "inactive L1 table", "inactive L2 table"}
    ),
}
"""What each overlap-check template guards; names as in error messages."""


_SHARED = {"active L2 table", "inactive L2 table"}
"""The disk and its snapshots may have L2 tables in common."""


class OverlapGuard:
    """The clusters of one image that hold metadata, by number."""

    def __init__(self, geometry: Geometry, template: str | frozenset[str] = "cached") -> None:
        """template: a key of TEMPLATES, or the kinds themselves."""
        if isinstance(template, str) and template not in TEMPLATES:
            raise UsageError(f"overlap_check {template!r} is not one of {', '.join(TEMPLATES)}")
        self._bits = geometry.cluster_bits
        self._kinds = TEMPLATES[template] if isinstance(template, str) else template
        self.clusters: dict[int, str] = {}
        """Guarded clusters; read-only for others. The hot path looks here itself."""
        self.conflict: str | None = None
        """Two structures that were found in one place: writing one would destroy the other."""

    def need_no_conflict(self, filename: str) -> None:
        """Raise CorruptImage if two structures lie in one place: nothing may be written then."""
        if self.conflict is not None:
            raise CorruptImage(filename, "", f"{self.conflict}; it can be read, and perhaps repaired")

    def clear(self) -> None:
        """Forget all, to be told anew."""
        self.clusters.clear()
        self.conflict = None

    def add(self, kind: str, offset: int, length: int) -> None:
        """Guard the clusters of a structure, as the template says."""
        if kind in self._kinds and length > 0:
            for cluster in range(offset >> self._bits, (offset + length - 1 >> self._bits) + 1):
                other = self.clusters.get(cluster)
                if other is not None and not (other in _SHARED and kind in _SHARED):
                    self.conflict = f"{kind} at {offset:#x}: the {other} lies there"
                self.clusters[cluster] = kind

    def remove(self, offset: int, length: int) -> None:
        """The structure has moved away."""
        if length > 0:
            for cluster in range(offset >> self._bits, (offset + length - 1 >> self._bits) + 1):
                self.clusters.pop(cluster, None)

    def instead_of_l2_table(self, offset: int) -> str | None:
        """The kind of metadata that lies where an L1 entry says that an L2 table does, None if all is well."""
        kind = self.clusters.get(offset >> self._bits)
        return None if kind in _SHARED else kind

    def guards(self, kind: str) -> bool:
        """Whether the template guards a kind: if not, nobody need collect where it lies."""
        return kind in self._kinds

    def hit(self, offset: int, length: int) -> str | None:
        """The kind of metadata that these bytes would overwrite, None if all is well."""
        clusters = self.clusters
        for cluster in range(offset >> self._bits, (offset + length - 1 >> self._bits) + 1):
            if cluster in clusters:
                return clusters[cluster]
        return None

    def need_data(self, name: str, host: int, length: int) -> None:
        """Raise CorruptImage if a write of guest data would land on metadata."""
        kind = self.hit(host, length)
        if kind is not None:
            raise CorruptImage(name, f"write of {length} bytes at file offset {host:#x}", f"would overwrite the {kind}")
