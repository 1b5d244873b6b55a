"""Amend: change what an existing image is - version, lazy refcounts, refcount width, backing file, size."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from e2kdisk.errors import UsageError
from e2kdisk.qcow2 import layout
from e2kdisk.qcow2.chain import change_backing
from e2kdisk.qcow2.check_walk import Walk
from e2kdisk.qcow2.downgrade import downgrade, need_downgradable_snapshots
from e2kdisk.qcow2.geometry import Geometry
from e2kdisk.qcow2.rebuild import rebuild_refcounts

if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


class AmendOptions(NamedTuple):
    """What to change; None leaves it as it is."""

    version: int | None = None
    lazy_refcounts: bool | None = None
    refcount_bits: int | None = None
    backing_file: str | None = None
    """The empty string removes it."""
    backing_format: str | None = None
    size: int | None = None


async def amend(image: Qcow2Image, options: AmendOptions) -> None:
    """Carry out all changes, in an order in which each is possible. Raises UsageError, ImageError or OSError.

    Every step switches with one header write: an interruption leaves the steps before it done.
    """
    image.need_write_access()
    _check(image, options)
    if options.version == 3 and image.header.version == 2:
        await _upgrade(image)
    if options.refcount_bits is not None and options.refcount_bits != image.geometry.refcount_bits:
        await _change_refcount_bits(image, options.refcount_bits)
    if options.backing_file is not None:
        await change_backing(image, options.backing_file or None, options.backing_format)
    if options.lazy_refcounts is not None:
        await _set_lazy(image, options.lazy_refcounts)
    if options.size is not None and options.size != image.size:
        await image.truncate(options.size)
    if options.version == 2 and image.header.version == 3:
        await _set_lazy(image, False)
        await downgrade(image)


def _check(image: Qcow2Image, options: AmendOptions) -> None:
    version = options.version if options.version is not None else image.header.version
    bits = options.refcount_bits if options.refcount_bits is not None else image.geometry.refcount_bits
    if version not in (2, 3):
        raise UsageError(f"{image.name}: version {version} is not 2 or 3")
    if bits not in (1, 2, 4, 8, 16, 32, 64):
        raise UsageError(f"{image.name}: refcount_bits {bits} is not a power of two from 1 to 64")
    if version == 2 and bits != 16:
        raise UsageError(f"{image.name}: version 2 images have 16-bit refcounts")
    if version == 2 and options.lazy_refcounts:
        raise UsageError(f"{image.name}: version 2 images have no lazy refcounts")
    if version == 2 and image.header.version == 3:
        need_downgradable_snapshots(image, image.size if options.size is None else options.size)


async def _upgrade(image: Qcow2Image) -> None:
    async with image.exclusive():
        await image.flush_metadata()
        await image.snapshots.complete_entries()
        header = image.header
        header.unknown_fields = bytes(8)
        extensions = list(header.extensions)
        header.add_feature_names()
        try:
            await image.writer.switch(version=3, header_length=layout.V3_HEADER_BYTES + 8)
        except BaseException:
            header.unknown_fields = b""
            header.extensions = extensions
            raise


async def _set_lazy(image: Qcow2Image, lazy: bool) -> None:
    async with image.exclusive():
        # Turned off: all counts reach the disk before the header stops saying that they may not have.
        await image.order.flush(lazy=False)
        features = image.header.compatible_features & ~layout.COMPAT_LAZY_REFCOUNTS
        clean = image.header.incompatible_features & ~layout.INCOMPAT_DIRTY
        await image.writer.switch(
            compatible_features=features | (layout.COMPAT_LAZY_REFCOUNTS if lazy else 0), incompatible_features=clean
        )
        image.order.lazy = lazy


async def _change_refcount_bits(image: Qcow2Image, bits: int) -> None:
    """Count everything anew and write a second set of refcount structures with the new width."""
    async with image.exclusive():
        await image.flush_metadata()
        await image.order.flush(lazy=False)
        walk = Walk(image.file, image.header)
        await walk.count_everything_but_refcounts()
        geometry = Geometry(image.geometry.cluster_bits, bits.bit_length() - 1)

        async def counts(first: int, end: int) -> list[int]:
            # A process that died may have left counts too high. They stay: an entry without COPIED is right about
            # them, and would be wrong from the moment in which the new count is one.
            found = walk.kernel.references_of(first, end)
            old = await image.refcounts.counts(first, end)
            return [max(now, before) if now else 0 for now, before in zip(found, old, strict=True)]

        await rebuild_refcounts(image.file, image.writer, geometry, walk.clusters, counts)
        await image.reload_refcounts()
