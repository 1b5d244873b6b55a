"""OnDemand: the parts of an image that many never need; their code is loaded when they are first asked for."""

from __future__ import annotations

from functools import cached_property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.bitmaps import Bitmaps
    from e2kdisk.qcow2.snapshot import Snapshots


class OnDemand:
    """What Qcow2Image has besides its disk. Empty unless it was loaded when the image was opened."""

    @cached_property
    def snapshots(self) -> Snapshots:
        """The snapshots of the image and what can be done with them."""
        from e2kdisk.qcow2.snapshot import Snapshots

        return Snapshots(self)  # type: ignore[arg-type]

    @cached_property
    def bitmaps(self) -> Bitmaps:
        """The persistent bitmaps of the image."""
        from e2kdisk.qcow2.bitmaps import Bitmaps

        return Bitmaps(self)  # type: ignore[arg-type]

    @property
    def has_stale_bitmaps(self) -> bool:
        """Whether the image, when it was opened, named bitmaps that somebody had not kept up: they are gone."""
        return "bitmaps" in self.__dict__ and self.bitmaps.stale
