"""Write something to clusters that nothing points to yet: a table that the header shall name afterwards."""

from __future__ import annotations

from e2kdisk.qcow2.geometry import HostOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from e2kdisk.qcow2.image import Qcow2Image


async def write_new(image: Qcow2Image, data: bytes) -> HostOffset:
    """Write data to new clusters, padded with zeros, and return their offset; under the metadata lock.

    Neither the data nor its refcounts are durable yet. Raises OSError or ImageError; nothing is allocated then.
    """
    clusters = max(1, image.geometry.clusters(len(data)))
    offset, _ = await image.refcounts.allocate(clusters)
    try:
        padding = bytes((clusters << image.geometry.cluster_bits) - len(data))
        await image.file.write(offset, [memoryview(data), memoryview(padding)])
        image.order.note_unsynced()
    except BaseException:
        await image.refcounts.abandon(offset, clusters)
        raise
    return offset
